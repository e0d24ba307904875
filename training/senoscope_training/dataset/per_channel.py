"""Fields of view with one file per channel, combined by their file names."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from senoscope_training.dataset.faults import Fault
from senoscope_training.dataset.model import FovError
from senoscope_training.dataset.table import Row

_PLACE = "\0"


class ChannelPattern:
    """Identifies the channel of a file by the part of its path in ``tokens``, one for each channel."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self.tokens = tuple(tokens)
        self._patterns = [_bounded(token) for token in tokens]

    def named(self, file: str) -> tuple[str, ...]:
        """Return the tokens in a path, in the order of the channels."""
        return tuple(self.tokens[channel] for channel in sorted({channel for channel, _ in self._find(file)}))

    def split(self, file: str) -> tuple[int, str] | None:
        """Return the channel of a file, and the part of the path that all files of its field of view share.

        Return None unless exactly one of the tokens is in the path; it may be there several times.
        """
        channel, matches = self._found(file)
        if channel is None:
            return None
        rest = PurePosixPath(_replaced(file, matches, _PLACE))
        return channel, rest.with_suffix("").as_posix()

    def parts(self, root: Path, file: str) -> tuple[str, ...]:
        """Return the files of all channels, given one of them; missing files are included.

        Raises
        ------
        FovError
            Unless exactly one of the tokens is in the path.
        """
        channel, matches = self._found(file)
        if channel is None:
            raise FovError(_unidentified(file, self.named(file), ", ".join(self.tokens)))
        names = [_replaced(file, matches, token) for token in self.tokens]
        names[channel] = file
        return tuple(name if (root / name).is_file() else _similar_file(root, name) for name in names)

    def _found(self, file: str) -> tuple[int | None, list[re.Match[str]]]:
        found = self._find(file)
        channels = {channel for channel, _ in found}
        return (channels.pop() if len(channels) == 1 else None), [match for _, match in found]

    def _find(self, file: str) -> list[tuple[int, re.Match[str]]]:
        """Find the tokens; of overlapping ones keep the longest, so that "SRS 2" does not contain "SRS"."""
        found = [
            (channel, match)
            for channel, pattern in enumerate(self._patterns)
            for match in pattern.finditer(file)
        ]
        kept: list[tuple[int, re.Match[str]]] = []
        for channel, match in sorted(found, key=lambda one: -len(one[1][0])):
            if all(match.end() <= other.start() or other.end() <= match.start() for _, other in kept):
                kept.append((channel, match))
        return kept


def _replaced(file: str, matches: Iterable[re.Match[str]], by: str) -> str:
    for match in sorted(matches, key=lambda one: -one.start()):
        file = file[: match.start()] + by + file[match.end() :]
    return file


def _bounded(token: str) -> re.Pattern[str]:
    """Return a pattern for a token that is not a part of a longer word or number."""
    first, last = (
        r"\d" if end.isdigit() else r"[^\W\d_]" if end.isalpha() else r"[^\s\S]"  # the last matches nothing
        for end in (token[0], token[-1])
    )
    return re.compile(f"(?<!{first}){re.escape(token)}(?!{last})", re.IGNORECASE)


def _similar_file(root: Path, name: str) -> str:
    """Return an existing file whose name differs only in case or suffix; otherwise the given name."""
    path = root / name
    try:
        siblings = sorted(other.name for other in path.parent.iterdir())
    except OSError:
        return name
    same = [one for one in siblings if one.casefold() == path.name.casefold()]
    same += [one for one in siblings if Path(one).stem.casefold() == path.stem.casefold()]
    return str(PurePosixPath(name).with_name(same[0])) if same else name


def combine(
    rows: Iterable[Row], tokens: Sequence[str], channels: Sequence[str]
) -> tuple[list[Row], list[Fault]]:
    """Combine rows of one file per channel into one row per field of view.

    ``file`` of a combined row is that of the first channel; ``parts`` are the files of all channels, in
    their order. Files that cannot be combined become faults.
    """
    pattern = ChannelPattern(tokens)
    groups: dict[str, dict[int, list[Row]]] = defaultdict(lambda: defaultdict(list))
    faults: list[Fault] = []
    named = ", ".join(f"{token} for {channel}" for token, channel in zip(tokens, channels, strict=True))
    for row in rows:
        found = pattern.split(row.file)
        if found is None:
            faults.append(_unidentified(row.file, pattern.named(row.file), named))
        else:
            groups[found[1]][found[0]].append(row)
    combined: list[Row] = []
    for members in groups.values():
        fault = _combination_fault(members, tokens, channels)
        if fault is not None:
            faults.append(fault)
            continue
        parts = [members[channel][0] for channel in range(len(tokens))]
        group = parts[0].group
        # If they differ, the folders of the channels are above those of the classes.
        if len({part.group for part in parts}) > 1:
            group = without_channel(group, tokens[0])
        combined.append(replace(parts[0], parts=tuple(part.file for part in parts), group=group))
    return combined, faults


def _unidentified(file: str, found: Sequence[str], named: str) -> Fault:
    if found:
        problem = f"has {' and '.join(found)} in its path, which are different channels"
        remedy = (
            "Set data.per_channel to longer parts of the names, including neighbouring characters (for "
            f"example {found[0]}- or _{found[0]}), so that each path contains one; or rename the files"
        )
        return Fault("per-channel", file, problem, remedy)
    remedy = f"data.per_channel has {named}: rename the file, or move it away"
    return Fault("per-channel", file, "has no part of data.per_channel in its path", remedy)


def without_channel(group: str | None, token: str) -> str | None:
    """Remove the token of a channel from the name of a group; return None if nothing is left."""
    if group is None:
        return None
    token = token.strip("/")
    if group.casefold() == token.casefold():
        return None
    if any(character.isdigit() for character in token):
        return group
    return _bounded(token).sub("", group).strip(" _-") or None


def _combination_fault(
    members: dict[int, list[Row]], tokens: Sequence[str], channels: Sequence[str]
) -> Fault | None:
    rows = [row for some in members.values() for row in some]
    first = min(row.file for row in rows)
    twice = next((some for some in members.values() if len(some) > 1), None)
    if twice is not None:
        problem = f"and {twice[1].file} are the same channel of one field of view"
        remedy = "Move one of them away, or set data.per_channel to parts of the names that differ"
        return Fault("per-channel", twice[0].file, problem, remedy)
    missing = [f"{channels[c]} ({tokens[c]})" for c in range(len(tokens)) if c not in members]
    if missing:
        problem = f"has no file of the same field of view for {', '.join(missing)}"
        remedy = "Add the missing channels (also to dataset.csv, if there is one), or move the file away"
        return Fault("per-channel", first, problem, remedy)
    labels = {(row.label, row.split) for row in rows}
    groups = {row.group for row in rows}
    bare = {without_channel(row.group, tokens[channel]) for channel, some in members.items() for row in some}
    if len(labels) > 1 or (len(groups) > 1 and len(bare) > 1):
        problem = "and the other channels of its field of view have different labels, groups or splits"
        remedy = "Give all channels of a field of view the same label, group and split"
        return Fault("per-channel", first, problem, remedy)
    return None
