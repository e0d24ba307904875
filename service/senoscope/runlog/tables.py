"""The run log's tables, as the newest migration leaves them."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

metadata: Final = sa.MetaData()

_Serial = sa.BigInteger().with_variant(sa.Integer, "sqlite")

models: Final = sa.Table(
    "models",
    metadata,
    sa.Column("digest", sa.String(64), primary_key=True),
    sa.Column("manifest", sa.Text, nullable=False),
)

# Times are whole milliseconds since the epoch, UTC: what the ids (UUIDs of version 7) hold, the same in
# every database. `gradcam` holds the networks' grids one after another, float32, little-endian; their
# shapes and order are in the model's manifest.
results: Final = sa.Table(
    "results",
    metadata,
    sa.Column("seq", _Serial, primary_key=True, autoincrement=True),
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
    sa.Index("results_by_series", "series_uid", "seq"),
    sa.Index("results_by_series_and_label", "series_uid", "label"),
    sa.Index("results_by_time", "created_ms"),
    # A seq is never given twice, so a cursor stays true when old results are deleted.
    sqlite_autoincrement=True,
)

series: Final = sa.Table(
    "series",
    metadata,
    sa.Column("uid", sa.Uuid, primary_key=True),
    sa.Column("snapshot", sa.Text, nullable=False),
    sa.Column("updated_ms", sa.BigInteger, nullable=False),
    sa.Index("series_by_time", "updated_ms"),
)

# No foreign key to the result, which may be waiting to be written, or be forgotten.
decisions: Final = sa.Table(
    "decisions",
    metadata,
    sa.Column("seq", _Serial, primary_key=True, autoincrement=True),
    sa.Column("id", sa.Uuid, nullable=False, unique=True),
    sa.Column("series_uid", sa.Uuid, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("action", sa.String(16), nullable=False),
    sa.Column("document", sa.Text, nullable=False),
    sa.Index("decisions_by_series", "series_uid", "seq"),
    sa.Index("decisions_by_time", "created_ms"),
    sqlite_autoincrement=True,
)

kept_values: Final = sa.Table(
    "kept_values",
    metadata,
    sa.Column("key", sa.String(128), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
