"""Which channel a plane shows, from the labels that programs write.

Fiji labels a plane with its window's title, often with a number (``SRS-0001``), Bio-Formats with its place
and a name (``c:1/3 t:1/2 - SRS``); Micro-Manager and ScanImage name channels outright.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

_PLACE: Final = re.compile(r"^(?:[a-z]+:\d+/\d+\s*)+(?:-\s*)?", re.IGNORECASE)
_ENDING: Final = re.compile(r"(?:\.(?:ome|tiff?|lsm|btf|png|npy|raw))+(?=$|[-_ ]?\d*$)", re.IGNORECASE)
# As MATLAB or JSON have it.
_SCANIMAGE_NAMES: Final = re.compile(
    r"channels?Names?\"?\s*[=:]\s*(\{[^}\n]*\}|\[[^\]\n]*\]|'[^'\n]*'|\"[^\"\n]*\")", re.IGNORECASE
)
_MAX_LABEL: Final = 1024
_GAP: Final = r"[\s_-]*"
_NUMBER: Final = re.compile(r"[-_ ]\d{1,6}$")


def plain(name: str) -> str:
    """A name without what people write now so, now so: case, blanks, dashes."""
    return re.sub(r"[\s_-]+", "", name).casefold()


def clean(label: str) -> str:
    """The part of a label that can be a channel's name: its first line, without place, ending and number."""
    line = label.splitlines()[0].strip()[:_MAX_LABEL] if label.strip() else ""
    line = _PLACE.sub("", line)
    return _NUMBER.sub("", _ENDING.sub("", line)).strip() or line


def name_planes(labels: Sequence[str], channels: Sequence[str]) -> tuple[str, ...]:
    """The channel of each plane: one of ``channels`` where its label says so, else its cleaned label.

    A label that has a channel's name as one word of several says so unless another is just that name.

    Parameters
    ----------
    labels : sequence of str
        One per plane.
    channels : sequence of str
        That are looked for.
    """
    exact = {plain(channel): channel for channel in channels}
    # The longest first: of the channels "SRS" and "SRS 2" the label "SRS 2" names the second.
    words = [(channel, _word(channel)) for channel in sorted(channels, key=len, reverse=True)]
    known: dict[str, str] = {}
    for label in dict.fromkeys(labels):
        same = next((plain(one) for one in (label, clean(label)) if plain(one) in exact), None)
        if same is not None:
            known[label] = exact[same]
    certain = set(known.values())
    for label in labels:
        if label not in known:
            name = _by_word(label, words)
            known[label] = clean(label) if name is None or name in certain else name
    return tuple(known[label] for label in labels)


def named_by_word(labels: Sequence[str], names: Sequence[str], channels: Sequence[str]) -> list[str]:
    """Labels that name a channel by one word of several; none where all channels are named in the same way.

    ``plate 3, SRS`` beside ``plate 3, TPEF`` leaves no doubt, ``SRS off-resonance`` beside ``TPEF`` does.

    Parameters
    ----------
    labels : sequence of str
        One per plane.
    names : sequence of str
        What `name_planes` made of them.
    channels : sequence of str
    """
    forms: dict[str, set[str]] = {channel: set() for channel in channels}
    found: dict[str, str] = {}
    for label, name in dict.fromkeys(zip(labels, names, strict=True)):
        if name in forms:
            form = _form(label, name)
            forms[name].add(form)
            if form:
                found.setdefault(f"{name} {form}", clean(label))
    alike = len(channels) > 1 and len({frozenset(form) for form in forms.values()}) == 1
    return [] if alike else list(found.values())


def _form(label: str, name: str) -> str:
    """What a label says beside a channel's name, whatever numbers are in it; nothing if it is the name."""
    if plain(name) in {plain(label), plain(clean(label))}:
        return ""
    return re.sub(r"\d+", "0", _word(name).sub("\0", label.splitlines()[0])).casefold()


def _by_word(label: str, words: list[tuple[str, re.Pattern[str]]]) -> str | None:
    line = label.splitlines()[0] if label.strip() else ""
    found = []
    for channel, word in words:
        line, count = word.subn("\0", line)
        if count:
            found.append(channel)
    return found[0] if len(found) == 1 else None


def _word(channel: str) -> re.Pattern[str]:
    """A pattern for a channel's name as a word of its own within a label."""
    parts = [re.escape(part) for part in re.split(r"[\s_-]+", channel) if part]
    return re.compile(rf"(?<![^\W_]){_GAP.join(parts)}(?![^\W_])", re.IGNORECASE)


def mentioned(text: str, channels: Sequence[str]) -> list[str]:
    """Those of the channels whose names are words of a text."""
    return [channel for channel in channels if _word(channel).search(text)]


def scanimage_names(text: str) -> tuple[str, ...] | None:
    """The channels that ScanImage saved, in the order of its pages; None where the text does not say.

    Parameters
    ----------
    text : str
        Of the tags Artist, Software and ImageDescription, and of the header.
    """
    saved = re.search(r"(?:channelSave|channelsSave|savedChannels?)\"?\s*[=:]\s*(\[[^\]\n]*\]|\d+)", text)
    numbers = [int(number) for number in re.findall(r"\d{1,4}", saved[1])] if saved else None
    if saved is None and (flags := re.findall(r"savingChannel(\d+)\s*=\s*(\d)", text)):
        numbers = [int(channel) for channel, on in dict(flags).items() if on == "1"]
    named = _SCANIMAGE_NAMES.search(text)
    names = [one[0] or one[1] for one in re.findall(r"'([^']*)'|\"([^\"]*)\"", named[1])] if named else []
    if numbers is None:
        return tuple(names) or None
    chosen = [names[n - 1] if 0 < n <= len(names) else f"Channel {n}" for n in numbers]
    return tuple(chosen) or None
