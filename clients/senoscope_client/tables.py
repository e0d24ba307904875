"""Tables of results: their columns, and their forms as text, CSV and pandas table.

Cells are safe in every program: a text stays in its cell and is not read as a formula. `to_dataframe` needs
the extra ``pandas``.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from senoscope_client.errors import SenoscopeError

if TYPE_CHECKING:
    import pandas as pd

    from senoscope_client.models.result import Flag, Result, Source

LINE_HEADING: Final = f"{'source':<32} {'FOV':>6}  {'label':<10} {'probability':>11} {'ms':>8}  flags"

Kind = Literal["text", "integer", "number", "boolean", "time", "numbers"]
Cell = str | int | float | bool | datetime | list[float] | None

_DTYPES: Final[dict[Kind, str]] = {
    "text": "object",
    "integer": "Int64",
    "number": "float64",
    "boolean": "boolean",
    "time": "datetime64[us, UTC]",
    "numbers": "object",
}
# Characters that begin a formula in spreadsheets (OWASP: CSV injection), full-width forms included.
_FORMULA: Final = "=+\\-@＝＋－＠"  # noqa: RUF001
# A formula can begin a cell, or follow a semicolon: where the comma is the decimal mark, spreadsheets split
# lines at semicolons. Blanks and quotation marks before it are skipped, as spreadsheets skip them.
_BEGINS_FORMULA: Final = re.compile(rf"(^|;)(?=[\s\"']*[{_FORMULA}])")
# Unicode categories: control characters, line and paragraph separators; format characters (such as those that
# change the direction of writing), lone surrogates and noncharacters.
_UNSAFE: Final = {"Cc", "Zl", "Zp", "Cf", "Cs", "Cn"}


class Column(NamedTuple):
    """One column of the tables.

    Attributes
    ----------
    name : str
    kind : {"text", "integer", "number", "boolean", "time", "numbers"}
        Times are UTC; ``numbers`` is a list, which CSV separates by blanks.
    meaning : str
        Description for the documentation.
    value : callable
        Returns the value for a result; None if it is not known.
    """

    name: str
    kind: Kind
    meaning: str
    value: Callable[[Result], Cell]


def _created_at(result: Result) -> datetime | None:
    if result.id.version != 7:  # the id was not assigned by a service, and contains no time
        return None
    return datetime.fromtimestamp((result.id.int >> 80) / 1000, UTC)


def _series_uid(result: Result) -> str | None:
    uid = result.source.series_uid
    return None if uid is None else str(uid)


NETWORK_PREFIX: Final = "p_"
"""Prefix of the columns that hold one network's probabilities; the network's name follows."""

_BEFORE_NETWORKS: Final = (
    Column("id", "text", "The result's id.", lambda r: str(r.id)),
    Column("created_at", "time", "When the service made the result.", _created_at),
    Column(
        "kind",
        "text",
        "`stream`, `upload` (posted) or `file` (read by the service).",
        lambda r: r.source.kind,
    ),
    Column("instrument", "text", "The instrument, as the stream names it.", lambda r: r.source.instrument),
    Column(
        "series_id", "text", "Name of the series; of a watched file, its path.", lambda r: r.source.series_id
    ),
    Column("series_uid", "text", "The unique id of the series.", _series_uid),
    Column("file", "text", "Name of the file that it was read from.", lambda r: r.source.file),
    Column("frame", "integer", "Number in the series or the stack.", lambda r: r.source.frame),
    Column("acquired_at", "time", "When the frame was acquired.", lambda r: r.source.acquired_at),
    Column("x_um", "number", "Stage position.", lambda r: getattr(r.source.position_um, "x", None)),
    Column("y_um", "number", "Stage position.", lambda r: getattr(r.source.position_um, "y", None)),
    Column("z_um", "number", "Stage position.", lambda r: getattr(r.source.position_um, "z", None)),
    Column("label", "text", "The class.", lambda r: r.label),
    Column("probability", "number", "Probability of senescence.", lambda r: r.probability),
    Column("entropy", "number", "Uncertainty, in bits.", lambda r: r.uncertainty.entropy),
    Column(
        "mutual_information",
        "number",
        "The part of the entropy that is caused by disagreement between the networks, in bits.",
        lambda r: r.uncertainty.mutual_information,
    ),
    Column("agreement", "number", "Share of networks with the label.", lambda r: r.uncertainty.agreement),
    Column("flags", "text", "Codes of all flags, separated by blanks.", lambda r: flag_codes(r.flags)),
)
_AFTER_NETWORKS: Final = (
    Column(
        "range_source",
        "text",
        "Origin of the intensity range: `model` or `session`.",
        lambda r: r.normalization.source,
    ),
    Column("range_low", "numbers", "Its lower end per channel, in counts.", lambda r: r.normalization.low),
    Column("range_high", "numbers", "Its upper end per channel.", lambda r: r.normalization.high),
    Column("model", "text", "Name of the ensemble.", lambda r: r.model.name),
    Column("model_version", "text", "Version of the ensemble.", lambda r: r.model.version),
    Column("model_digest", "text", "Digest of the ensemble.", lambda r: r.model.digest),
    Column(
        "precision",
        "text",
        "Precision in which it was computed, such as `fp32`.",
        lambda r: r.model.precision,
    ),
    Column("queue_ms", "number", "Time in the queue.", lambda r: r.timing_ms.queue),
    Column("compute_ms", "number", "Time in the engine.", lambda r: r.timing_ms.compute),
    Column("total_ms", "number", "Time from arrival to result.", lambda r: r.timing_ms.total),
    Column("deadline_met", "boolean", "Whether the total time met the deadline.", lambda r: r.deadline_met),
)


def result_columns(networks: Sequence[str]) -> tuple[Column, ...]:
    """Return all columns of a table of results in order, including one for each given network."""
    return (*_BEFORE_NETWORKS, *(_network_column(name) for name in networks), *_AFTER_NETWORKS)


def _network_column(name: str) -> Column:
    return Column(
        safe_text(NETWORK_PREFIX + name),
        "number",
        f"Probability of senescence by {name} alone.",
        lambda result: result.networks.get(name),
    )


def result_row(result: Result, columns: Sequence[Column]) -> dict[str, Cell]:
    """Return a result's values by column; text is escaped by `safe_text`.

    Parquet and pandas tables hold the same escaped text as CSV, so that CSV files written from them are safe,
    too. The original text is in the results themselves.
    """
    values = ((column.name, column.value(result)) for column in columns)
    return {name: safe_text(value) if isinstance(value, str) else value for name, value in values}


def networks_of(results: Iterable[Result]) -> list[str]:
    """Return the names of the networks of all results, in order of first occurrence."""
    return list(dict.fromkeys(name for result in results for name in result.networks))


def result_line(result: Result) -> str:
    """Format one result as a line under `LINE_HEADING`."""
    source = result.source
    frame = "" if source.frame is None else str(source.frame)
    return (
        f"{_origin(source)[:32]:<32} {frame:>6}  {result.label:<10} {result.probability:>11.3f} "
        f"{result.timing_ms.total:>8.1f}  {flag_words(result.flags)}"
    )


def results_csv(results: Sequence[Result]) -> str:
    """Format results as CSV with a heading and one column per network."""
    return "".join(csv_lines(results, networks_of(results)))


def csv_lines(results: Iterable[Result], networks: Sequence[str]) -> Iterator[str]:
    """Generate the lines of `results_csv`, for results that do not fit into memory.

    Parameters
    ----------
    results : iterable of Result
    networks : sequence of str
        Networks that have a column.
    """
    columns = result_columns(networks)
    yield from csv_rows([[column.name for column in columns]])
    yield from csv_rows([column.value(result) for column in columns] for result in results)


def to_dataframe(results: Iterable[Result]) -> pd.DataFrame:
    """Return a table with one row per result, in order, and the columns of the CSV and Parquet tables.

    Each network has a column named ``p_<network>``; times are UTC, and unknown values are missing.

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
    all_results = list(results)
    columns = result_columns(networks_of(all_results))
    rows: list[dict[str, Any]] = [dict(result_row(result, columns)) for result in all_results]
    return pd.DataFrame(
        {
            column.name: pd.Series([row[column.name] for row in rows], dtype=_DTYPES[column.kind])
            for column in columns
        }
    )


