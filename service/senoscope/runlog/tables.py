"""The tables of the run log after the newest migration."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from senoscope.runlog.dialects import BIN_SQL, DIALECTS

BIN: Final[sa.ColumnElement[int]] = sa.literal_column(BIN_SQL, sa.Integer)
"""The bin of a result's probability; indexes contain exactly this expression."""

metadata: Final = sa.MetaData()

_Serial = sa.BigInteger().with_variant(sa.Integer, "sqlite")

models: Final = sa.Table(
    "models",
    metadata,
    sa.Column("digest", sa.String(64), primary_key=True),
    sa.Column("manifest", sa.Text, nullable=False),
)

# Times are whole milliseconds since the epoch, UTC, as in the ids (UUIDs of version 7) and the same in every
# database. `gradcam` contains the grids of all networks, concatenated, float32, little-endian; their shapes
# and order are in the manifest of the model.
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
    # Newest first; `seq` defines the order within a millisecond.
    sa.Index("results_by_time", "created_ms"),
    sa.Index("results_by_series", "series_uid", "created_ms"),
    # Each combination of kind, label and bin of the probability in order of time: see `paging`.
    sa.Index("results_by_facet", "kind", "label", BIN, "created_ms", "seq", "probability"),
    sa.Index(
        "results_by_series_and_facet",
        *("series_uid", "kind", "label", BIN, "created_ms", "seq", "probability"),
    ),
    # Each field of view of a watched file once, also after a crash and with several services.
    sa.Index(
        "results_once_per_file",
        *("series_uid", "frame"),
        unique=True,
        sqlite_where=sa.text("kind = 'file'"),
        postgresql_where=sa.text("kind = 'file'"),
    ),
    # A seq is never reused, so that cursors remain valid when old results are deleted.
    sqlite_autoincrement=True,
)

# Number of results of each series, kind, label and bin; those of all series are under the nil uid. Triggers
# update it (`dialects`), whichever program adds or deletes results.
result_counts: Final = sa.Table(
    "result_counts",
    metadata,
    sa.Column("series_uid", sa.Uuid, primary_key=True),
    sa.Column("kind", sa.String(16), primary_key=True),
    sa.Column("label", sa.Text, primary_key=True),
    sa.Column("bin", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("count", sa.BigInteger, nullable=False),
)
for _name, _dialect in DIALECTS.items():
    for _statement in _dialect.triggers:
        _trigger = sa.DDL(_statement)  # type: ignore[no-untyped-call]
        sa.event.listen(metadata, "after_create", _trigger.execute_if(dialect=_name))

series: Final = sa.Table(
    "series",
    metadata,
    sa.Column("uid", sa.Uuid, primary_key=True),
    sa.Column("snapshot", sa.Text, nullable=False),
    sa.Column("updated_ms", sa.BigInteger, nullable=False),
    sa.Index("series_by_time", "updated_ms"),
)

# No foreign key to the result, which may not be written yet, or already deleted.
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
