"""Fields of view whose channels lie in files of their own, put together by their names."""

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


class Pattern:
    """What names of files say about channels.

    Parameters
    ----------
    tokens : sequence of str
        Part of the name, or of the path, of each channel's files.
    """

    def __init__(self, tokens: Sequence[str]) -> None:
        self.tokens = tuple(tokens)
        self._patterns = [_bounded(token) for token in tokens]

    def named(self, file: str) -> tuple[str, ...]:
        """The tokens in a path, in the order of the channels; more than one says nothing for certain."""
        return tuple(self.tokens[channel] for channel in sorted({channel for channel, _ in self._find(file)}))

    def split(self, file: str) -> tuple[int, str] | None:
        """The channel of a file, and what the files of its field of view have in common.

        None unless exactly one of the tokens is in its path; it may be there several times.
        """
        channel, matches = self._found(file)
        if channel is None:
            return None
        rest = PurePosixPath(_replaced(file, matches, _PLACE))
        return channel, rest.with_suffix("").as_posix()

    def parts(self, root: Path, file: str) -> tuple[str, ...]:
        """The files of all channels, of which one is named.

        Those that are not there are among them.

        Raises
        ------
        FovError
            If not exactly one of the tokens is in its path.
        """
        channel, matches = self._found(file)
        if channel is None:
            raise FovError(_undecided(file, self.named(file), ", ".join(self.tokens)))
        names = [_replaced(file, matches, token) for token in self.tokens]
        names[channel] = file
        return tuple(name if (root / name).is_file() else _nearby(root, name) for name in names)

    def _found(self, file: str) -> tuple[int | None, list[re.Match[str]]]:
        found = self._find(file)
        channels = {channel for channel, _ in found}
        return (channels.pop() if len(channels) == 1 else None), [match for _, match in found]

    def _find(self, file: str) -> list[tuple[int, re.Match[str]]]:
        """Where the tokens are; of those that overlap the longest: "SRS 2" has no "SRS" then."""
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
    """A token in a path, but not as a part of a longer word or number."""
    kinds = {"letter": r"[^\W\d_]", "digit": r"\d"}
    first, last = (_kind(character) for character in (token[0], token[-1]))
    before = f"(?<!{kinds[first]})" if first else ""
    after = f"(?!{kinds[last]})" if last else ""
    return re.compile(f"{before}{re.escape(token)}{after}", re.IGNORECASE)


def _kind(character: str) -> str:
    return "digit" if character.isdigit() else "letter" if character.isalpha() else ""


def _nearby(root: Path, name: str) -> str:
    """The same file in other capitals, or with another ending of the same kind."""
    path = root / name
    try:
        there = sorted(other.name for other in path.parent.iterdir())
    except OSError:
        return name
    for same in (
        [one for one in there if one.casefold() == path.name.casefold()],
        [one for one in there if Path(one).stem.casefold() == path.stem.casefold()],
    ):
        if same:
            return str(PurePosixPath(name).with_name(same[0]))
    return name


def combine(
    rows: Iterable[Row], tokens: Sequence[str], channels: Sequence[str]
) -> tuple[list[Row], list[Fault]]:
    """One row per field of view, of rows of one channel's file each.

    The row has the first channel's file; ``parts`` has all of them, in the order of the channels.
    """
    pattern = Pattern(tokens)
    groups: dict[str, dict[int, list[Row]]] = defaultdict(lambda: defaultdict(list))
    faults: list[Fault] = []
    named = ", ".join(f"{token} for {channel}" for token, channel in zip(tokens, channels, strict=True))
    for row in rows:
        found = pattern.split(row.file)
        if found is None:
            faults.append(_undecided(row.file, pattern.named(row.file), named))
        else:
            groups[found[1]][found[0]].append(row)
    combined: list[Row] = []
    for members in groups.values():
        fault = _incomplete(members, tokens, channels)
        if fault is not None:
            faults.append(fault)
            continue
        parts = [members[channel][0] for channel in range(len(tokens))]
        group = _common_group(parts, tokens)
        combined.append(replace(parts[0], parts=tuple(part.file for part in parts), group=group))
    return combined, faults


def _undecided(file: str, there: Sequence[str], named: str) -> Fault:
    if there:
        problem = f"has {' and '.join(there)} in its path, which are different channels"
        remedy = (
            "Set data.per_channel to longer parts of the names, with what stands beside them (such as "
            f"{there[0]}- or _{there[0]}), so that each file has one of them; or rename the files"
        )
        return Fault("per-channel", file, problem, remedy)
    remedy = f"data.per_channel names {named}: rename the file, or move it away"
    return Fault("per-channel", file, "has none of these in its name", remedy)


def _common_group(parts: Sequence[Row], tokens: Sequence[str]) -> str | None:
    """The group of one row per channel; folders of channels above those of classes are no groups."""
    if len({part.group for part in parts}) == 1:
        return parts[0].group
    return without(parts[0].group, tokens[0])


def without(group: str | None, token: str) -> str | None:
    """A group's name without the token of a channel; None if nothing is left."""
    if group is None:
        return None
    token = token.strip("/")
    if group.casefold() == token.casefold():
        return None
    if any(character.isdigit() for character in token):
        return group
    return _bounded(token).sub("", group).strip(" _-") or None


def _incomplete(
    members: dict[int, list[Row]], tokens: Sequence[str], channels: Sequence[str]
) -> Fault | None:
    there = [row for some in members.values() for row in some]
    first = min(row.file for row in there)
    twice = next((some for some in members.values() if len(some) > 1), None)
    if twice is not None:
        problem = f"and {twice[1].file} are the same channel of one field of view"
        remedy = "Move one of them away, or set data.per_channel to parts of the names that tell them apart"
        return Fault("per-channel", twice[0].file, problem, remedy)
    lacking = [f"{channels[c]} ({tokens[c]})" for c in range(len(tokens)) if c not in members]
    if lacking:
        problem = f"has no file beside it for {', '.join(lacking)}"
        remedy = "Add the missing channels (to dataset.csv too, where there is one), or move the file away"
        return Fault("per-channel", first, problem, remedy)
    told = {(row.label, row.split) for row in there}
    groups = {row.group for row in there}
    bare = {without(row.group, tokens[channel]) for channel, some in members.items() for row in some}
    if len(told) > 1 or (len(groups) > 1 and len(bare) > 1):
        problem = "and the other channels of its field of view have different labels, groups or splits"
        return Fault("per-channel", first, problem, "Give all channels of a field of view the same")
    return None
