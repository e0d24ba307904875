"""The databases that can hold a run log: everything in which SQLite and PostgreSQL differ.

Another database is a subclass of `Dialect` and its row in `DIALECTS`. SQLAlchemy is imported on first use,
because the settings, which are read first, need the URLs.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Protocol, cast
from uuid import UUID

from senoscope_client.errors import LogUnavailable

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy.dialects import postgresql, sqlite


class LockSession(Protocol):
    """A connection that holds a lock."""

    def close(self) -> None:
        """Close the connection, which releases the lock."""


LogState = Literal["corrupt", "locked", "read_only", "full", "unreachable", "newer_schema", "slow"]

BIN_SQL: Final = "CAST(probability * 16 AS INTEGER)"
"""The bin of a probability. SQLite truncates, PostgreSQL rounds; both give 0 to 16, rising with it."""

NIL: Final = "00000000-0000-0000-0000-000000000000"
"""The uid of the series under which the results of all series are counted."""

_KEY: Final = "series_uid, kind, label, bin"
_COUNT_ONE: Final = (
    f"INSERT INTO result_counts ({_KEY}, count) SELECT {{uid}}, new.kind, new.label, "
    "CAST(new.probability * 16 AS INTEGER), 1 WHERE {uid} IS NOT NULL "
    f"ON CONFLICT ({_KEY}) DO UPDATE SET count = result_counts.count + 1;"
)
_MATCHES_OLD: Final = (
    "series_uid IN ({nil}, old.series_uid) AND kind = old.kind AND label = old.label "
    "AND bin = CAST(old.probability * 16 AS INTEGER)"
)
_DISCOUNT_ONE: Final = (
    f"UPDATE result_counts SET count = count - 1 WHERE {_MATCHES_OLD}; "  # noqa: S608
    f"DELETE FROM result_counts WHERE {_MATCHES_OLD} AND count <= 0;"
)


def _added(nil: str) -> str:
    """Return the statements that count an added result."""
    return f"{_COUNT_ONE.format(uid=nil)} {_COUNT_ONE.format(uid='new.series_uid')}"


class Dialect(ABC):
    """One kind of database, for the database at a URL."""

    name: ClassVar[str]  # as SQLAlchemy has it
    schemes: ClassVar[tuple[str, ...]]  # beginnings of its URLs
    example: ClassVar[str]  # a URL
    nil: ClassVar[str]  # the UUID `NIL` in SQL
    # Statements that create the triggers which count results, so that counting needs no scan. Changing one
    # needs a migration.
    triggers: ClassVar[tuple[str, ...]]
    # Errors that its driver raises where SQLAlchemy does not wrap them.
    driver_errors: ClassVar[tuple[type[Exception], ...]] = ()

    def __init__(self, url: sa.URL, read_s: float) -> None:
        self.url = url
        self.read_s = read_s

    @property
    def file(self) -> Path | None:
        """The file of the database, or None if it is on a server."""
        return None

    @property
    def location(self) -> str:
        """The file, or the URL without its password."""
        if self.file is not None:
            return str(self.url.database)
        return self.url.render_as_string(hide_password=True)

    @abstractmethod
    def create_engine(self, pool: Mapping[str, Any], *, reading: bool) -> sa.Engine:
        """Return an engine for reads, or for writes.

        Raises
        ------
        LogUnavailable
            If the driver is not installed.
        """

    @classmethod
    def insert_statement(cls, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
        """Return an insert statement that can skip or update existing rows."""
        statement: sqlite.Insert = import_module(f"sqlalchemy.dialects.{cls.name}").insert(table)
        return statement

    @abstractmethod
    def state_of(self, error: BaseException, *, reading: bool) -> LogState:
        """Return the state of the log that an error of the driver means."""

    @staticmethod  # noqa: B027 - optional
    def lock_schema(connection: sa.Connection) -> None:
        """Wait for other services that migrate the database; locks until the end of the transaction."""

    @abstractmethod
    def try_lock(self, engine: sa.Engine, number: int, held: LockSession | None) -> LockSession | None:
        """Return a session that holds a lock until it is closed, or None if another process holds the lock.

        Parameters
        ----------
        number : int
            The lock, a 32-bit number.
        held : LockSession or None
            What the last call returned.
        """

    @contextmanager
    def time_limit(self, _: sa.Connection) -> Iterator[None]:
        """Interrupt a read of the block after the time limit, if the database does not do it itself."""
        yield

    def insert_rows(self, engine: sa.Engine, table: sa.Table, rows: Sequence[dict[str, Any]]) -> None:
        """Insert rows in one transaction; those that exist are skipped."""
        statement = self.insert_statement(table).on_conflict_do_nothing()
        with engine.begin() as connection:
            connection.execute(statement, rows)

    def used_bytes(self, _: sa.Connection) -> int | None:
        """Return the size of the rows in the database, or None if it does not report it."""
        return None

    def remember_file(self) -> None:  # noqa: B027 - optional
        """Note which file is in use, to notice later that it was moved."""

    def checkpoint(self, engine: sa.Engine) -> None:  # noqa: B027 - optional
        """Flush commits to the disk that a power failure could lose; delays no commit."""

    def shrink_file(self, engine: sa.Engine, pages: int) -> bool:
        """Return free pages to the file system, and return whether more may be left."""
        del engine, pages
        return False

    def close(self) -> None:  # noqa: B027 - optional
        """Close the connections that are not in an engine's pool."""


