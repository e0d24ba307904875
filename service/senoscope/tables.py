"""Results as tables, for spreadsheets and for terminals."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from senoscope_client.result import Result


def results_csv(results: Sequence[Result]) -> str:
    """Results as CSV with a header line; one column per network."""
    out = io.StringIO()
    networks = list(results[0].networks) if results else []
    fixed = ["id", "file", "series_id", "frame", "label", "probability", "entropy", "agreement", "flags"]
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*fixed, *networks, "compute_ms", "total_ms", "model", "model_version"])
    for r in results:
        row: list[Any] = [
            r.id,
            _no_formula(r.source.file),
            _no_formula(r.source.series_id),
            r.source.frame,
            r.label,
            f"{r.probability:.6f}",
            f"{r.uncertainty.entropy:.6f}",
            f"{r.uncertainty.agreement:.4f}",
            " ".join(f"{f.code}:{f.channel}" if f.channel else f.code for f in r.flags),
            *(f"{r.networks[name]:.6f}" for name in networks),
            f"{r.timing_ms.compute:.3f}",
            f"{r.timing_ms.total:.3f}",
            r.model.name,
            r.model.version,
        ]
        writer.writerow(row)
    return out.getvalue()


def _no_formula(text: str | None) -> str | None:
    """Text that a spreadsheet will not run as a formula (OWASP: CSV injection)."""
    return f"'{text}" if text and text[0] in "=+-@\t\r" else text


def bar(probability: float, width: int = 20) -> str:
    """A probability as a bar of ``width`` characters."""
    filled = round(probability * width)
    return "█" * filled + "░" * (width - filled)