def flag_words(flags: Iterable[Flag]) -> str:
    """Format flags for display, such as ``saturated:SRS(4%)``: code, channel and share of the pixels."""
    return " ".join(
        flag_codes([flag]) + (f"({flag.value:.0%})" if flag.channel and flag.value is not None else "")
        for flag in flags
    )


def flag_codes(flags: Iterable[Flag]) -> str:
    """Format flags as one text, such as ``saturated:SRS``: code and channel of each."""
    return " ".join(f"{flag.code}:{flag.channel}" if flag.channel else flag.code for flag in flags)


def safe_text(text: str) -> str:
    """Escape text for a cell of a table.

    Control characters, line breaks and invisible characters are replaced by U+FFFD; text that a spreadsheet
    would read as a formula is prefixed with an apostrophe.
    """
    if not text.isprintable():
        text = "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in _UNSAFE else c for c in text)
    return _BEGINS_FORMULA.sub(r"\1'", text)


def csv_cell(value: object) -> object:
    """Convert a value for `csv.writer`: numbers are unchanged, everything else becomes safe text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return " ".join(str(csv_cell(part)) for part in value)
    return safe_text(str(value))


def csv_rows(rows: Iterable[Iterable[object]]) -> Iterator[str]:
    """Generate one line of CSV per row. All CSV tables of Senoscope are written by this function."""
    out = io.StringIO()
    # All text is quoted, so that programs that split lines at other characters than commas keep cells whole.
    writer = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    for row in rows:
        out.seek(0)
        out.truncate()
        writer.writerow([csv_cell(value) for value in row])
        yield out.getvalue()


def _origin(source: Source) -> str:
    name = f"{source.instrument}/{source.series_id}" if source.kind == "stream" else source.file
    # Names of series and files are untrusted: they must not move the cursor or change the terminal's colours.
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name or source.kind)
