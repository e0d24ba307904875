"""Logged results as a CSV or Parquet table of any length, generated while it is sent."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Iterator
from typing import Any, Final, Literal, TypeVar

from senoscope.runlog.entries import ResultFilter
from senoscope.runlog.store import RunLog
from senoscope_client.errors import InvalidRequest
from senoscope_client.models.result import Result
from senoscope_client.tables import Kind, csv_lines, result_columns, result_row

ExportFormat = Literal["csv", "parquet"]
MEDIA_TYPES: Final[dict[ExportFormat, str]] = {
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
}
_T = TypeVar("_T")
_LINES_PER_CHUNK: Final = 500
_ROWS_PER_GROUP: Final = 5000


def export(log: RunLog, wanted: ResultFilter, form: ExportFormat) -> Iterator[bytes]:
    """Yield the table of all matching results, newest first, in chunks.

    Raises
    ------
    InvalidRequest
        If Parquet is requested and pyarrow is not installed.
    LogFault
    """
    networks = log.networks()
    if form == "parquet":
        yield from _parquet(log.iterate(wanted), networks)
        return
    lines = csv_lines(log.iterate(wanted), networks)
    for batch in _batched(lines, _LINES_PER_CHUNK):
        yield "".join(batch).encode()


def _parquet(results: Iterable[Result], networks: tuple[str, ...]) -> Iterator[bytes]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise InvalidRequest(
            'Parquet needs `pip install "senoscope[parquet]"` on the service host; format=csv does not'
        ) from error
    types: dict[Kind, pa.DataType] = {
        "text": pa.string(),
        "integer": pa.int64(),
        "number": pa.float64(),
        "boolean": pa.bool_(),
        "time": pa.timestamp("us", tz="UTC"),
        "numbers": pa.list_(pa.float64()),
    }
    columns = result_columns(networks)
    schema = pa.schema([(column.name, types[column.kind]) for column in columns])
    buffer = _ChunkBuffer()
    with pq.ParquetWriter(buffer, schema, compression="zstd") as writer:
        for batch in _batched((result_row(result, columns) for result in results), _ROWS_PER_GROUP):
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
            yield buffer.take()
    yield buffer.take()


class _ChunkBuffer(io.RawIOBase):
    """A writable file whose content is removed as it is read."""

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