# Time limit for another program's lock on the SQLite file.
_LOCK_TIMEOUT_S: Final = 0.5
# Moving pages from the write-ahead log into the database waits for the disk. `checkpoint` does it outside of
# commits; a commit does it only when the write-ahead log has this many pages.
_AUTOCHECKPOINT_PAGES: Final = 16384
# Instructions of SQLite's virtual machine between two checks of the time limit: some milliseconds.
_STEPS_PER_CHECK: Final = 100_000
_INCREMENTAL: Final = 2  # value of PRAGMA auto_vacuum
_FULL_BELOW_BYTES: Final = 1024 * 1024
# SQLite's primary result codes, https://www.sqlite.org/rescode.html
_SQLITE_STATES: Final[dict[int, LogState]] = {
    sqlite3.SQLITE_CORRUPT: "corrupt",
    sqlite3.SQLITE_NOTADB: "corrupt",
    sqlite3.SQLITE_BUSY: "locked",
    sqlite3.SQLITE_LOCKED: "locked",
    sqlite3.SQLITE_READONLY: "read_only",
    sqlite3.SQLITE_PERM: "read_only",
    sqlite3.SQLITE_FULL: "full",
    sqlite3.SQLITE_INTERRUPT: "slow",
}


class SqliteDialect(Dialect):
    """A file, written by one transaction at a time."""

    name = "sqlite"
    schemes = ("sqlite:///",)
    example = "sqlite:////data/runlog.sqlite3"
    nil = f"'{NIL.replace('-', '')}'"
    triggers = (
        f"CREATE TRIGGER result_added AFTER INSERT ON results BEGIN {_added(nil)} END",
        f"CREATE TRIGGER result_deleted AFTER DELETE ON results BEGIN {_DISCOUNT_ONE.format(nil=nil)} END",
    )
    driver_errors = (sqlite3.Error,)

    def __init__(self, url: sa.URL, read_s: float) -> None:
        super().__init__(url, read_s)
        self._identity: tuple[int, int] | None = None
        self._inserting: sqlite3.Connection | None = None

    @property
    def file(self) -> Path:
        """The file of the database."""
        return Path(str(self.url.database))

    def create_engine(self, pool: Mapping[str, Any], *, reading: bool) -> sa.Engine:
        """Return an engine for reads, or for writes."""
        import sqlalchemy as sa

        # IMMEDIATE: a transaction that reads before it requests the write lock may fail without waiting.
        begin = "BEGIN" if reading else "BEGIN IMMEDIATE"
        engine = sa.create_engine(self.url, connect_args={"timeout": _LOCK_TIMEOUT_S}, **pool)
        sa.event.listen(engine, "connect", _set_up_sqlite)
        sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
        return engine

    def state_of(self, error: BaseException, *, reading: bool) -> LogState:
        """Return the state of the log that an error of the driver means."""
        del reading
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        # SQLite reports no reason if it cannot create or extend a file next to the database (-wal, -shm).
        if code == sqlite3.SQLITE_IOERR and _disk_is_full(self.file):
            return "full"
        if (
            code == sqlite3.SQLITE_CANTOPEN
            and self.file.exists()
            and not os.access(self.file.parent, os.W_OK)
        ):
            return "read_only"
        return _SQLITE_STATES.get(code, "unreachable")

    def try_lock(self, engine: sa.Engine, number: int, held: LockSession | None) -> LockSession | None:
        """Return a session that holds the lock of a file of its own next to the database, or None."""
        del engine
        if held is not None:
            return held
        path = f"{self.file}.lock-{number:08x}"
        session = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            session.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            session.close()
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
            return None
        return session

    @contextmanager
    def time_limit(self, connection: sa.Connection) -> Iterator[None]:
        """Interrupt a read of the block after the time limit."""
        raw = cast("sqlite3.Connection", connection.connection.driver_connection)
        until_s = time.monotonic() + self.read_s
        raw.set_progress_handler(lambda: time.monotonic() > until_s, _STEPS_PER_CHECK)
        try:
            yield
        finally:
            raw.set_progress_handler(None, 0)

    def insert_rows(self, engine: sa.Engine, table: sa.Table, rows: Sequence[dict[str, Any]]) -> None:
        """Insert rows in one transaction, without SQLAlchemy; those that exist are skipped.

        A result is published only after its commit. SQLAlchemy takes a millisecond for the transaction when
        its code is no longer in the processor's caches, as after each inference; this takes a third of that.
        The rows have the order of the table's columns.
        """
        statement = _insert_into_sqlite(table)
        # As SQLAlchemy writes them: UUIDs in hexadecimal.
        values = [tuple(v.hex if isinstance(v, UUID) else v for v in row.values()) for row in rows]
        if self._inserting is None:
            connection = engine.raw_connection()
            connection.detach()
            self._inserting = cast("sqlite3.Connection", connection.dbapi_connection)
        try:
            self._inserting.execute("BEGIN IMMEDIATE")
            self._inserting.executemany(statement, values)
            self._inserting.execute("COMMIT")
        except BaseException:
            self.close()
            raise

    def used_bytes(self, connection: sa.Connection) -> int:
        """Return the size of the pages in use."""
        pages, free, size = (
            connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    def remember_file(self) -> None:
        """Note which file is in use, to notice later that it was moved."""
        self._identity = self._file_identity()

    def checkpoint(self, engine: sa.Engine) -> None:
        """Move committed pages into the database file, and flush it to the disk.

        Raises
        ------
        OSError
            If the file was moved or deleted: later writes to it would be lost.
        """
        with _raw_cursor(engine) as cursor:
            if self._file_identity() != self._identity:
                raise FileNotFoundError("the file was moved or deleted while it was in use")
            cursor.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def shrink_file(self, engine: sa.Engine, pages: int) -> bool:
        """Return free pages to the file system, and return whether more may be left."""
        with _raw_cursor(engine) as cursor:
            before = int(cursor.execute("PRAGMA freelist_count").fetchone()[0])
            # It frees one page per row of its result, so all rows must be fetched.
            cursor.execute(f"PRAGMA incremental_vacuum({int(pages)})").fetchall()
            return 0 < int(cursor.execute("PRAGMA freelist_count").fetchone()[0]) < before

    def close(self) -> None:
        """Close the connection of `insert_rows`, which rolls back an open transaction."""
        connection, self._inserting = self._inserting, None
        if connection is not None:
            connection.close()

    def _file_identity(self) -> tuple[int, int]:
        status = self.file.stat()
        return status.st_dev, status.st_ino


@cache
def _insert_into_sqlite(table: sa.Table) -> str:
    """Return the SQL that inserts rows without their ``seq``, and skips those that exist."""
    from sqlalchemy.dialects import sqlite

    columns = [column.name for column in table.c if column.name != "seq"]
    insert = sqlite.insert(table).on_conflict_do_nothing()
    return str(insert.compile(dialect=sqlite.dialect(), column_keys=columns))


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


@contextmanager
def _raw_cursor(engine: sa.Engine) -> Iterator[sqlite3.Cursor]:
    """Provide a cursor of SQLite outside of any transaction."""
    connection = engine.raw_connection()
    try:
        yield connection.cursor()  # type: ignore[misc]
    finally:
        connection.close()


def _disk_is_full(path: Path) -> bool:
    try:
        return shutil.disk_usage(path.parent).free < _FULL_BELOW_BYTES
    except OSError:
        return False


_POSTGRES_ARGUMENTS: Final = {
    "connect_timeout": 3,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # ms
}
# SQLSTATE codes, https://www.postgresql.org/docs/current/errcodes-appendix.html
_POSTGRES_STATES: Final[dict[str, LogState]] = {
    "XX001": "corrupt",
    "XX002": "corrupt",
    "55P03": "locked",
    "57014": "locked",
    "40P01": "locked",
    "25006": "read_only",
    "42501": "read_only",
    "53100": "full",
}
_CANCELED: Final = "57014"
# An arbitrary number, the same in every service that opens the database.
_ADVISORY_LOCK: Final = 0x5E05C09E


class PostgresDialect(Dialect):
    """A database of a PostgreSQL server, which reuses the space of deleted rows and never shrinks."""

    name = "postgresql"
    schemes = ("postgresql://", "postgresql+psycopg://")
    example = "postgresql://user:password@host/database"
    nil = f"CAST('{NIL}' AS uuid)"
    triggers = (
        "CREATE FUNCTION senoscope_result_added() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN {_added(nil)} RETURN NULL; END $$",
        "CREATE FUNCTION senoscope_result_deleted() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN {_DISCOUNT_ONE.format(nil=nil)} RETURN NULL; END $$",
        "CREATE TRIGGER result_added AFTER INSERT ON results FOR EACH ROW "
        "EXECUTE FUNCTION senoscope_result_added()",
        "CREATE TRIGGER result_deleted AFTER DELETE ON results FOR EACH ROW "
        "EXECUTE FUNCTION senoscope_result_deleted()",
    )

    def create_engine(self, pool: Mapping[str, Any], *, reading: bool) -> sa.Engine:
        """Return an engine for reads, with the time limit of statements, or for writes."""
        import sqlalchemy as sa

        arguments: dict[str, Any] = dict(_POSTGRES_ARGUMENTS)
        if reading:
            own = self.url.query.get("options", "")
            limit = f"-c statement_timeout={round(self.read_s * 1000)}"
            arguments["options"] = f"{own if isinstance(own, str) else ' '.join(own)} {limit}".strip()
        try:
            return sa.create_engine(
                self.url.set(drivername="postgresql+psycopg"),
                connect_args=arguments,
                pool_pre_ping=True,
                **pool,
            )
        except ImportError as error:
            raise LogUnavailable(
                'a run log in PostgreSQL needs `pip install "senoscope[service,postgres]"`'
            ) from error

    def state_of(self, error: BaseException, *, reading: bool) -> LogState:
        """Return the state of the log that an error of the driver means."""
        code = getattr(error, "sqlstate", None) or ""
        if reading and code == _CANCELED:  # by the time limit of reads
            return "slow"
        return _POSTGRES_STATES.get(code, "unreachable")

    @staticmethod
    def lock_schema(connection: sa.Connection) -> None:
        """Wait for other services that migrate the database; locks until the end of the transaction."""
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")

    def try_lock(self, engine: sa.Engine, number: int, held: LockSession | None) -> LockSession | None:
        """Return a session that holds the server's advisory lock, or None."""
        import sqlalchemy as sa

        session = cast("sa.Connection | None", held)
        if session is None:
            session = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            session.detach()
        try:  # a session that has the lock gets it again; one that was interrupted has lost it
            if session.execute(sa.select(sa.func.pg_try_advisory_lock(number))).scalar():
                return session
        except sa.exc.SQLAlchemyError:
            session.close()
            raise
        session.close()
        return None


DIALECTS: Final[dict[str, type[Dialect]]] = {
    dialect.name: dialect for dialect in (SqliteDialect, PostgresDialect)
}
"""All dialects by name."""
