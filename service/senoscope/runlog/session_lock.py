"""A lock in the database of the run log, which one process at a time holds until it ends, however it ends."""

from __future__ import annotations

import sqlite3
import zlib

import sqlalchemy as sa

from senoscope.runlog.database import Database
from senoscope.runlog.faults import translate_database_errors


class SessionLock:
    """A lock with a name; for one thread. That of an SQLite file is in a file of its own next to it."""

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._number = zlib.crc32(name.encode())
        self._session: sqlite3.Connection | sa.Connection | None = None

    def acquire(self) -> bool:
        """Return whether this process holds the lock now; call it again before each use.

        Raises
        ------
        LogFault
        """
        with translate_database_errors(self._database.url):
            return self._acquire_file() if self._database.is_sqlite else self._acquire_advisory()

    def release(self) -> None:
        """Release the lock."""
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _acquire_file(self) -> bool:
        if self._session is not None:
            return True
        path = f"{self._database.url.database}.lock-{self._number:08x}"
        session = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            session.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            session.close()
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
            return False
        self._session = session
        return True

    def _acquire_advisory(self) -> bool:
        if not isinstance(self._session, sa.Connection):
            self._session = self._database.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            self._session.detach()
        try:  # a session that has the lock gets it again; one that was interrupted has lost it
            query = sa.select(sa.func.pg_try_advisory_lock(self._number))
            return bool(self._session.execute(query).scalar())
        except sa.exc.SQLAlchemyError:
            self.release()
            raise
