"""The run log's tables, as the newest migration leaves them."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from senoscope.runlog.counting import BIN_SQL, COUNTING

BIN: Final[sa.ColumnElement[int]] = sa.literal_column(BIN_SQL, sa.Integer)
"""The bin of a result's probability; indexes hold it in exactly these words."""

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
    # Newest first; `seq` settles the order within a millisecond.
    sa.Index("results_by_time", "created_ms"),
    sa.Index("results_by_series", "series_uid", "created_ms"),
    # Each combination of kind, label and bin of the probability in its order of time: see `paging`.
    sa.Index("results_by_facet", "kind", "label", BIN, "created_ms", "seq", "probability"),
    sa.Index(
        "results_by_series_and_facet",
        *("series_uid", "kind", "label", BIN, "created_ms", "seq", "probability"),
    ),
    # A seq is never given twice, so a cursor stays true when old results are deleted.
    sqlite_autoincrement=True,
)

# How many results there are of each series, kind, label and bin; all results together are under the nil uid.
# Triggers keep it (`counting`), so that it is true whatever adds or deletes results.
result_counts: Final = sa.Table(
    "result_counts",
    metadata,
    sa.Column("series_uid", sa.Uuid, primary_key=True),
    sa.Column("kind", sa.String(16), primary_key=True),
    sa.Column("label", sa.Text, primary_key=True),
    sa.Column("bin", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("count", sa.BigInteger, nullable=False),
)
for _dialect, _statements in COUNTING.items():
    for _statement in _statements:
        _made = sa.DDL(_statement)  # type: ignore[no-untyped-call]
        sa.event.listen(metadata, "after_create", _made.execute_if(dialect=_dialect))

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
