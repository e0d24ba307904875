"""Tables of series, and of small values that persist across restarts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "series",
        sa.Column("uid", sa.Uuid, primary_key=True),
        sa.Column("snapshot", sa.Text, nullable=False),
        sa.Column("updated_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("series_by_time", "series", ["updated_ms"])
    op.create_table(
        "kept_values",
        sa.Column("key", sa.String(128), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
