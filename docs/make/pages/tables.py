"""The reference of the columns of result tables, generated from their definition."""

from __future__ import annotations

from senoscope_client.tables import result_columns

_HEAD = """# Tables of results

`GET /v1/results/export` (CSV and Parquet), `Accept: text/csv`, `--csv` and `senoscope_client.to_dataframe`
give the same columns with the same values, in this order. Each network has its own column, `p_` followed by
its name.

Times are UTC. Unknown values are empty in CSV and missing elsewhere. Lists are separated by blanks in CSV.
In text, line breaks and other control characters are replaced by U+FFFD, and an apostrophe is put before
text that a spreadsheet would read as a formula, in Parquet and pandas as well as in CSV. The JSON of
`/v1/results` has the exact text.

Generated from `senoscope_client.tables` by `python docs/make/reference.py`.

| column | holds | |
|---|---|---|
"""


def page() -> str:
    """Return the reference as Markdown."""
    rows = [
        f"| `{column.name}` | {column.kind} | {column.meaning} |\n"
        for column in result_columns(["<network>"])
    ]
    return _HEAD + "".join(rows)
