"""Deletion of the oldest results, by age or by the size of the log."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import sqlalchemy as sa

from senoscope.runlog.database import Database
from senoscope.runlog.tables import decisions, results, series

_MIB: Final = 1024 * 1024
_DAY_MS: Final = 24 * 3600 * 1000
# Rows and pages that one transaction frees: an append waits for one transaction at most.
_ROWS_PER_STEP: Final = 100
_PAGES_PER_STEP: Final = 200
# Bytes of a row in PostgreSQL besides the document and the grids: other columns, indexes, and its header.
_ROW_OVERHEAD: Final = 400
_SAMPLE_ROWS: Final = 200


def delete_old_results(
    database: Database, keep_days: float | None, keep_mib: float | None, pause: Callable[[], bool]
) -> int:
    """Delete the oldest results until the limits are met, and return their space to the file system.

    Parameters
    ----------
    keep_days, keep_mib : float or None
        Maximum age of results and size of the log.
    pause : callable
        Called between two short transactions, so that appends are not delayed; stops if it returns True.

    Returns
    -------
    int
        Number of deleted results.
    """
    oldest_ms = None if keep_days is None else int(time.time() * 1000 - keep_days * _DAY_MS)
    deleted = 0
    while (count := _delete_step(database, oldest_ms, keep_mib)) > 0:
        deleted += count
        if pause():
            return deleted
    if deleted:
        _delete_old_decisions(database)
    if oldest_ms is not None:
        _delete_old_series(database, oldest_ms)
    while database.shrink_file(_PAGES_PER_STEP):
        if pause():
            break
    return deleted


def last_logged_ms(database: Database) -> int | None:
    """Return the time of the last logged result, in milliseconds since 1970, or None without results."""
    with database.read() as connection:
        newest = sa.select(results.c.created_ms).order_by(results.c.seq.desc()).limit(1)
        return connection.execute(newest).scalar()


def used_bytes(database: Database) -> int:
    """Return the size of the log in bytes; an estimate where the database reports none.

    The size that PostgreSQL reports does not decrease when rows are deleted.
    """
    with database.read() as connection:
        reported = database.dialect.used_bytes(connection)
        if reported is not None:
            return reported
        newest = sa.select(results.c.seq).order_by(results.c.seq.desc()).limit(_SAMPLE_ROWS).scalar_subquery()
        length = sa.func.octet_length(results.c.document) + sa.func.octet_length(results.c.gradcam)
        mean = connection.execute(sa.select(sa.func.avg(length)).where(results.c.seq.in_(newest))).scalar()
        # Only the oldest rows are ever deleted, so the first and last seq give the number of rows.
        first, last = connection.execute(
            sa.select(sa.func.min(results.c.seq), sa.func.max(results.c.seq))
        ).one()
    return 0 if mean is None else int((last - first + 1) * (float(mean) + _ROW_OVERHEAD))


def _delete_step(database: Database, oldest_ms: int | None, keep_mib: float | None) -> int:
    oldest = sa.select(results.c.seq).order_by(results.c.seq).limit(_ROWS_PER_STEP)
    if keep_mib is None or used_bytes(database) <= keep_mib * _MIB:
        if oldest_ms is None:
            return 0
        oldest = (
            sa.select(results.c.seq)
            .where(results.c.created_ms < oldest_ms)
            .order_by(results.c.created_ms)
            .limit(_ROWS_PER_STEP)
        )
    with database.write() as connection:
        return connection.execute(
            sa.delete(results).where(results.c.seq.in_(oldest.scalar_subquery()))
        ).rowcount


def _delete_old_decisions(database: Database) -> None:
    """Delete the decisions on deleted results: those older than the oldest result left."""
    oldest_ms = sa.select(sa.func.min(results.c.created_ms)).scalar_subquery()
    with database.write() as connection:
        connection.execute(sa.delete(decisions).where(decisions.c.created_ms < oldest_ms))


def _delete_old_series(database: Database, oldest_ms: int) -> None:
    has_results = sa.exists().where(results.c.series_uid == series.c.uid)
    with database.write() as connection:
        connection.execute(sa.delete(series).where(series.c.updated_ms < oldest_ms, ~has_results))
