"""Connections to the run log's database, SQLite or PostgreSQL, for many readers and one writer at a time."""

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

from senoscope.runlog.faults import told_as_faults
from senoscope.runlog.places import checked_database_url
from senoscope.runlog.schema import prepare_schema
from senoscope_client.errors import LogUnavailable

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql

# How long SQLite waits for another program's lock.
_BUSY_S: Final = 0.5
# Moving pages from the write-ahead log into the database waits for the disk, so it is not done in the
# middle of a commit (`Database.checkpoint` does it), unless nobody did for this many pages.
_AUTOCHECKPOINT_PAGES: Final = 16384
# What a single read may take. Nothing that the service asks takes a hundredth of it in a sound database.
_READ_S: Final = 5.0
# Steps of SQLite's machine between two looks at the clock: some milliseconds.
_STEPS: Final = 100_000
# Connections for reads. The service reads from fewer threads (`senoscope.api.reading`) and its own.
_READERS: Final = 8
_INCREMENTAL: Final = 2  # of PRAGMA auto_vacuum
_POSTGRES_ARGUMENTS: Final = {
    "connect_timeout": 3,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # ms
}


class Database:
    """A database by its address; nothing is opened before the first use.

    Parameters
    ----------
    url : str
        ``sqlite:///PATH`` or ``postgresql://...``.
    read_s : float, optional
        What a single read may take.

    Raises
    ------
    ValueError
        If the address is not of that form.
    LogUnavailable
        If the driver for it is not installed.
    """

    def __init__(self, url: str, read_s: float = _READ_S) -> None:
        checked_database_url(url)
        try:
            self.url = sa.make_url(url)
        except ArgumentError as error:
            raise ValueError(f"the address of the run log cannot be read: {error}") from error
        self._read_s = read_s
        self._writing = threading.Lock()
        self._file: tuple[int, int] | None = None
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        # Pools of their own, so that any number of readers leaves the writer its connection.
        self.engine = self._engine("BEGIN", reading=True)
        # A writer that reads first and asks for the lock later may be refused it without waiting.
        self._write_engine = self._engine("BEGIN IMMEDIATE")
        self._inserting: sqlite3.Connection | None = None

    def _engine(self, begin_sqlite: str, reading: bool = False) -> sa.Engine:
        pool = {"pool_size": _READERS, "max_overflow": 0, "pool_timeout": self._read_s} if reading else {}
        if self.is_sqlite:
            engine = sa.create_engine(self.url, connect_args={"timeout": _BUSY_S}, **pool)
            sa.event.listen(engine, "connect", _set_up_sqlite)
            sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin_sqlite))
            return engine
        try:
            return sa.create_engine(
                self.url.set(drivername="postgresql+psycopg"),
                connect_args=_POSTGRES_ARGUMENTS | (self._limited() if reading else {}),
                pool_pre_ping=True,
                **pool,
            )
        except ImportError as error:
            raise LogUnavailable(
                'a run log in PostgreSQL needs `pip install "senoscope[service,postgres]"`'
            ) from error

    def _limited(self) -> dict[str, str]:
        """The connection's options, the user's own included, with a time limit for statements."""
        own = self.url.query.get("options", "")
        limit = f"-c statement_timeout={round(self._read_s * 1000)}"
        return {"options": f"{own if isinstance(own, str) else ' '.join(own)} {limit}".strip()}

    def prepare(self) -> None:
        """Make the database if there is none, bring it to this schema, and see that it can be written.

        Raises
        ------
        LogFault
        """
        with told_as_faults(self.url):
            if self.is_sqlite:
                Path(str(self.url.database)).parent.mkdir(parents=True, exist_ok=True)
            with self.write() as connection:
                prepare_schema(connection)
            self._file = self._file_now()

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that reads, within the time limit of reads.

        Raises
        ------
        LogFault
            Its state is ``slow`` if the time is up.
        """
        with (
            told_as_faults(self.url, reading=True),
            self.engine.connect() as connection,
            connection.begin(),
            self._time_limit(connection),
        ):
            yield connection

    @contextmanager
    def _time_limit(self, connection: sa.Connection) -> Iterator[None]:
        """Interrupt SQLite when the time is up; PostgreSQL does it by itself (`_limited`)."""
        raw = connection.connection.driver_connection
        if not isinstance(raw, sqlite3.Connection):
            yield
            return
        until_s = time.monotonic() + self._read_s
        raw.set_progress_handler(lambda: time.monotonic() > until_s, _STEPS)
        try:
            yield
        finally:
            raw.set_progress_handler(None, 0)

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that writes: committed at the end, rolled back on any error.

        Raises
        ------
        LogFault
        """
        # Threads of this process queue here, where they are woken at once; SQLite's own lock is polled.
        with (
            told_as_faults(self.url),
            self._writing,
            self._write_engine.connect() as connection,
            connection.begin(),
        ):
            yield connection

    def insert_statement(self, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
        """An insertion that may leave alone, or update, rows that are in the table already."""
        if self.is_sqlite:
            return sqlite.insert(table)
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table)

    def insert_into_sqlite(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Run one statement for many rows, in one transaction, past SQLAlchemy.

        A frame's result is told when it is committed. SQLAlchemy's way to the same transaction takes a
        millisecond when its code has gone from the processor's caches, as it has after each inference; this
        takes a third of that.

        Raises
        ------
        LogFault
        """
        with told_as_faults(self.url), self._writing:
            if self._inserting is None:
                connection = self._write_engine.raw_connection()
                connection.detach()
                self._inserting = cast("sqlite3.Connection", connection.dbapi_connection)
            try:
                self._inserting.execute("BEGIN IMMEDIATE")
                self._inserting.executemany(statement, rows)
                self._inserting.execute("COMMIT")
            except BaseException:
                self._close_inserting()
                raise

    def _close_inserting(self) -> None:
        """Close the connection, and with it whatever transaction is open on it."""
        connection, self._inserting = self._inserting, None
        if connection is not None:
            connection.close()

    def checkpoint(self) -> None:
        """Bring what was committed into SQLite's database file, and onto the disk; delays no commit.

        Until then a loss of power, unlike one of the process, can lose it.

        Raises
        ------
        LogFault
            Also if the file is no longer where it was opened: what is written to it then is lost.
        """
        if self.is_sqlite:
            with told_as_faults(self.url), self._raw() as cursor:
                if self._file_now() != self._file:
                    raise FileNotFoundError("the file was moved or deleted while it was in use")
                cursor.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def give_back(self, pages: int) -> bool:
        """Return free pages of SQLite's database file to the file system; whether there may be more.

        PostgreSQL uses the room again by itself.
        """
        if not self.is_sqlite:
            return False
        with told_as_faults(self.url), self._writing, self._raw() as cursor:
            before = int(cursor.execute("PRAGMA freelist_count").fetchone()[0])
            # It frees a page each time that it is stepped, so all its rows must be asked for.
            cursor.execute(f"PRAGMA incremental_vacuum({int(pages)})").fetchall()
            return 0 < int(cursor.execute("PRAGMA freelist_count").fetchone()[0]) < before

    def _file_now(self) -> tuple[int, int] | None:
        if not self.is_sqlite:
            return None
        status = Path(str(self.url.database)).stat()
        return status.st_dev, status.st_ino

    def release(self) -> None:
        """Close the connections that nobody uses; later use opens new ones."""
        with self._writing:
            self._close_inserting()
        self.engine.dispose()
        self._write_engine.dispose()

    @contextmanager
    def _raw(self) -> Iterator[sqlite3.Cursor]:
        """SQLite's own cursor, outside of any transaction."""
        connection = self._write_engine.raw_connection()
        try:
            yield connection.cursor()  # type: ignore[misc]
        finally:
            connection.close()


def _set_up_sqlite(connection: Any, _: object) -> None:
    # SQLAlchemy begins the transactions: sqlite3 itself would begin them too late.
    connection.isolation_level = None
    cursor = connection.cursor()
    if cursor.execute("PRAGMA auto_vacuum").fetchone()[0] != _INCREMENTAL:
        # Takes effect only in a file that is still empty; in others it would wait for the write lock.
        cursor.execute(f"PRAGMA auto_vacuum={_INCREMENTAL}")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute(f"PRAGMA wal_autocheckpoint={_AUTOCHECKPOINT_PAGES}")
    cursor.close()
