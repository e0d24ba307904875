"""Entry point of ``senoscope``; reports packages that an installation of the client alone lacks."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``senoscope`` and return its exit status; a missing package is reported in one line."""
    try:
        from senoscope.cli import main as run

        return run(argv)
    except ModuleNotFoundError as error:
        if (error.name or "senoscope").startswith("senoscope"):
            raise
        sys.stderr.write(
            f"senoscope: {error.name} is not installed; this command needs "
            '`pip install "senoscope[service]"`, in a clone '
            '`pip install -c constraints.txt -e ".[service]"`\n'
        )
        return 1


if __name__ == "__main__":
    sys.exit(main())
