"""Pages of results, newest first, in a time that does not grow with the size of the log.

A page without a filter, or of one series, is read from the end of an index ordered by time. Any other filter
is split into its matching facets: combinations of kind, label and a bin of the probability, each of which an
index holds in order of time. The newest results of these facets are merged. Results that do not match are
skipped only in the bins at the ends of a range of probabilities, and only within the index.
"""

from __future__ import annotations

import heapq
import math
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa

from senoscope.runlog.dialects import NIL
from senoscope.runlog.entries import ResultFilter
from senoscope.runlog.tables import BIN, result_counts, results

ALL: Final = UUID(NIL)
"""The uid under which the counts of all results are stored."""

_BINS: Final = 16
# A cursor is the time of the last result of a page, and the low bits of its `seq`, which define the order
# within that millisecond. It remains valid when that result is deleted, and fits into 63 bits for two more
# centuries.
_SEQ_BITS: Final = 20
_SEQ_MODULUS: Final = 1 << _SEQ_BITS


def cursor_of(created_ms: int, seq: int) -> int:
    """Return the cursor of the page that begins after a result."""
    return (created_ms << _SEQ_BITS) | (seq % _SEQ_MODULUS)


def newest(connection: sa.Connection, wanted: ResultFilter, limit: int, cursor: int | None) -> list[Any]:
    """Return rows of ``seq``, ``created_ms`` and ``document``, newest first, after the cursor."""
    finer = (wanted.kind, wanted.label, wanted.min_probability, wanted.max_probability)
    if all(value is None for value in finer):
        return list(connection.execute(ordered_query(wanted, limit, cursor)))
    queries = facet_queries(connection, wanted, limit, cursor)
    found = heapq.merge(
        *(((-row.created_ms, -row.seq) for row in connection.execute(query)) for query in queries)
    )
    seqs = [-seq for (_, seq), _ in zip(found, range(limit), strict=False)]
    query = sa.select(results.c.seq, results.c.created_ms, results.c.document).where(results.c.seq.in_(seqs))
    return list(connection.execute(_newest_first(query)))


def ordered_query(wanted: ResultFilter, limit: int, cursor: int | None) -> sa.Select[Any]:
    """Return the query of a page that one index holds in order."""
    query = sa.select(results.c.seq, results.c.created_ms, results.c.document)
    return _newest_first(query.where(*conditions(wanted), *_after_cursor(cursor))).limit(limit)


def facets_query(wanted: ResultFilter) -> sa.Select[Any]:
    """Return the query for the facets that a filter matches; may include some that it does not match."""
    c = result_counts.c
    query = sa.select(c.kind, c.label, c.bin).where(c.series_uid == (wanted.series or ALL))
    if wanted.kind is not None:
        query = query.where(c.kind == wanted.kind)
    if wanted.label is not None:
        query = query.where(c.label == wanted.label)
    # Wide enough whether bins are truncated or rounded.
    if wanted.min_probability is not None:
        query = query.where(c.bin >= math.floor(wanted.min_probability * _BINS))
    if wanted.max_probability is not None:
        query = query.where(c.bin <= math.ceil(wanted.max_probability * _BINS))
    return query


def facet_queries(
    connection: sa.Connection, wanted: ResultFilter, limit: int, cursor: int | None
) -> list[sa.Select[Any]]:
    """Return a query for the newest results of each matching facet."""
    c = results.c
    matching = [*conditions(wanted), *_after_cursor(cursor)]
    return [
        _newest_first(
            sa.select(c.seq, c.created_ms).where(
                c.kind == facet.kind, c.label == facet.label, facet.bin == BIN, *matching
            )
        ).limit(limit)
        for facet in connection.execute(facets_query(wanted)).all()
    ]


def _newest_first(query: sa.Select[Any]) -> sa.Select[Any]:
    return query.order_by(results.c.created_ms.desc(), results.c.seq.desc())


def conditions(wanted: ResultFilter) -> list[sa.ColumnElement[bool]]:
    """Return the SQL conditions of a filter."""
    c = results.c
    found = [
        column == value
        for column, value in ((c.series_uid, wanted.series), (c.kind, wanted.kind), (c.label, wanted.label))
        if value is not None
    ]
    if wanted.since is not None:
        found.append(c.created_ms >= math.ceil(wanted.since.timestamp() * 1000))
    if wanted.until is not None:
        found.append(c.created_ms < math.ceil(wanted.until.timestamp() * 1000))
    if wanted.min_probability is not None:
        found.append(c.probability >= wanted.min_probability)
    if wanted.max_probability is not None:
        found.append(c.probability <= wanted.max_probability)
    return found


def _after_cursor(cursor: int | None) -> list[sa.ColumnElement[bool]]:
    if cursor is None:
        return []
    c = results.c
    created_ms, low = divmod(cursor, _SEQ_MODULUS)
    # Distance to the cursor's result within its millisecond, modulo the range of the cursor.
    distance = ((low - c.seq) % _SEQ_MODULUS + _SEQ_MODULUS) % _SEQ_MODULUS
    return [
        c.created_ms <= created_ms,
        sa.or_(c.created_ms < created_ms, distance.between(1, _SEQ_MODULUS // 2)),
    ]
