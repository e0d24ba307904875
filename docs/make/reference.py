"""Write or check the pages of ``docs/reference`` that are generated from the code.

::

    python docs/make/reference.py
    python docs/make/reference.py --check
"""

from __future__ import annotations

import difflib
import os
import sys
from pathlib import Path

# The pages must not depend on the environment; defaults are read on import.
for variable in [name for name in os.environ if name.startswith("SENOSCOPE_")]:
    del os.environ[variable]

from pages import cli, configuration, engine, headers, manifest, metrics, rest, settings, tables  # noqa: E402

FOLDER = Path(__file__).parents[1] / "reference"
PAGES = {
    "cli.md": cli.page,
    "configuration.md": configuration.page,
    "engine.md": engine.page,
    "frame-headers.md": headers.page,
    "manifest.md": manifest.page,
    "metrics.md": metrics.page,
    "rest.md": rest.page,
    "settings.md": settings.page,
    "tables.md": tables.page,
}


def main(check: bool) -> int:
    """Write the pages, or compare them with the code; return 1 if a page that is checked is out of date."""
    stale = 0
    for name, page in PAGES.items():
        path, text = FOLDER / name, page()
        written = path.read_text(encoding="utf-8") if path.is_file() else ""
        if written == text:
            continue
        if not check:
            path.write_text(text, encoding="utf-8", newline="\n")
            print(path)
            continue
        stale = 1
        lines = difflib.unified_diff(written.splitlines(), text.splitlines(), name, "as generated", n=0)
        print("\n".join(lines))
    return stale


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
