"""Indexes in order of time for every filter, and counts of results."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from senoscope.runlog.dialects import BIN_SQL, DIALECTS

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Create the indexes, the table and its triggers, and count the existing results."""
    op.drop_index("results_by_series", "results")
    op.drop_index("results_by_series_and_label", "results")
    facet = ("kind", "label", sa.text(BIN_SQL), "created_ms", "seq", "probability")
    op.create_index("results_by_series", "results", ["series_uid", "created_ms"])
    op.create_index("results_by_facet", "results", [*facet])
    op.create_index("results_by_series_and_facet", "results", ["series_uid", *facet])
    op.create_table(
        "result_counts",
        sa.Column("series_uid", sa.Uuid, primary_key=True),
        sa.Column("kind", sa.String(16), primary_key=True),
        sa.Column("label", sa.Text, primary_key=True),
        sa.Column("bin", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("count", sa.BigInteger, nullable=False),
    )
    dialect = DIALECTS[op.get_bind().dialect.name]
    for uid, condition in ((dialect.nil, "TRUE"), ("series_uid", "series_uid IS NOT NULL")):
        op.execute(
            "INSERT INTO result_counts (series_uid, kind, label, bin, count) "  # noqa: S608
            f"SELECT {uid}, kind, label, {BIN_SQL}, count(*) FROM results WHERE {condition} "
            f"GROUP BY {'' if uid == dialect.nil else 'series_uid, '}kind, label, {BIN_SQL}"
        )
    for statement in dialect.triggers:
        op.execute(statement)
