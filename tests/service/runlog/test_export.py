"""Exported tables of any length, read back with csv and pyarrow."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

import pyarrow.parquet as pq
import pytest

from senoscope.engine.manifest import Manifest
from senoscope.runlog.entries import Entry, ResultFilter
from senoscope.runlog.export import export
from senoscope.runlog.store import RunLog
from support import miniature as mini
from support.run_logs import SERIES, entry

COUNT = 6001  # more than one row group


@pytest.fixture(scope="module")
def entries(manifest: Manifest) -> list[Entry]:
    position = {"x": 1.5, "y": -2.0, "z": 0.0}
    streamed = [entry(manifest, n, position_um=position) for n in range(COUNT - 1)]
    return [*streamed, entry(manifest, 7, kind="upload", series_uid=None, file="=cmd.tif", probability=0.9)]


@pytest.fixture(scope="module")
def filled(url_of_module: str, entries: list[Entry]) -> Iterator[RunLog]:
    log = RunLog(url_of_module)
    log.prepare()
    log.append(entries)
    yield log
    log.close()


def test_csv(filled: RunLog) -> None:
    pieces = list(export(filled, ResultFilter(), "csv"))
    assert len(pieces) > 1
    rows = list(csv.DictReader(io.StringIO(b"".join(pieces).decode())))
    assert len(rows) == COUNT
    assert [rows[0][key] for key in ("file", "label", "kind", "x_um")] == [
        "'=cmd.tif",
        "senescent",
        "upload",
        "",
    ]
    oldest = rows[-1]
    assert oldest["series_uid"] == str(SERIES)
    assert [float(oldest[key]) for key in ("frame", "x_um", "y_um", "p_resnet50")] == [0, 1.5, -2, 0.25]


def test_parquet(filled: RunLog) -> None:
    pieces = list(export(filled, ResultFilter(), "parquet"))
    assert len(pieces) > 2
    file = pq.ParquetFile(io.BytesIO(b"".join(pieces)))
    assert file.num_row_groups == 2
    rows = file.read().to_pylist()
    assert len(rows) == COUNT
    newest, oldest = rows[0], rows[-1]
    original = next(filled.iterate(ResultFilter()))
    assert (newest["id"], newest["file"], newest["series_uid"]) == (str(original.id), "'=cmd.tif", None)
    assert newest["created_at"].timestamp() * 1000 == pytest.approx(original.id.int >> 80)
    assert oldest["flags"] == "saturated:SRS"
    assert oldest["range_high"] == [3, 4, 5]
    assert all(oldest[f"p_{name}"] == 0.25 for name in mini.NAMES)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_no_matching_result_gives_a_table_without_rows(log: RunLog, form: str) -> None:
    data = b"".join(export(log, ResultFilter(label="none such"), form))
    if form == "csv":
        assert data.decode().count("\n") == 1
    else:
        assert pq.read_table(io.BytesIO(data)).num_rows == 0


def test_csv_and_parquet_have_the_same_columns_and_text(filled: RunLog) -> None:
    text = b"".join(export(filled, ResultFilter(kind="upload"), "csv")).decode()
    table = pq.read_table(io.BytesIO(b"".join(export(filled, ResultFilter(kind="upload"), "parquet"))))
    rows = csv.reader(io.StringIO(text))
    assert next(rows) == table.column_names
    cells = dict(zip(table.column_names, next(rows), strict=True))
    for name, value in table.to_pylist()[0].items():
        if isinstance(value, str):
            assert cells[name] == value
    assert table.to_pandas().to_csv().splitlines()[1].count("'=cmd.tif") == 1


def test_line_breaks_in_names_do_not_break_rows(log: RunLog, manifest: Manifest) -> None:
    log.append([entry(manifest, 0, series_id="plate\r=cmd|calc!A0", instrument="a\n=1+1")])
    text = b"".join(export(log, ResultFilter(), "csv")).decode()
    assert len(text.splitlines()) == 2
    parquet = pq.read_table(io.BytesIO(b"".join(export(log, ResultFilter(), "parquet"))))
    assert len(parquet.to_pandas().to_csv().splitlines()) == 2
