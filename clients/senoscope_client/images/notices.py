"""What a reader of files has to report beside pixels: assumptions, conversions, and what it left out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

NoticeCode = Literal[
    "axes",  # an order of axes or channels was assumed
    "calibration",  # stored numbers were converted to counts
    "channel-names",  # names of channels were not used
    "channels-left-out",  # channels that the ensemble does not take
    "grey-samples",  # one grey picture saved as colours
    "incomplete",  # fewer fields of view than planned
    "orientation",  # rows and columns were turned
    "pages-left-out",  # pages that no description names
    "palette",  # a colour table was ignored
    "values",  # something about the numbers that is not applied
]


@dataclass(frozen=True)
class Notice:
    """Something that the user of a file must know.

    Attributes
    ----------
    code : str
        What kind of thing it is, for programs.
    text : str
        One sentence, without the name of the file.
    """

    code: NoticeCode
    text: str


def distinct(notices: Iterable[Notice]) -> tuple[Notice, ...]:
    """Each notice once, in the order of its first occurrence."""
    return tuple(dict.fromkeys(notices))
