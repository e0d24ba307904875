"""A lock in the database of the run log, which one process at a time holds until it ends, however it ends."""

from __future__ import annotations

import zlib

from senoscope.runlog.database import Database
from senoscope.runlog.dialects import LockSession
from senoscope.runlog.faults import translate_database_errors


class SessionLock:
    """A lock with a name; for one thread. `acquire` raises LogFault if the database fails."""

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._number = zlib.crc32(name.encode())
        self._session: LockSession | None = None

    def acquire(self) -> bool:
        """Return whether this process holds the lock now; call it again before each use."""
        dialect = self._database.dialect
        held, self._session = self._session, None
        with translate_database_errors(dialect):
            self._session = dialect.try_lock(self._database.engine, self._number, held)
        return self._session is not None

    def release(self) -> None:
        """Release the lock."""
        session, self._session = self._session, None
        if session is not None:
            session.close()
