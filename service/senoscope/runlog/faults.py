"""Faults of the database as a few states, each with its remedy."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from senoscope.runlog.dialects import Dialect, LogState
from senoscope.runlog.schema import NewerSchema
from senoscope_client.errors import LogUnavailable

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
_BY_ERRNO: Final[dict[int | None, LogState]] = {
    errno.ENOSPC: "full",
    errno.EROFS: "read_only",
    errno.EACCES: "read_only",
    errno.EPERM: "read_only",
}


class LogFault(LogUnavailable):
    """The run log cannot be read or written."""

    def __init__(self, state: LogState, location: str, reason: str = "") -> None:
        super().__init__(f"the run log {location} {_ADVICE[state]}{f' ({reason})' if reason else ''}")
        self.state = state


@contextmanager
def translate_database_errors(dialect: Dialect, *, reading: bool = False) -> Iterator[None]:
    """Raise LogFault for any error of the database in the block."""
    errors: tuple[type[Exception], ...] = (SQLAlchemyError, OSError, *dialect.driver_errors)
    try:
        yield
    except NewerSchema as error:
        raise LogFault("newer_schema", dialect.location, f"schema {error}") from error
    except errors as error:
        cause = getattr(error, "orig", None) or error
        if isinstance(cause, OSError):
            state = _BY_ERRNO.get(cause.errno, "unreachable")
        else:
            state = dialect.state_of(cause, reading=reading)
        raise LogFault(state, dialect.location, " ".join(str(cause).split())[:300]) from error
