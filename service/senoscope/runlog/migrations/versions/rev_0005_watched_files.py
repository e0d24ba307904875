"""At most one result for each field of view of a file in a watched folder."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Create the index; no result of an earlier version is of such a file."""
    op.create_index(
        "results_once_per_file",
        "results",
        ["series_uid", "frame"],
        unique=True,
        sqlite_where=sa.text("kind = 'file'"),
        postgresql_where=sa.text("kind = 'file'"),
    )
