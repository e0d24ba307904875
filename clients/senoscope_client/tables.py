"""Results as lines for people and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from senoscope_client.result import Flag, Result, Source

LINE_HEADING: Final = f"{'source':<32} {'FOV':>6}  {'label':<10} {'probability':>11} {'ms':>8}  flags"

_BEFORE_NETWORKS: Final = (
    *("id", "file", "series_id", "frame", "label", "probability", "entropy", "agreement", "flags"),
)
_AFTER_NETWORKS: Final = (
    *("compute_ms", "total_ms", "model", "model_version"),
    *("kind", "instrument", "series_uid", "acquired_at", "x_um", "y_um", "z_um"),
)


def result_line(result: Result) -> str:
    """One result under `LINE_HEADING`."""
    source = result.source
    frame = "" if source.frame is None else str(source.frame)
    return (
        f"{_origin(source)[:32]:<32} {frame:>6}  {result.label:<10} {result.probability:>11.3f} "
        f"{result.timing_ms.total:>8.1f}  {flag_words(result.flags)}"
    ).rstrip()


def results_csv(results: Sequence[Result]) -> str:
    """Results as CSV with a heading; one column per network, in the first result's order."""
    networks = list(dict.fromkeys(name for result in results for name in result.networks))
    return "".join(csv_lines(results, networks))


def csv_lines(results: Iterable[Result], networks: Sequence[str]) -> Iterator[str]:
    """The same line by line, for results that are too many to hold; ``networks`` are the columns."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")

    def line(cells: Iterable[object]) -> str:
        out.seek(0)
        out.truncate()
        writer.writerow(cells)
        return out.getvalue()

    yield line([*_BEFORE_NETWORKS, *networks, *_AFTER_NETWORKS])
    for result in results:
        yield line(_cells(result, networks))


def _cells(result: Result, networks: Sequence[str]) -> Iterator[object]:
    source = result.source
    yield result.id
    yield _inert(source.file)
    yield _inert(source.series_id)
    yield source.frame
    yield result.label
    yield f"{result.probability:.6f}"
    yield f"{result.uncertainty.entropy:.6f}"
    yield f"{result.uncertainty.agreement:.4f}"
    yield flag_codes(result.flags)
    for name in networks:
        yield f"{result.networks[name]:.6f}" if name in result.networks else ""
    yield f"{result.timing_ms.compute:.3f}"
    yield f"{result.timing_ms.total:.3f}"
    yield result.model.name
    yield result.model.version
    yield source.kind
    yield _inert(source.instrument)
    yield source.series_uid
    yield source.acquired_at.isoformat() if source.acquired_at else ""
    place = source.position_um
    yield from (place.x, place.y, place.z) if place else ("", "", "")


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


def _inert(text: str | None) -> str | None:
    """Text that no spreadsheet takes for a formula (OWASP: CSV injection)."""
    return f"'{text}" if text and text[0] in "=+-@\t\r" else text
