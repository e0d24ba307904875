"""Write docs/metrics.md from the registry of a service."""

from __future__ import annotations

from pathlib import Path

from senoscope.metrics.reference import reference

if __name__ == "__main__":
    path = Path(__file__).parents[1] / "metrics.md"
    path.write_text(reference(), encoding="utf-8", newline="\n")
    print(path)  # noqa: T201
