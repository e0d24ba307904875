"""Identification of channels by the labels that programs write for planes.

Fiji labels a plane with the title of its window, often with a number (``SRS-0001``), Bio-Formats with its
indices and a name (``c:1/3 t:1/2 - SRS``); Micro-Manager and ScanImage write the names of channels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

_INDICES: Final = re.compile(r"^(?:[a-z]+:\d+/\d+\s*)+(?:-\s*)?", re.IGNORECASE)
_SUFFIX: Final = re.compile(r"(?:\.(?:ome|tiff?|lsm|btf|png|npy|raw))+(?=$|[-_ ]?\d*$)", re.IGNORECASE)
# In the syntax of MATLAB or JSON.
_SCANIMAGE_NAMES: Final = re.compile(
    r"channels?Names?\"?\s*[=:]\s*(\{[^}\n]*\}|\[[^\]\n]*\]|'[^'\n]*'|\"[^\"\n]*\")", re.IGNORECASE
)
_MAX_LABEL: Final = 1024
_GAP: Final = r"[\s_-]*"
_NUMBER: Final = re.compile(r"[-_ ]\d{1,6}$")


def normalize_name(name: str) -> str:
    """Remove differences in the spelling of a name: case, blanks and dashes."""
    return re.sub(r"[\s_-]+", "", name).casefold()


def clean_label(label: str) -> str:
    """Return the first line of a label without indices, suffix and number, which can be a channel's name."""
    line = label.splitlines()[0].strip()[:_MAX_LABEL] if label.strip() else ""
    line = _INDICES.sub("", line)
    return _NUMBER.sub("", _SUFFIX.sub("", line)).strip() or line


def name_planes(labels: Sequence[str], channels: Sequence[str]) -> tuple[str, ...]:
    """Return the channel of each plane: one of ``channels`` if its label names it, else the cleaned label.

    A label that contains a channel's name as one word of several names this channel, unless another label is
    exactly the name.
    """
    exact = {normalize_name(channel): channel for channel in channels}
    # The longest first: of the channels "SRS" and "SRS 2" the label "SRS 2" names the second.
    patterns = [(channel, _word_pattern(channel)) for channel in sorted(channels, key=len, reverse=True)]
    names: dict[str, str] = {}
    for label in dict.fromkeys(labels):
        forms = (normalize_name(form) for form in (label, clean_label(label)))
        exact_form = next((form for form in forms if form in exact), None)
        if exact_form is not None:
            names[label] = exact[exact_form]
    certain = set(names.values())
    for label in labels:
        if label not in names:
            name = _find_channel_word(label, patterns)
            names[label] = clean_label(label) if name is None or name in certain else name
    return tuple(names[label] for label in labels)


def uncertain_labels(labels: Sequence[str], names: Sequence[str], channels: Sequence[str]) -> list[str]:
    """Return labels with more words than a channel's name, unless all channels have the same further words.

    ``plate 3, SRS`` and ``plate 3, TPEF`` are certain, ``SRS off-resonance`` and ``TPEF`` are not. ``names``
    is the result of `name_planes` for the labels.
    """
    contexts: dict[str, set[str]] = {channel: set() for channel in channels}
    found: dict[str, str] = {}
    for label, name in dict.fromkeys(zip(labels, names, strict=True)):
        if name in contexts:
            context = _label_context(label, name)
            contexts[name].add(context)
            if context:
                found.setdefault(f"{name} {context}", clean_label(label))
    equal = len(channels) > 1 and len({frozenset(context) for context in contexts.values()}) == 1
    return [] if equal else list(found.values())


def _label_context(label: str, name: str) -> str:
    """Return a label with placeholders for the channel's name and numbers; empty if it is only the name."""
    if normalize_name(name) in {normalize_name(label), normalize_name(clean_label(label))}:
        return ""
    return re.sub(r"\d+", "0", _word_pattern(name).sub("\0", label.splitlines()[0])).casefold()


def _find_channel_word(label: str, patterns: list[tuple[str, re.Pattern[str]]]) -> str | None:
    line = label.splitlines()[0] if label.strip() else ""
    found = []
    for channel, pattern in patterns:
        line, count = pattern.subn("\0", line)
        if count:
            found.append(channel)
    return found[0] if len(found) == 1 else None


def _word_pattern(channel: str) -> re.Pattern[str]:
    """Return a pattern that matches a channel's name as a separate word of a label."""
    parts = [re.escape(part) for part in re.split(r"[\s_-]+", channel) if part]
    return re.compile(rf"(?<![^\W_]){_GAP.join(parts)}(?![^\W_])", re.IGNORECASE)


def mentioned_channels(text: str, channels: Sequence[str]) -> list[str]:
    """Return the channels whose names are words of a text."""
    return [channel for channel in channels if _word_pattern(channel).search(text)]


def scanimage_names(text: str) -> tuple[str, ...] | None:
    """Return the channels that ScanImage saved, in the order of its pages; None if the text names none.

    The text is that of the tags Artist, Software and ImageDescription, and of the header.
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
