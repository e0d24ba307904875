"""What it means when the database fails: a few states, each with what to do about it."""

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
    "corrupt": "is damaged, and is left as it is. Move the file and those named like it (-wal, -shm) away, "
    "and a new log is begun; `sqlite3 FILE .recover` reads what can be read of the old one",
    "locked": "is locked by another program; close whatever has it open for writing",
    "read_only": "cannot be written; give the service's user the right to write it and its folder",
    "full": "has no room left on its disk; make room, or keep less with --keep-days and --keep-mib",
    "unreachable": "cannot be used; see that its disk or its server is there",
    "slow": "did not answer this question in time; ask for less, such as one series or a shorter time",
    "newer_schema": "was written by a newer version of Senoscope; install that one, or name another log "
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
# PostgreSQL's, https://www.postgresql.org/docs/current/errcodes-appendix.html
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
_LITTLE_ROOM: Final = 1024 * 1024


class LogFault(LogUnavailable):
    """The run log cannot be read or written.

    Attributes
    ----------
    state : LogState
        What kind of failure it is.
    """

    def __init__(self, state: LogState, place: str, words: str = "") -> None:
        super().__init__(f"the run log {place} {_ADVICE[state]}{f' ({words})' if words else ''}")
        self.state = state


@contextmanager
def told_as_faults(url: sa.URL, reading: bool = False) -> Iterator[None]:
    """Turn whatever the database raises into a LogFault."""
    try:
        yield
    except NewerSchema as error:
        raise LogFault("newer_schema", place_of(url), f"schema {error}") from error
    except (SQLAlchemyError, sqlite3.Error, OSError) as error:
        cause = getattr(error, "orig", None) or error
        words = " ".join(str(cause).split())[:300]
        state = _state(cause, url)
        if reading and getattr(cause, "sqlstate", None) == "57014":  # canceled: the limit of reads
            state = "slow"
        raise LogFault(state, place_of(url), words) from error


def place_of(url: sa.URL) -> str:
    """The database in words, without its password."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    return url.render_as_string(hide_password=True)


def _state(cause: BaseException, url: sa.URL) -> LogState:
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
        # Where a helper file beside the database cannot be made or grow, SQLite does not tell why.
        if code == sqlite3.SQLITE_IOERR and _disk_is_full(path):
            return "full"
        if code == sqlite3.SQLITE_CANTOPEN and path.exists() and not os.access(path.parent, os.W_OK):
            return "read_only"
        return _SQLITE.get(code, "unreachable")
    return _POSTGRES.get(getattr(cause, "sqlstate", None) or "", "unreachable")


def _disk_is_full(path: Path) -> bool:
    try:
        return shutil.disk_usage(path.parent).free < _LITTLE_ROOM
    except OSError:
        return False
