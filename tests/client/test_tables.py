"""Tables of results: the same columns in every form, and safe cells."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime

import pandas as pd
import pytest

from senoscope_client import to_dataframe
from senoscope_client.tables import csv_lines, csv_rows, result_columns, results_csv, safe_text
from senoscope_client.wire.messages import Position
from support.service_double import result

HOSTILE = {
    "carriage return": "plate\r=cmd|calc!A0",
    "line feed": "a\n=1+1",
    "both": "a\r\n@SUM(A1)",
    "tab": "\t=1+1",
    "equals": "=1+1",
    "plus": "+1",
    "minus": "-2+3",
    "at": "@SUM(1)",
    "blank before": " =1+1",
    "no-break space before": "\u00a0=1+1",
    "byte order mark before": "\ufeff=1+1",
    "full width": "＝1+1",  # noqa: RUF001
    "quotation mark before": '"=1+1',
    "semicolon": "a;=1+1",
    "line separator": "a\u2028=1+1",
    "next line": "a\x85=1+1",
    "vertical tab": "a\x0b=1+1",
    "record separator": "a\x1e=1+1",
    "null": "a\x00b",
    "escape": "\x1b[2J=1",
    "bidi": "\u202e=1",
    "noncharacter": "a\ufffe",
    "comma and quotation mark": 'a","=1+1',
}
FORMULA = tuple("=+-@\t\r\n＝＋－＠")  # noqa: RUF001
TEXT = [column.name for column in result_columns([]) if column.kind == "text"]


def hostile_result(text: str):
    """Return a result whose every text is untrusted."""
    plain = result(kind="stream", series_id=text, instrument=text, file=text, frame=-1)
    model = plain.model.model_copy(update={"name": text, "version": text})
    flags = [plain.flags[0].model_copy(update={"code": text})]
    return plain.model_copy(
        update={"label": text, "model": model, "flags": flags, "networks": {text: 0.5}},
    )


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("delimiter", [",", ";"])
def test_untrusted_text_adds_no_rows_and_no_formulas(text: str, delimiter: str) -> None:
    made = results_csv([hostile_result(text)] * 3)
    assert len(made.splitlines()) == 4, "str.splitlines splits at every kind of line break"
    rows = list(csv.reader(io.StringIO(made, newline=""), delimiter=delimiter))
    assert len(rows) == 4
    if delimiter == ",":
        assert {len(row) for row in rows} == {len(result_columns([text]))}
    numbers = {"-1"}
    for row in rows:
        assert [cell for cell in row if cell.lstrip(" \"'\u00a0").startswith(FORMULA) and cell[0] != "'"] in (
            [],
            list(numbers),
        )


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_dataframe_written_as_csv_contains_no_formulas(text: str) -> None:
    table = to_dataframe([hostile_result(text)])
    made = table.to_csv(index=False)
    assert len(made.splitlines()) == 2
    for cell in next(iter(csv.DictReader(io.StringIO(made)))).values():
        assert cell == "-1" or not cell.lstrip().startswith(FORMULA)


@pytest.mark.parametrize("text", ["plate 1", "Jürkat, day 2", "a=b", "x-1", "細胞", 'the "good" one'])
def test_safe_text_is_unchanged(text: str) -> None:
    assert safe_text(text) == text
    assert next(csv.reader(csv_rows([[text, -1.5, None, True, [1.0, 2.5]]]))) == [
        *(text, "-1.5", "", "true", "1.0 2.5")
    ]


def test_csv_and_dataframe_have_the_same_columns_and_values() -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    place = Position(x=-1.25, y=2, z=3)
    results = [
        result(kind="stream", series_id="p", frame=3, position_um=place, acquired_at=at, file="a.tif"),
        result(),
    ]
    table = to_dataframe(results)
    rows = list(csv.DictReader(io.StringIO(results_csv(results))))
    names = [column.name for column in result_columns(list(results[0].networks))]
    assert list(table.columns) == list(rows[0]) == names
    assert {"created_at", "file", "range_low", "range_high", "mutual_information"} <= set(names)
    for n, row in enumerate(rows):
        for name, cell in row.items():
            value = table[name][n]
            if isinstance(value, list):
                assert [float(part) for part in cell.split()] == value
            elif pd.isna(value):
                assert cell == ""
            elif isinstance(value, pd.Timestamp):
                assert datetime.fromisoformat(cell) == value
            elif isinstance(value, float):
                assert float(cell) == value
            else:
                assert cell == str(value).replace("True", "true").replace("False", "false")


def test_a_network_with_the_name_of_a_column_has_a_column_of_its_own() -> None:
    one = result().model_copy(update={"networks": {"label": 0.25}})
    (row,) = csv.DictReader(io.StringIO(results_csv([one])))
    assert (row["label"], row["p_label"]) == (one.label, "0.25")


def test_csv_has_the_columns_of_the_requested_networks() -> None:
    heading, _ = csv_lines([result()], ["resnet50", "absent"])
    names = next(csv.reader([heading]))
    assert [name for name in names if name.startswith("p_")] == ["p_resnet50", "p_absent"]


def test_a_dataframe_has_a_typed_row_per_result_in_order() -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    stream = result(
        kind="stream", series_id="plate 1", frame=3, position_um=Position(x=1, y=2, z=3), acquired_at=at
    )
    table = to_dataframe([result(file="a.tif", frame=0), stream, result()])
    assert list(table["frame"][:2]) == [0, 3]
    assert pd.isna(table["frame"][2])
    assert table["frame"].dtype == "Int64"
    assert table["acquired_at"][1] == at
    assert pd.isna(table["acquired_at"][0])
    assert list(table.loc[1, ["x_um", "y_um", "z_um"]]) == [1, 2, 3]
    assert table["id"][1] == str(stream.id)
    assert (table["probability"].mean(), table["p_resnet50"].max()) == (0.75, 0.5)
    assert table["flags"][0] == "saturated:SRS"


def test_a_dataframe_of_no_results_has_all_columns() -> None:
    table = to_dataframe([])
    assert len(table) == 0
    assert {"id", "label", "probability"} <= set(table.columns)
