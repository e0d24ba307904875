"""Forgetting the oldest results, by age or by the size of the log."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import sqlalchemy as sa

from senoscope.runlog.database import Database
from senoscope.runlog.tables import decisions, results, series

_MIB: Final = 1024 * 1024
_DAY_MS: Final = 24 * 3600 * 1000
# Rows and pages that one transaction lets go of: what an append may have to wait for.
_CHUNK: Final = 100
_PAGES: Final = 200
# In PostgreSQL, beside the document and the grids: the other columns, the indexes, the row's header.
_ROW_OVERHEAD: Final = 400
_SAMPLE: Final = 200


def forget_old(
    database: Database, keep_days: float | None, keep_mib: float | None, pause: Callable[[], bool]
) -> int:
    """Delete the oldest results until the limits are kept, and give their room back to the file system.

    Parameters
    ----------
    keep_days, keep_mib : float or None
        How old a result, how large the log may become.
    pause : callable
        Called between two short transactions, so that appends get their turn; True: stop here.

    Returns
    -------
    int
        How many results were deleted.

    Raises
    ------
    LogFault
    """
    oldest_ms = None if keep_days is None else int(time.time() * 1000 - keep_days * _DAY_MS)
    deleted = 0
    while (count := _forget_some(database, oldest_ms, keep_mib)) > 0:
        deleted += count
        if pause():
            return deleted
    if deleted:
        _forget_decisions(database)
    if oldest_ms is not None:
        _forget_series(database, oldest_ms)
    while database.give_back(_PAGES):
        if pause():
            break
    return deleted


def last_logged_ms(database: Database) -> int | None:
    """When the result that was logged last was made, in milliseconds since 1970; None if there is none."""
    with database.read() as connection:
        newest = sa.select(results.c.created_ms).order_by(results.c.seq.desc()).limit(1)
        return connection.execute(newest).scalar()


def used_bytes(database: Database) -> int:
    """How much room the log takes: of SQLite the pages in use, of PostgreSQL an estimate.

    PostgreSQL's own figure does not sink when rows are deleted, because it keeps their room.
    """
    with database.read() as connection:
        if database.is_sqlite:
            pages, free, size = (
                connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
                for name in ("page_count", "freelist_count", "page_size")
            )
            return int((pages - free) * size)
        newest = sa.select(results.c.seq).order_by(results.c.seq.desc()).limit(_SAMPLE).scalar_subquery()
        length = sa.func.octet_length(results.c.document) + sa.func.octet_length(results.c.gradcam)
        mean = connection.execute(sa.select(sa.func.avg(length)).where(results.c.seq.in_(newest))).scalar()
        # Only the oldest are ever deleted, so there are as many as their numbers tell.
        first, last = connection.execute(
            sa.select(sa.func.min(results.c.seq), sa.func.max(results.c.seq))
        ).one()
    return 0 if mean is None else int((last - first + 1) * (float(mean) + _ROW_OVERHEAD))


def _forget_some(database: Database, oldest_ms: int | None, keep_mib: float | None) -> int:
    oldest = sa.select(results.c.seq).order_by(results.c.seq).limit(_CHUNK)
    if keep_mib is None or used_bytes(database) <= keep_mib * _MIB:
        if oldest_ms is None:
            return 0
        oldest = (
            sa.select(results.c.seq)
            .where(results.c.created_ms < oldest_ms)
            .order_by(results.c.created_ms)
            .limit(_CHUNK)
        )
    with database.write() as connection:
        return connection.execute(
            sa.delete(results).where(results.c.seq.in_(oldest.scalar_subquery()))
        ).rowcount


def _forget_decisions(database: Database) -> None:
    """Those on results that are forgotten, which are all that are older than the oldest result left."""
    oldest_ms = sa.select(sa.func.min(results.c.created_ms)).scalar_subquery()
    with database.write() as connection:
        connection.execute(sa.delete(decisions).where(decisions.c.created_ms < oldest_ms))


def _forget_series(database: Database, oldest_ms: int) -> None:
    has_results = sa.exists().where(results.c.series_uid == series.c.uid)
    with database.write() as connection:
        connection.execute(sa.delete(series).where(series.c.updated_ms < oldest_ms, ~has_results))
