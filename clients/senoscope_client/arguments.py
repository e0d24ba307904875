"""Types and options that several subcommands of ``senoscope-client`` have."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from typing import Final, TypeVar

DEFAULT_URL: Final = "http://127.0.0.1:8750"

_N = TypeVar("_N", int, float)


def _number(name: str, kind: type[_N], is_valid: Callable[[_N], bool], what: str) -> Callable[[str], _N]:
    """Return a function that reads the value of an option; argparse names the value in messages."""

    def read(text: str) -> _N:
        number = kind(text)
        if not is_valid(number):
            raise argparse.ArgumentTypeError(f"{text} is not {what}")
        return number

    read.__name__ = name
    return read


positive: Final = _number("number", float, lambda n: 0 < n < math.inf, "greater than 0")
seconds: Final = _number("seconds", float, lambda n: 0 <= n < math.inf, "a number of seconds")
non_negative: Final = _number("integer", int, lambda n: n >= 0, "0 or greater")
count: Final = _number("integer", int, lambda n: n >= 1, "1 or greater")


def name_list(text: str) -> tuple[str, ...]:
    """Read names that are separated by commas."""
    return tuple(name.strip() for name in text.split(","))


def add_api_key(command: argparse.ArgumentParser) -> None:
    """Add the option of the API key, whose default is that of the environment."""
    command.add_argument(
        "--api-key",
        metavar="KEY",
        default=os.environ.get("SENOSCOPE_API_KEY") or None,
        help="of the service; better set SENOSCOPE_API_KEY, because other users can see command lines",
    )


def add_file_options(command: argparse.ArgumentParser) -> None:
    """Add the options that describe a file which does not describe itself."""
    command.add_argument("--axes", help="of the files, such as PCYX, if the files do not define them")
    command.add_argument(
        "--channels", type=name_list, help="of the files, in order, such as SRS,TPEF,Transmission"
    )
