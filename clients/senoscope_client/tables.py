"""Results as lines for people, and the columns of every table of results: CSV, Parquet and pandas."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from senoscope_client.csv_cells import csv_rows, safe_text

if TYPE_CHECKING:
    from senoscope_client.models.result import Flag, Result, Source

LINE_HEADING: Final = f"{'source':<32} {'FOV':>6}  {'label':<10} {'probability':>11} {'ms':>8}  flags"

Kind = Literal["text", "integer", "number", "boolean", "time", "numbers"]
Cell = str | int | float | bool | datetime | list[float] | None


class Column(NamedTuple):
    """One column of the tables.

    Attributes
    ----------
    name : str
    kind : {"text", "integer", "number", "boolean", "time", "numbers"}
        Times are UTC; ``numbers`` is a list, which CSV separates by blanks.
    meaning : str
        What it holds, for the documentation.
    value : callable
        Takes it from a result; None where it is not known.
    """

    name: str
    kind: Kind
    meaning: str
    value: Callable[[Result], Cell]


def _axis(axis: Literal["x", "y", "z"]) -> Callable[[Result], Cell]:
    def value(result: Result) -> Cell:
        place = result.source.position_um
        return None if place is None else float(getattr(place, axis))

    return value


def _created_at(result: Result) -> datetime | None:
    if result.id.version != 7:  # it was not made by a service, and holds no time
        return None
    return datetime.fromtimestamp((result.id.int >> 80) / 1000, UTC)


def _series_uid(result: Result) -> str | None:
    uid = result.source.series_uid
    return None if uid is None else str(uid)


NETWORK_PREFIX: Final = "p_"
"""What precedes a network's name in the name of its column."""

_BEFORE_NETWORKS: Final = (
    Column("id", "text", "The result's id.", lambda r: str(r.id)),
    Column("created_at", "time", "When the service made the result.", _created_at),
    Column("kind", "text", "Where the field of view came from.", lambda r: r.source.kind),
    Column("instrument", "text", "The instrument, as the stream names it.", lambda r: r.source.instrument),
    Column("series_id", "text", "The operator's name of the series.", lambda r: r.source.series_id),
    Column("series_uid", "text", "The series' own id.", _series_uid),
    Column("file", "text", "The source file of a posted or replayed stack.", lambda r: r.source.file),
    Column("frame", "integer", "Number in the series or the stack.", lambda r: r.source.frame),
    Column("acquired_at", "time", "When the frame was acquired.", lambda r: r.source.acquired_at),
    Column("x_um", "number", "Stage position.", _axis("x")),
    Column("y_um", "number", "Stage position.", _axis("y")),
    Column("z_um", "number", "Stage position.", _axis("z")),
    Column("label", "text", "The class.", lambda r: r.label),
    Column("probability", "number", "Of senescence.", lambda r: r.probability),
    Column("entropy", "number", "Uncertainty, in bits.", lambda r: r.uncertainty.entropy),
    Column(
        "mutual_information",
        "number",
        "The part of it that comes from disagreement of the networks.",
        lambda r: r.uncertainty.mutual_information,
    ),
    Column("agreement", "number", "Share of networks with the label.", lambda r: r.uncertainty.agreement),
    Column("flags", "text", "Codes of all flags, separated by blanks.", lambda r: flag_codes(r.flags)),
)
_AFTER_NETWORKS: Final = (
    Column("range_source", "text", "Who set the intensity range.", lambda r: r.normalization.source),
    Column("range_low", "numbers", "Its lower end per channel, in counts.", lambda r: r.normalization.low),
    Column("range_high", "numbers", "Its upper end per channel.", lambda r: r.normalization.high),
    Column("model", "text", "The ensemble.", lambda r: r.model.name),
    Column("model_version", "text", "Its version.", lambda r: r.model.version),
    Column("model_digest", "text", "Its digest.", lambda r: r.model.digest),
    Column("queue_ms", "number", "Time in the queue.", lambda r: r.timing_ms.queue),
    Column("compute_ms", "number", "Time in the engine.", lambda r: r.timing_ms.compute),
    Column("total_ms", "number", "Time from arrival to result.", lambda r: r.timing_ms.total),
    Column("deadline_met", "boolean", "Whether that kept the deadline.", lambda r: r.deadline_met),
)


def result_columns(networks: Sequence[str]) -> tuple[Column, ...]:
    """All columns of a table of results, in their order; one for each of these networks."""
    return (*_BEFORE_NETWORKS, *(_of_network(name) for name in networks), *_AFTER_NETWORKS)


def _of_network(name: str) -> Column:
    return Column(
        safe_text(NETWORK_PREFIX + name),
        "number",
        f"Probability of senescence by {name} alone.",
        lambda result: result.networks.get(name),
    )


def result_row(result: Result, columns: Sequence[Column]) -> dict[str, Cell]:
    """A result's values by column; text is safe in every program, see `safe_text`.

    Parquet and pandas hold the same text as CSV, so that a table that is made from them is as safe. The exact
    text is in the results themselves.
    """
    values = ((column.name, column.value(result)) for column in columns)
    return {name: safe_text(value) if isinstance(value, str) else value for name, value in values}


def networks_of(results: Iterable[Result]) -> list[str]:
    """The networks of all results, in the order in which they come."""
    return list(dict.fromkeys(name for result in results for name in result.networks))


def result_line(result: Result) -> str:
    """One result under `LINE_HEADING`."""
    source = result.source
    frame = "" if source.frame is None else str(source.frame)
    return (
        f"{_origin(source)[:32]:<32} {frame:>6}  {result.label:<10} {result.probability:>11.3f} "
        f"{result.timing_ms.total:>8.1f}  {flag_words(result.flags)}"
    ).rstrip()


def results_csv(results: Sequence[Result]) -> str:
    """Results as CSV with a heading; one column per network."""
    return "".join(csv_lines(results, networks_of(results)))


def csv_lines(results: Iterable[Result], networks: Sequence[str]) -> Iterator[str]:
    """The same line by line, for results that are too many to hold; ``networks`` are the columns."""
    columns = result_columns(networks)
    yield from csv_rows([[column.name for column in columns]])
    yield from csv_rows([column.value(result) for column in columns] for result in results)


def _origin(source: Source) -> str:
    name = f"{source.instrument}/{source.series_id}" if source.kind == "stream" else source.file
    # Whoever names a series or a file has no business with the terminal's cursor and colours.
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name or source.kind)


def flag_words(flags: Iterable[Flag]) -> str:
    """Flags for people, such as ``saturated:SRS(4%)``: code, channel, and how much of it."""
    return " ".join(
        flag_codes([flag]) + (f"({flag.value:.0%})" if flag.channel and flag.value is not None else "")
        for flag in flags
    )


def flag_codes(flags: Iterable[Flag]) -> str:
    """Flags as one text, such as ``saturated:SRS``: code and channel of each."""
    return " ".join(f"{flag.code}:{flag.channel}" if flag.channel else flag.code for flag in flags)
