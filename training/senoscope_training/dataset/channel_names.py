"""Names of channels as they occur in file names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

# Numbered channels: LAS X _ch00, Fiji C1-, MetaXpress _w1, Opera -ch1sk1, Yokogawa Z01C01,
# Prairie View _Ch1, Micro-Manager channel000, ThorImage ChanA.
_COUNTED: Final = (
    r"(?:channel|chan|ch|c|w|wv|wave|pmt|apd|det|detector|camera|cam)[_ =-]?\d{1,3}(?!\d)"
    r"|(?:channel|chan|ch)[_ -]?[a-h](?![^\W\d_])"
)
NUMBERED: Final = re.compile(_COUNTED, re.IGNORECASE)
WAVES: Final = r"(?:\d{3,4}[ _]?(?:nm|cm-?1)(?![^\W_])|\d{3}-\d{2}(?![\d-]))"  # 800nm, 2850cm-1, 525-40
TRACK: Final = re.compile(r"t\d{1,2}", re.IGNORECASE)  # ZEN's -T1, which follows the name of a channel
# Detectors, dyes and what they stain.
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
"""Images that programs compute from all channels."""


def normalized(name: str) -> str:
    """Return a name in lower case, without spaces, hyphens and underscores."""
    return re.sub(r"[\s_-]+", "", name).casefold()


def is_known(token: str, channels: Iterable[str]) -> bool:
    """Return whether a token is the name of a channel, possibly followed by a number."""
    names = {normalized(channel) for channel in channels} | NAMES
    return normalized(token) in names or normalized(token).rstrip("0123456789") in names


def channel_pattern(channels: Sequence[str]) -> re.Pattern[str]:
    """Return a pattern for numbered channels, wavelengths, wave numbers, and names of channels and overlays.

    A name may be followed by a wave number: SRS_2850.
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
