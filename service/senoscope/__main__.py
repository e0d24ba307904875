"""Where ``senoscope`` begins; the command itself needs packages that the client's install lacks."""

from __future__ import annotations

import sys


def main() -> None:
    """Run ``senoscope``, or tell what is not installed."""
    try:
        from senoscope.cli import main as run
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("senoscope"):
            raise
        sys.exit(
            f"senoscope: {error.name} is not installed; this command needs "
            '`pip install "senoscope[service]"`, in a clone `pip install -c constraints.txt -e ".[service]"`'
        )
    run()


if __name__ == "__main__":
    main()
