"""Tables of results and of the models that computed them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "models",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("manifest", sa.Text, nullable=False),
    )
    op.create_table(
        "results",
        sa.Column(
            "seq",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("id", sa.Uuid, nullable=False, unique=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("series_uid", sa.Uuid),
        sa.Column("frame", sa.BigInteger),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("probability", sa.Double, nullable=False),
        sa.Column("model_digest", sa.String(64), sa.ForeignKey("models.digest"), nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("gradcam", sa.LargeBinary, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("results_by_series", "results", ["series_uid", "seq"])
    op.create_index("results_by_series_and_label", "results", ["series_uid", "label"])
    op.create_index("results_by_time", "results", ["created_ms"])
