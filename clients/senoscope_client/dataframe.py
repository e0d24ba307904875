"""Results as a pandas table. Needs the extra ``pandas``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from senoscope_client.errors import SenoscopeError
from senoscope_client.models.result import Result
from senoscope_client.tables import Kind, networks_of, result_columns, result_row

if TYPE_CHECKING:
    import pandas as pd

_DTYPES: Final[dict[Kind, str]] = {
    "text": "object",
    "integer": "Int64",
    "number": "float64",
    "boolean": "boolean",
    "time": "datetime64[us, UTC]",
    "numbers": "object",
}


def to_dataframe(results: Iterable[Result]) -> pd.DataFrame:
    """One row per result, in their order, with the columns of the CSV and Parquet tables.

    Networks have a column each, named ``p_<network>``; times are UTC, and what is not known is missing.

    Parameters
    ----------
    results : iterable of Result
        Such as `Client.all_results` or a page's ``results``.

    Raises
    ------
    SenoscopeError
        If pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise SenoscopeError('a table of results needs `pip install "senoscope[pandas]"`') from error
    found = list(results)
    columns = result_columns(networks_of(found))
    rows: list[dict[str, Any]] = [dict(result_row(result, columns)) for result in found]
    return pd.DataFrame(
        {
            column.name: pd.Series([row[column.name] for row in rows], dtype=_DTYPES[column.kind])
            for column in columns
        }
    )
