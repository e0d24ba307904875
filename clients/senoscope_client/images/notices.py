"""Notices of the image reader: assumptions, conversions, and parts of a file that are left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

NoticeCode = Literal[
    "axes",  # an order of axes or channels was assumed
    "calibration",  # stored numbers were converted to counts
    "channel-names",  # names of channels were not used
    "channels-left-out",  # channels that the ensemble does not take
    "grey-samples",  # one grey picture saved as colours
    "incomplete",  # fewer fields of view than planned
    "orientation",  # images were rotated or mirrored
    "pages-left-out",  # pages without a description
    "palette",  # a colour table was ignored
    "values",  # a property of the stored numbers that is not applied
]


@dataclass(frozen=True)
class Notice:
    """A notice about a file for its user.

    Attributes
    ----------
    code : str
        Kind of the notice, for programs.
    text : str
        One sentence, without the name of the file.
    """

    code: NoticeCode
    text: str
