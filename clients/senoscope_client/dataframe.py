"""Results as a pandas table. Needs the extra ``pandas``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from senoscope_client.errors import SenoscopeError
from senoscope_client.result import Result
from senoscope_client.tables import flag_codes

if TYPE_CHECKING:
    import pandas as pd


def to_dataframe(results: Iterable[Result]) -> pd.DataFrame:
    """One row per result, in their order, with the columns of the CSV table.

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
    rows = [_row(result) for result in results]
    # The columns that every result has, also where there is none.
    table = pd.DataFrame(rows, columns=None if rows else _COLUMNS)
    table["acquired_at"] = pd.to_datetime(table["acquired_at"], utc=True)
    return table.astype({"frame": "Int64"})


_COLUMNS = [
    *("id", "kind", "file", "instrument", "series_id", "series_uid", "frame", "acquired_at"),
    *("x_um", "y_um", "z_um", "label", "probability", "entropy", "mutual_information", "agreement"),
    *("flags", "compute_ms", "total_ms", "deadline_met", "model", "model_version"),
]


def _row(result: Result) -> dict[str, Any]:
    source, place = result.source, result.source.position_um
    values = (
        *(str(result.id), source.kind, source.file, source.instrument, source.series_id),
        None if source.series_uid is None else str(source.series_uid),
        *(source.frame, source.acquired_at),
        *((place.x, place.y, place.z) if place else (None, None, None)),
        *(result.label, result.probability, result.uncertainty.entropy),
        *(result.uncertainty.mutual_information, result.uncertainty.agreement, flag_codes(result.flags)),
        *(result.timing_ms.compute, result.timing_ms.total, result.deadline_met),
        *(result.model.name, result.model.version),
    )
    networks = {f"p_{name}": probability for name, probability in result.networks.items()}
    return dict(zip(_COLUMNS, values, strict=True)) | networks
