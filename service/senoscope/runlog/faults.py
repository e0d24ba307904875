"""Faults of the database as a few states, each with its remedy."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from senoscope.runlog.schema import NewerSchema
from senoscope_client.errors import LogUnavailable

LogState = Literal["corrupt", "locked", "read_only", "full", "unreachable", "newer_schema", "slow"]

_ADVICE: Final[dict[LogState, str]] = {
    "corrupt": "is damaged and is left unchanged. Move the file and its companions (-wal, -shm) away, "
    "and a new log is created; `sqlite3 FILE .recover` reads what is left of the old one",
    "locked": "is locked by another program; close the program that has it open for writing",
    "read_only": "cannot be written; allow the user of the service to write the file and its folder",
    "full": "is on a full disk; free disk space, or keep fewer results with --keep-days and --keep-mib",
    "unreachable": "cannot be used; check its disk or its server",
    "slow": "did not answer in time; request fewer results, for example of one series",
    "newer_schema": "was written by a newer version of Senoscope; install that version, or use another log "
    "with --database-url",
}
# SQLite's primary result codes, https://www.sqlite.org/rescode.html
_SQLITE: Final[dict[int, LogState]] = {
    sqlite3.SQLITE_CORRUPT: "corrupt",
    sqlite3.SQLITE_NOTADB: "corrupt",
    sqlite3.SQLITE_BUSY: "locked",
    sqlite3.SQLITE_LOCKED: "locked",
    sqlite3.SQLITE_READONLY: "read_only",
    sqlite3.SQLITE_PERM: "read_only",
    sqlite3.SQLITE_FULL: "full",
    sqlite3.SQLITE_INTERRUPT: "slow",
}
# SQLSTATE codes of PostgreSQL, https://www.postgresql.org/docs/current/errcodes-appendix.html
_POSTGRES: Final[dict[str, LogState]] = {
    "XX001": "corrupt",
    "XX002": "corrupt",
    "55P03": "locked",
    "57014": "locked",
    "40P01": "locked",
    "25006": "read_only",
    "42501": "read_only",
    "53100": "full",
}
_FULL_BELOW_BYTES: Final = 1024 * 1024


class LogFault(LogUnavailable):
    """The run log cannot be read or written.

    Attributes
    ----------
    state : LogState
        Kind of the fault.
    """

    def __init__(self, state: LogState, location: str, reason: str = "") -> None:
        super().__init__(f"the run log {location} {_ADVICE[state]}{f' ({reason})' if reason else ''}")
        self.state = state


@contextmanager
def translate_database_errors(url: sa.URL, reading: bool = False) -> Iterator[None]:
    """Raise LogFault for any error of the database in the block."""
    try:
        yield
    except NewerSchema as error:
        raise LogFault("newer_schema", location_of(url), f"schema {error}") from error
    except (SQLAlchemyError, sqlite3.Error, OSError) as error:
        cause = getattr(error, "orig", None) or error
        reason = " ".join(str(cause).split())[:300]
        state = _classify(cause, url)
        if reading and getattr(cause, "sqlstate", None) == "57014":  # canceled by the time limit of reads
            state = "slow"
        raise LogFault(state, location_of(url), reason) from error


def location_of(url: sa.URL) -> str:
    """Return the path of an SQLite file, or the URL of another database without its password."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    return url.render_as_string(hide_password=True)


def _classify(cause: BaseException, url: sa.URL) -> LogState:
    if isinstance(cause, OSError):
        by_errno: dict[int | None, LogState] = {
            errno.ENOSPC: "full",
            errno.EROFS: "read_only",
            errno.EACCES: "read_only",
            errno.EPERM: "read_only",
        }
        return by_errno.get(cause.errno, "unreachable")
    if isinstance(cause, sqlite3.Error):
        code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
        path = Path(str(url.database))
        # SQLite reports no reason if it cannot create or extend a file next to the database (-wal, -shm).
        if code == sqlite3.SQLITE_IOERR and _disk_is_full(path):
            return "full"
        if code == sqlite3.SQLITE_CANTOPEN and path.exists() and not os.access(path.parent, os.W_OK):
            return "read_only"
        return _SQLITE.get(code, "unreachable")
    return _POSTGRES.get(getattr(cause, "sqlstate", None) or "", "unreachable")


def _disk_is_full(path: Path) -> bool:
    try:
        return shutil.disk_usage(path.parent).free < _FULL_BELOW_BYTES
    except OSError:
        return False
