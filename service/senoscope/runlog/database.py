"""Connections to the database of the run log: many readers, one writer at a time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError

from senoscope.runlog.dialects import DIALECTS
from senoscope.runlog.faults import translate_database_errors
from senoscope.runlog.places import checked_database_url
from senoscope.runlog.schema import prepare_schema

# Time limit of a read. No query of the service takes a hundredth of it in an intact database.
_READ_TIMEOUT_S: Final = 5.0
# Connections for reads, more than the threads that read (`senoscope.api.reading` and those of the service).
_READERS: Final = 8
# Closed pools that may still get connections back: a read is shorter than so many attempts to open the log.
_MAX_CLOSED_POOLS: Final = 32


class Database:
    """A database. Connections are opened on first use; every method raises `LogFault` if it fails.

    Parameters
    ----------
    url : str
        ``sqlite:///PATH`` or ``postgresql://...``.
    read_s : float, optional
        Time limit of a single read, in seconds.

    Attributes
    ----------
    dialect : Dialect
        What is particular to this kind of database.

    Raises
    ------
    ValueError
        If the URL is not of that form.
    LogUnavailable
        If the driver of the database is not installed.
    """

    def __init__(self, url: str, read_s: float = _READ_TIMEOUT_S) -> None:
        checked_database_url(url)
        try:
            self.url = sa.make_url(url)
        except ArgumentError as error:
            raise ValueError(f"the URL of the run log is not valid: {error}") from error
        self.dialect = DIALECTS[self.url.get_backend_name()](self.url, read_s)
        self._write_lock = threading.Lock()
        # Separate pools, so that readers can never take the connection of the writer.
        pool = {"pool_size": _READERS, "max_overflow": 0, "pool_timeout": read_s}
        self.engine = self.dialect.create_engine(pool, reading=True)
        self._write_engine = self.dialect.create_engine({}, reading=False)
        self._closed_pools: deque[sa.Pool] = deque(maxlen=_MAX_CLOSED_POOLS)

    def prepare(self) -> None:
        """Create the database or migrate it to the current schema, and check that it can be written."""
        with translate_database_errors(self.dialect):
            if self.dialect.file is not None:
                self.dialect.file.parent.mkdir(parents=True, exist_ok=True)
            with self.write() as connection:
                prepare_schema(connection)
            self.dialect.remember_file()

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Run a read transaction within the block; after the time limit, the fault has the state ``slow``."""
        with (
            translate_database_errors(self.dialect, reading=True),
            self.engine.connect() as connection,
            connection.begin(),
            self.dialect.time_limit(connection),
        ):
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """Run a write transaction within the block: committed at its end, rolled back on any error."""
        # Threads of this process wait for this lock, which wakes them at once; SQLite's own lock is polled.
        with (
            translate_database_errors(self.dialect),
            self._write_lock,
            self._write_engine.begin() as connection,
        ):
            yield connection

    def insert_rows(self, table: sa.Table, rows: Sequence[dict[str, Any]]) -> None:
        """Insert rows, columns in the table's order, in one transaction; those that exist are skipped."""
        with translate_database_errors(self.dialect), self._write_lock:
            self.dialect.insert_rows(self._write_engine, table, rows)

    def checkpoint(self) -> None:
        """Flush commits to the disk that only a power failure could lose; delays no commit.

        Fails also if the file was moved or deleted: later writes to it would be lost.
        """
        with translate_database_errors(self.dialect):
            self.dialect.checkpoint(self._write_engine)

    def shrink_file(self, pages: int) -> bool:
        """Return free pages to the file system, and return whether more may be left."""
        with translate_database_errors(self.dialect), self._write_lock:
            return self.dialect.shrink_file(self._write_engine, pages)

    def close_connections(self) -> None:
        """Close all connections; later use opens new ones. The next call closes those that are in use now."""
        with self._write_lock:
            self.dialect.close()
        for engine in (self.engine, self._write_engine):
            self._closed_pools.append(engine.pool)
            engine.dispose()
        # A connection that was in use returned to the pool that it is from. While one is open, SQLite keeps a
        # file read-only, for the whole process, that was opened on a read-only disk.
        for pool in self._closed_pools:
            pool.dispose()
