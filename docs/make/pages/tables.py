"""The columns of result tables."""

from __future__ import annotations

from senoscope_client.tables import result_columns

_HEAD = """# Tables of results

`GET /v1/results/export` (CSV and Parquet), `Accept: text/csv`, `--csv` and `senoscope_client.to_dataframe`
have the same columns with the same values, in this order. Each network has a column of its own, `p_` and
its name.

Times are UTC. What is not known is empty in CSV and missing elsewhere; lists are separated by blanks in CSV.
Text holds no line breaks or other control characters (they become U+FFFD), and an apostrophe precedes what a
spreadsheet would take for a formula, in Parquet and pandas as well as in CSV; the JSON of `/v1/results` has
the exact text.

Made from `senoscope_client.tables` by `python docs/make/reference.py`.

| column | holds | |
|---|---|---|
"""


def page() -> str:
    """The reference as Markdown."""
    rows = [
        f"| `{column.name}` | {column.kind} | {column.meaning} |\n"
        for column in result_columns(["<network>"])
    ]
    return _HEAD + "".join(rows)
