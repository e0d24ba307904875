"""Connections to the database of the run log, SQLite or PostgreSQL: many readers, one writer at a time."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import ArgumentError

from senoscope.runlog.faults import translate_database_errors
from senoscope.runlog.places import checked_database_url
from senoscope.runlog.schema import prepare_schema
from senoscope_client.errors import LogUnavailable

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql

# Time limit for another program's lock on the SQLite file.
_LOCK_TIMEOUT_S: Final = 0.5
# Moving pages from the write-ahead log into the database waits for the disk. `Database.checkpoint` does it
# outside of commits; a commit does it only when the write-ahead log has this many pages.
_AUTOCHECKPOINT_PAGES: Final = 16384
# Time limit of a read. No query of the service takes a hundredth of it in an intact database.
_READ_TIMEOUT_S: Final = 5.0
# Instructions of SQLite's virtual machine between two checks of the time limit: some milliseconds.
_STEPS_PER_CHECK: Final = 100_000
# Connections for reads, more than the threads that read (`senoscope.api.reading` and those of the service).
_READERS: Final = 8
_INCREMENTAL: Final = 2  # value of PRAGMA auto_vacuum
_POSTGRES_ARGUMENTS: Final = {
    "connect_timeout": 3,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # ms
}


class Database:
    """A database. Connections are opened on first use.

    Parameters
    ----------
    url : str
        ``sqlite:///PATH`` or ``postgresql://...``.
    read_s : float, optional
        Time limit of a single read, in seconds.

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
        self._read_s = read_s
        self._write_lock = threading.Lock()
        self._file: tuple[int, int] | None = None
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        # Separate pools, so that readers can never take the connection of the writer.
        self.engine = self._create_engine("BEGIN", reading=True)
        # IMMEDIATE: a transaction that reads before it requests the write lock may fail without waiting.
        self._write_engine = self._create_engine("BEGIN IMMEDIATE")
        self._insert_connection: sqlite3.Connection | None = None

    def _create_engine(self, begin_sqlite: str, reading: bool = False) -> sa.Engine:
        pool = {"pool_size": _READERS, "max_overflow": 0, "pool_timeout": self._read_s} if reading else {}
        if self.is_sqlite:
            engine = sa.create_engine(self.url, connect_args={"timeout": _LOCK_TIMEOUT_S}, **pool)
            sa.event.listen(engine, "connect", _set_up_sqlite)
            sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin_sqlite))
            return engine
        try:
            return sa.create_engine(
                self.url.set(drivername="postgresql+psycopg"),
                connect_args=_POSTGRES_ARGUMENTS | (self._statement_timeout() if reading else {}),
                pool_pre_ping=True,
                **pool,
            )
        except ImportError as error:
            raise LogUnavailable(
                'a run log in PostgreSQL needs `pip install "senoscope[service,postgres]"`'
            ) from error

    def _statement_timeout(self) -> dict[str, str]:
        """Return the connection options of the URL, with a time limit for statements added."""
        own = self.url.query.get("options", "")
        limit = f"-c statement_timeout={round(self._read_s * 1000)}"
        return {"options": f"{own if isinstance(own, str) else ' '.join(own)} {limit}".strip()}

    def prepare(self) -> None:
        """Create the database or migrate it to the current schema, and check that it can be written.

        Raises
        ------
        LogFault
        """
        with translate_database_errors(self.url):
            if self.is_sqlite:
                Path(str(self.url.database)).parent.mkdir(parents=True, exist_ok=True)
            with self.write() as connection:
                prepare_schema(connection)
            self._file = self._file_identity()

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Run a read transaction within the block, with the time limit of reads.

        Raises
        ------
        LogFault
            With the state ``slow`` after the time limit.
        """
        with (
            translate_database_errors(self.url, reading=True),
            self.engine.connect() as connection,
            connection.begin(),
            self._time_limit(connection),
        ):
            yield connection

    @contextmanager
    def _time_limit(self, connection: sa.Connection) -> Iterator[None]:
        """Interrupt SQLite after the time limit; PostgreSQL enforces it itself (`_statement_timeout`)."""
        raw = connection.connection.driver_connection
        if not isinstance(raw, sqlite3.Connection):
            yield
            return
        until_s = time.monotonic() + self._read_s
        raw.set_progress_handler(lambda: time.monotonic() > until_s, _STEPS_PER_CHECK)
        try:
            yield
        finally:
            raw.set_progress_handler(None, 0)

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """Run a write transaction within the block: committed at its end, rolled back on any error.

        Raises
        ------
        LogFault
        """
        # Threads of this process wait for this lock, which wakes them at once; SQLite's own lock is polled.
        with (
            translate_database_errors(self.url),
            self._write_lock,
            self._write_engine.connect() as connection,
            connection.begin(),
        ):
            yield connection

    def insert_statement(self, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
        """Return an insert statement that can skip or update existing rows."""
        if self.is_sqlite:
            return sqlite.insert(table)
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table)

    def insert_into_sqlite(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Run one statement for many rows in one transaction, without SQLAlchemy.

        A result is published only after its commit. SQLAlchemy takes a millisecond for the transaction when
        its code is no longer in the processor's caches, as after each inference; this takes a third of that.

        Raises
        ------
        LogFault
        """
        with translate_database_errors(self.url), self._write_lock:
            if self._insert_connection is None:
                connection = self._write_engine.raw_connection()
                connection.detach()
                self._insert_connection = cast("sqlite3.Connection", connection.dbapi_connection)
            try:
                self._insert_connection.execute("BEGIN IMMEDIATE")
                self._insert_connection.executemany(statement, rows)
                self._insert_connection.execute("COMMIT")
            except BaseException:
                self._close_insert_connection()
                raise

    def _close_insert_connection(self) -> None:
        """Close the connection, which rolls back an open transaction."""
        connection, self._insert_connection = self._insert_connection, None
        if connection is not None:
            connection.close()

    def checkpoint(self) -> None:
        """Move committed pages into SQLite's database file, and flush it to the disk; delays no commit.

        Until then a power failure can lose commits; the end of the process cannot.

        Raises
        ------
        LogFault
            Also if the file was moved or deleted: later writes to it would be lost.
        """
        if self.is_sqlite:
            with translate_database_errors(self.url), self._raw() as cursor:
                if self._file_identity() != self._file:
                    raise FileNotFoundError("the file was moved or deleted while it was in use")
                cursor.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def shrink_file(self, pages: int) -> bool:
        """Return free pages of SQLite's file to the file system, and return whether more may be left.

        Does nothing in PostgreSQL, which reuses the space.
        """
        if not self.is_sqlite:
            return False
        with translate_database_errors(self.url), self._write_lock, self._raw() as cursor:
            before = int(cursor.execute("PRAGMA freelist_count").fetchone()[0])
            # It frees one page per row of its result, so all rows must be fetched.
            cursor.execute(f"PRAGMA incremental_vacuum({int(pages)})").fetchall()
            return 0 < int(cursor.execute("PRAGMA freelist_count").fetchone()[0]) < before

    def _file_identity(self) -> tuple[int, int] | None:
        if not self.is_sqlite:
            return None
        status = Path(str(self.url.database)).stat()
        return status.st_dev, status.st_ino

    def close_connections(self) -> None:
        """Close all idle connections; later use opens new ones."""
        with self._write_lock:
            self._close_insert_connection()
        self.engine.dispose()
        self._write_engine.dispose()

    @contextmanager
    def _raw(self) -> Iterator[sqlite3.Cursor]:
        """Provide a cursor of SQLite outside of any transaction."""
        connection = self._write_engine.raw_connection()
        try:
            yield connection.cursor()  # type: ignore[misc]
        finally:
            connection.close()


def _set_up_sqlite(connection: Any, _: object) -> None:
    # SQLAlchemy begins transactions explicitly; sqlite3 would begin them too late.
    connection.isolation_level = None
    cursor = connection.cursor()
    if cursor.execute("PRAGMA auto_vacuum").fetchone()[0] != _INCREMENTAL:
        # Takes effect only in an empty file; in others it would wait for the write lock.
        cursor.execute(f"PRAGMA auto_vacuum={_INCREMENTAL}")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute(f"PRAGMA wal_autocheckpoint={_AUTOCHECKPOINT_PAGES}")
    cursor.close()
