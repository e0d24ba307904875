"""Where ``senoscope-train`` begins; the command itself needs packages that the client's install lacks."""

from __future__ import annotations

import sys


def main() -> None:
    """Run ``senoscope-train``, or tell what is not installed."""
    try:
        from senoscope_training.cli import main as run
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("senoscope"):
            raise
        sys.exit(
            f"senoscope-train: {error.name} is not installed; this command needs "
            '`pip install "senoscope[training]"`, in a clone '
            '`pip install -c constraints.txt -e ".[training]"`'
        )
    run()


if __name__ == "__main__":
    main()
