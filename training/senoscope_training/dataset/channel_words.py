"""What names of channels in file names look like."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

# What programs number channels with: LAS X _ch00, Fiji C1-, MetaXpress _w1, Opera -ch1sk1, Yokogawa Z01C01,
# Prairie View _Ch1, Micro-Manager channel000, ThorImage ChanA.
_COUNTED: Final = (
    r"(?:channel|chan|ch|c|w|wv|wave|pmt|apd|det|detector|camera|cam)[_ =-]?\d{1,3}(?!\d)"
    r"|(?:channel|chan|ch)[_ -]?[a-h](?![^\W\d_])"
)
NUMBERED: Final = re.compile(_COUNTED, re.IGNORECASE)
WAVES: Final = r"(?:\d{3,4}[ _]?(?:nm|cm-?1)(?![^\W_])|\d{3}-\d{2}(?![\d-]))"  # 800nm, 2850cm-1, 525-40
TRACK: Final = re.compile(r"t\d{1,2}", re.IGNORECASE)  # ZEN's -T1, which goes with a channel's name
# Detectors, dyes and what they show.
_NAMES: Final = """
srs cars tpef tpf tpa 2pef 2pf 3pef 1pef shg thg nadh nadph fad flim raman reflection nlo
transmission trans transmitted brightfield bf dic phase pmt tpmt td tl dodt light bright
dapi hoechst fitc tritc gfp egfp rfp yfp cfp bfp mcherry tdtomato dsred uv cy2 cy3 cy5 cy7 texasred
red green blue farred alexa488 alexa568 alexa594 alexa647 af488 af568 af594 af647
lipid lipids protein proteins water dna actin nuclei bodipy mitotracker autofluo autofluorescence fluo
"""
_EXTRAS: Final = "overlay overlays merge merged composite rgb max mip"
NAMES: Final = frozenset(_NAMES.split())
EXTRAS: Final = frozenset(_EXTRAS.split())
"""Pictures that programs make of all channels."""


def plain(name: str) -> str:
    """A name without what separates its words, in small letters."""
    return re.sub(r"[\s_-]+", "", name).casefold()


def is_known(token: str, channels: Iterable[str]) -> bool:
    """Whether a token is a channel's name, with a number behind it perhaps."""
    names = {plain(channel) for channel in channels} | NAMES
    return plain(token) in names or plain(token).rstrip("0123456789") in names


def sign_pattern(channels: Sequence[str]) -> re.Pattern[str]:
    """Matches numbered channels, wavelengths and wave numbers, and names of channels and of overlays.

    A name may have a wave number behind it: SRS_2850.
    """
    words = sorted({*NAMES, *EXTRAS, *(channel.casefold() for channel in channels)}, key=len, reverse=True)
    spelled = [r"[\s_-]?".join(map(re.escape, re.split(r"[\s_-]+", word))) for word in words if word]
    names = "|".join([*spelled, r"t[\s_-]?pmt"])
    initials = "".join(sorted({channel[0] for channel in channels if channel[0].isalpha()})) or "T"
    letter = r"[^\W\d_]"
    return re.compile(
        rf"(?<!\d){WAVES}|(?<![^\W_])[{initials}](?![^\W_])"
        rf"|(?<!{letter})(?:{_COUNTED}|(?:{names})(?:[ _-][1-9]\d{{2,3}}(?!\d)|\d{{0,4}})(?!{letter}))",
        re.IGNORECASE,
    )
