"""Write docs/configuration.md from the typed model of the configuration."""

from __future__ import annotations

from pathlib import Path

from senoscope_training.config_reference import reference

if __name__ == "__main__":
    path = Path(__file__).parents[1] / "configuration.md"
    path.write_text(reference(), encoding="utf-8", newline="\n")
    print(path)  # noqa: T201
