"""Results as a pandas table."""

from __future__ import annotations

from datetime import UTC, datetime

from senoscope_client import to_dataframe
from senoscope_client.wire.messages import Position
from support.service_double import result


def test_a_row_per_result_typed_and_in_order():
    import pandas as pd  # takes a second, which collection need not

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


def test_no_results_are_an_empty_table_with_columns():
    table = to_dataframe([])
    assert len(table) == 0
    assert {"id", "label", "probability"} <= set(table.columns)
