"""Logged results as a table of any length, CSV or Parquet, made while it is sent."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeVar

from senoscope.runlog.entries import ResultFilter
from senoscope.runlog.store import RunLog
from senoscope_client.errors import InvalidRequest
from senoscope_client.result import Result
from senoscope_client.tables import csv_lines

ExportFormat = Literal["csv", "parquet"]
MEDIA_TYPES: Final[dict[ExportFormat, str]] = {
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
}
_T = TypeVar("_T")
_LINES: Final = 500
_ROW_GROUP: Final = 5000


def export(log: RunLog, wanted: ResultFilter, form: ExportFormat) -> Iterator[bytes]:
    """All results that match, newest first, in pieces.

    Raises
    ------
    InvalidRequest
        If Parquet is asked for where pyarrow is not installed.
    LogFault
    """
    networks = log.networks()
    if form == "parquet":
        yield from _parquet(log.iterate(wanted), networks)
        return
    lines = csv_lines(log.iterate(wanted), networks)
    for batch in _batched(lines, _LINES):
        yield "".join(batch).encode()


def _parquet(results: Iterable[Result], networks: tuple[str, ...]) -> Iterator[bytes]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise InvalidRequest(
            'Parquet needs `pip install "senoscope[parquet]"` where the service runs; format=csv does not'
        ) from error
    text, integer, number = pa.string(), pa.int64(), pa.float64()
    instant = pa.timestamp("us", tz="UTC")
    fields: dict[str, pa.DataType] = {
        "id": text,
        "created_at": pa.timestamp("ms", tz="UTC"),
        **dict.fromkeys(("kind", "instrument", "series_id", "series_uid", "file"), text),
        "frame": integer,
        "acquired_at": instant,
        **dict.fromkeys(("x_um", "y_um", "z_um"), number),
        "label": text,
        **dict.fromkeys(("probability", "entropy", "mutual_information", "agreement"), number),
        "flags": pa.list_(text),
        **dict.fromkeys(networks, pa.float32()),
        "range_source": text,
        **dict.fromkeys(("range_low", "range_high"), pa.list_(number)),
        **dict.fromkeys(("model", "model_version", "model_digest"), text),
        **dict.fromkeys(("queue_ms", "compute_ms", "total_ms"), number),
        "deadline_met": pa.bool_(),
    }
    schema = pa.schema(list(fields.items()))
    sink = _Sink()
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        for batch in _batched((_parquet_row(result, networks) for result in results), _ROW_GROUP):
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
            yield sink.take()
    yield sink.take()


def _parquet_row(result: Result, networks: tuple[str, ...]) -> dict[str, Any]:
    source, place = result.source, result.source.position_um
    return {
        "id": str(result.id),
        "created_at": datetime.fromtimestamp((result.id.int >> 80) / 1000, UTC),
        "kind": source.kind,
        "instrument": source.instrument,
        "series_id": source.series_id,
        "series_uid": None if source.series_uid is None else str(source.series_uid),
        "file": source.file,
        "frame": source.frame,
        "acquired_at": source.acquired_at,
        **({} if place is None else {"x_um": place.x, "y_um": place.y, "z_um": place.z}),
        "label": result.label,
        "probability": result.probability,
        "entropy": result.uncertainty.entropy,
        "mutual_information": result.uncertainty.mutual_information,
        "agreement": result.uncertainty.agreement,
        "flags": [f"{flag.code}:{flag.channel}" if flag.channel else flag.code for flag in result.flags],
        **{name: result.networks.get(name) for name in networks},
        "range_source": result.normalization.source,
        "range_low": result.normalization.low,
        "range_high": result.normalization.high,
        "model": result.model.name,
        "model_version": result.model.version,
        "model_digest": result.model.digest,
        "queue_ms": result.timing_ms.queue,
        "compute_ms": result.timing_ms.compute,
        "total_ms": result.timing_ms.total,
        "deadline_met": result.deadline_met,
    }


class _Sink(io.RawIOBase):
    """A file that keeps what was written to it only until it is taken."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._position = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def write(self, data: Any) -> int:
        part = bytes(data)
        self._parts.append(part)
        self._position += len(part)
        return len(part)

    def take(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


def _batched(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    source = iter(items)
    while batch := list(itertools.islice(source, size)):
        yield batch
