"""Results as lines for people and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Final

from senoscope_client.result import Flag, Result, Source

LINE_HEADING: Final = f"{'source':<32} {'FOV':>6}  {'label':<10} {'probability':>11} {'ms':>8}  flags"


def result_line(result: Result) -> str:
    """One result under `LINE_HEADING`."""
    source = result.source
    frame = "" if source.frame is None else str(source.frame)
    return (
        f"{_origin(source)[:32]:<32} {frame:>6}  {result.label:<10} {result.probability:>11.3f} "
        f"{result.timing_ms.total:>8.1f}  {_flags(result.flags)}"
    ).rstrip()


def results_csv(results: Sequence[Result]) -> str:
    """Results as CSV with a heading; one column per network, in the first result's order."""
    networks = list(dict.fromkeys(name for result in results for name in result.networks))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    fixed = ["id", "file", "series_id", "frame", "label", "probability", "entropy", "agreement", "flags"]
    writer.writerow([*fixed, *networks, "compute_ms", "total_ms", "model", "model_version"])
    for result in results:
        source = result.source
        row: list[object] = [
            result.id,
            _inert(source.file),
            _inert(source.series_id),
            source.frame,
            result.label,
            f"{result.probability:.6f}",
            f"{result.uncertainty.entropy:.6f}",
            f"{result.uncertainty.agreement:.4f}",
            _flags(result.flags),
            *(f"{result.networks[name]:.6f}" if name in result.networks else "" for name in networks),
            f"{result.timing_ms.compute:.3f}",
            f"{result.timing_ms.total:.3f}",
            result.model.name,
            result.model.version,
        ]
        writer.writerow(row)
    return out.getvalue()


def _origin(source: Source) -> str:
    name = f"{source.instrument}/{source.series_id}" if source.kind == "stream" else source.file
    # Whoever names a series or a file has no business with the terminal's cursor and colours.
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name or source.kind)


def _flags(flags: Iterable[Flag]) -> str:
    return " ".join(f"{flag.code}:{flag.channel}" if flag.channel else flag.code for flag in flags)


def _inert(text: str | None) -> str | None:
    """Text that no spreadsheet takes for a formula (OWASP: CSV injection)."""
    return f"'{text}" if text and text[0] in "=+-@\t\r" else text
