"""What makes the files of one data set look as if they did not belong together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from senoscope_training.dataset.faults import Fault

if TYPE_CHECKING:
    from senoscope_training.dataset.file_facts import FileFacts
    from senoscope_training.dataset.table import Row

_APART = 1000.0  # counts between two groups of zero levels
_CLEAR = 3.0  # times what levels differ by within a group
_RATIO = 1.5  # of the levels on both sides: brighter lamps move a bright field by less
_BRIGHTER = 8.0  # times
_FEW = 3  # files of a class
_OWN = 0.9  # of the files have names of their own: labels that hold the name of a file
_WORD = re.compile(r"\w+")
_DIGITS = re.compile(r"\d+")

Texts = tuple[str, ...]
Read = Sequence[tuple["Row", str, "FileFacts"]]


def suspect_channel_names(read: Read) -> Iterator[Fault]:
    """A fault where files name their channels differently, and names were not used to order them."""
    kinds: dict[Texts, list[Row]] = {}
    for row, _, facts in read:
        kinds.setdefault(facts.by_position, []).append(row)
    unused = {texts: rows for texts, rows in kinds.items() if texts}
    remedy = (
        "Name the channels in all files as data.channels does, or in the same order in all of them; if the "
        "order is right in all, set data.accept: [channel-names]"
    )
    different = _different(unused)
    if different:
        first, second = (texts[0] for texts in different[:2])
        groups = [[row for texts in some for row in unused[texts]] for some in different]
        problem = (
            f"says: {'; '.join(first)}. But {unused[second][0].file} says: {'; '.join(second)}"
            f"{_following(groups, read)}"
        )
        yield Fault("channel-names", unused[first][0].file, problem, remedy)
        return
    rows = [row for some in unused.values() for row in some]
    follows = _following([rows], read) if rows and () in kinds else ""
    if follows:
        # Some files' names were used, or they have none; the others may have another order.
        texts = next(iter(unused))
        problem = f"says: {'; '.join(texts)}. But {kinds[()][0].file} does not{follows}"
        yield Fault("channel-names", rows[0].file, problem, remedy)


def _different(unused: dict[Texts, list[Row]]) -> list[list[Texts]]:
    """Groups of the ways in which channels are named, if they differ and not for each file.

    Labels often hold the name of the file that an image was made from, which says nothing of channels:
    where nearly each file has its own, numbers do not count.
    """
    by_words: dict[Texts, Texts] = {}
    for texts in unused:
        other = by_words.setdefault(tuple(sorted(_WORD.findall(" ".join(texts)))), texts)
        if other != texts:  # the same words in another order
            return [[other], [texts]]
    files = sum(len(rows) for rows in unused.values())
    if 1 < len(unused) <= max(2, files / 4):
        return [[texts] for texts in unused]
    by_class: dict[frozenset[str], list[Texts]] = {}
    for texts, rows in unused.items():
        by_class.setdefault(frozenset(row.label for row in rows), []).append(texts)
    if len(by_class) > 1 and max(map(len, by_class)) == 1 and len(unused) < _OWN * files:
        return list(by_class.values())
    by_letters: dict[str, list[Texts]] = {}
    for texts in unused:
        by_letters.setdefault(_DIGITS.sub("#", " ".join(texts)), []).append(texts)
    return list(by_letters.values()) if 1 < len(by_letters) <= files / 2 else []


def suspect_types(read: Read) -> Iterator[Fault]:
    """A fault where the type of the numbers follows the class."""
    kinds: dict[str, list[Row]] = {}
    for row, _, facts in read:
        kinds.setdefault(facts.dtype, []).append(row)
    follows = _following(kinds.values(), read) if len(kinds) > 1 else ""
    if follows:
        said = [f"{_more(rows)}holds {dtype}" for dtype, rows in kinds.items()]
        files = [rows[0].file for rows in kinds.values()]
        others = ", ".join(f"{file} {words}" for file, words in zip(files[1:], said[1:], strict=True))
        remedy = (
            "Save all files as the detector's counts, in one type, none of them scaled; or, if they are "
            "counts, set data.accept: [types]"
        )
        yield Fault("types", files[0], f"{said[0]}, {others}{follows}", remedy)


def suspect_brightness(read: Read, channels: Sequence[str]) -> Iterator[str]:
    """A note on each channel in which every file of one class is many times as bright as all of the other."""
    labels = np.array([row.label for row, _, _ in read])
    names = np.unique(labels)
    if len(names) != 2 or min((labels == name).sum() for name in names) < _FEW:
        return
    levels = np.array([facts.bright_levels for _, _, facts in read], np.float64)
    for c, channel in enumerate(channels):
        for dim, bright in (names, names[::-1]):
            most, least = levels[labels == dim, c].max(), levels[labels == bright, c].min()
            if most > 0 and least > _BRIGHTER * most:
                yield (
                    f"every file of {bright} is more than {int(least / most)} times as bright in {channel} "
                    f"as all of {dim} (99 % of the pixels are below {least:,.5g} and {most:,.5g}): see that "
                    "all were taken with the same gain, and that none were scaled"
                )


def suspect_zero_levels(read: Read, channels: Sequence[str]) -> Iterator[Fault]:
    """A fault for each channel whose darkest level is thousands of counts apart between files.

    Stored numbers then mean something else in some of them, as where one program adds 32,768 to signed
    numbers.
    """
    if len(read) < 2:
        return
    levels = np.array([facts.zero_levels for _, _, facts in read], np.float64)
    labels = np.array([row.label for row, _, _ in read])
    for c, channel in enumerate(channels):
        sides = _apart(levels[:, c], labels)
        if sides is None:
            continue
        groups = [
            [row for (row, _, _), mine in zip(read, sides, strict=True) if mine == side]
            for side in reversed(range(sides.max() + 1))
        ]
        middles = [float(np.median(levels[sides == side, c])) for side in reversed(range(sides.max() + 1))]
        others = ", ".join(
            f"{rows[0].file} {_more(rows)}one of {middle:,.0f}"
            for rows, middle in zip(groups[1:], middles[1:], strict=True)
        )
        problem = (
            f"{_more(groups[0])}has a zero level of {middles[0]:,.0f} in {channel}, "
            f"{others}{_following(groups, read)}"
        )
        remedy = (
            "Save all files with the same offset (a program may have added 32,768 to signed numbers), or, if "
            "the detector was set so, data.accept: [zero-level]"
        )
        yield Fault("zero-level", groups[0][0].file, problem, remedy)


def _more(rows: Sequence[Row]) -> str:
    return f"(and {len(rows) - 1} more) " if len(rows) > 1 else ""


def _apart(levels: npt.NDArray[np.float64], labels: npt.NDArray[np.str_]) -> npt.NDArray[np.int64] | None:
    """The group of each file, from the darkest, where gaps of thousands are between groups; else None.

    Gaps must be wide beside what levels differ by within groups, and groups few, which ramps are not.
    """
    order = np.sort(levels)
    gaps = np.diff(order)
    wide = np.flatnonzero((gaps >= _APART) & ((order[:-1] <= 0) | (order[1:] >= _RATIO * order[:-1])))
    found = None
    for count in range(1, len(wide) + 1):
        if count > 1 and count + 1 > len(levels) / 2:
            break
        cuts = np.sort(wide[np.argsort(-gaps[wide], kind="stable")[:count]])
        spread = max(float(np.ptp(group)) for group in np.split(order, cuts + 1))
        sides = np.searchsorted(order[cuts + 1], levels, side="right")
        # Where the gap follows the class a network would learn it, and nothing else.
        if gaps[cuts].min() >= (1.0 if _follows(sides, labels) else _CLEAR) * spread:
            found = np.asarray(sides, np.int64)
    return found


def _follows(groups: npt.NDArray[Any], labels: npt.NDArray[np.str_]) -> bool:
    """Whether groups follow the classes: their total variation distance is at least 0.8."""
    classes = np.unique(labels)
    if len(classes) != 2 or min((labels == name).sum() for name in classes) < _FEW:
        return False
    one, other = (groups[labels == name] for name in classes)
    apart = [abs(np.mean(one == group) - np.mean(other == group)) for group in np.unique(groups)]
    return bool(np.sum(apart) / 2 >= 0.8)


def _following(groups: Iterable[Sequence[Row]], read: Read) -> str:
    """Words on groups of files that are the classes, or nothing; files in no group are one more."""
    labels = np.array([row.label for row, _, _ in read])
    group_of = {row.file: k for k, rows in enumerate(groups) for row in rows}
    if not _follows(np.array([group_of.get(row.file, -1) for row, _, _ in read]), labels):
        return ""
    return ". This follows the class: a network would learn it instead of the cells"
