"""Entry point of ``senoscope-train``, which reports missing packages of the ``training`` extra."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``senoscope-train`` and return its exit status; report a missing package in one line."""
    try:
        from senoscope_training.cli import main as run

        return run(argv)
    except ModuleNotFoundError as error:
        if (error.name or "senoscope").startswith("senoscope"):
            raise
        sys.stderr.write(
            f"senoscope-train: {error.name} is not installed; this command needs "
            '`pip install "senoscope[training]"`, in a clone '
            '`pip install -c constraints.txt -e ".[training]"`\n'
        )
        return 1


if __name__ == "__main__":
    sys.exit(main())
