"""Decisions in the run log: appending them, and asking for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from senoscope.runlog.database import Database
from senoscope.runlog.tables import decisions
from senoscope_client.models.decision import Decision

_INSERT: Final = str(
    sqlite.insert(decisions)
    .on_conflict_do_nothing(index_elements=["id"])
    .compile(dialect=sqlite.dialect(), column_keys=[c.name for c in decisions.c if c.name != "seq"])
)


def append(database: Database, made: Sequence[Decision]) -> None:
    """Add decisions, all or none of them; those that are in the log already are left alone."""
    if not made:
        return
    rows = [_row(decision) for decision in made]
    if database.is_sqlite:
        database.insert_into_sqlite(
            _INSERT,
            [tuple(v.hex if isinstance(v, UUID) else v for v in row.values()) for row in rows],
        )
        return
    with database.write() as connection:
        connection.execute(
            database.insert_statement(decisions).on_conflict_do_nothing(index_elements=["id"]),
            rows,
        )


def page(
    database: Database, series: UUID | None, limit: int, cursor: int | None
) -> tuple[tuple[Decision, ...], int | None]:
    """Decisions, newest first, older than the cursor; and the next page's cursor, None at the end."""
    query = sa.select(decisions.c.seq, decisions.c.document).order_by(decisions.c.seq.desc()).limit(limit + 1)
    if series is not None:
        query = query.where(decisions.c.series_uid == series)
    if cursor is not None:
        query = query.where(decisions.c.seq < cursor)
    with database.read() as connection:
        rows = connection.execute(query).all()
    found = tuple(Decision.model_validate_json(row.document) for row in rows[:limit])
    return found, rows[limit - 1].seq if len(rows) > limit else None


def of_series(database: Database, series: UUID) -> list[Decision]:
    """All decisions on a series, in the order in which they were made."""
    query = sa.select(decisions.c.document).where(decisions.c.series_uid == series).order_by(decisions.c.seq)
    with database.read() as connection:
        return [Decision.model_validate_json(text) for text in connection.execute(query).scalars()]


def _row(decision: Decision) -> dict[str, Any]:
    return {
        "id": decision.id,
        "series_uid": decision.series_uid,
        "created_ms": decision.id.int >> 80,
        "action": decision.action,
        "document": decision.model_dump_json(exclude_none=True),
    }
