"""Checks that the files of a data set are consistent: channel names, data types, intensities."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from senoscope_training.dataset.faults import Fault

if TYPE_CHECKING:
    from senoscope_training.dataset.file_facts import FileFacts
    from senoscope_training.dataset.table import Row

_MIN_GAP = 1000.0  # counts between two groups of zero levels
_MIN_GAP_TO_SPREAD = 3.0  # gap between groups, in units of the spread within groups
_MIN_RATIO = 1.5  # of the levels on both sides of a gap; brighter lamps change a bright field by less
_MIN_BRIGHTNESS_RATIO = 8.0
_MIN_FILES = 3  # of a class
_MAX_DISTINCT = 0.9  # distinct channel names per file; more of them if labels contain the name of the file
_WORD = re.compile(r"\w+")
_DIGITS = re.compile(r"\d+")

Texts = tuple[str, ...]
Read = Sequence[tuple["Row", Any, "FileFacts"]]


def channel_name_faults(read: Read) -> Iterator[Fault]:
    """Report files that name their channels differently, if the names were not used to order them."""
    kinds: dict[Texts, list[Row]] = {}
    for row, _, facts in read:
        kinds.setdefault(facts.by_position, []).append(row)
    unused = {texts: rows for texts, rows in kinds.items() if texts}
    remedy = (
        "Use the names of data.channels in all files, or the same names in the same order; if the order is "
        "right in all files, set data.accept: [channel-names]"
    )
    different = _different(unused)
    if different:
        first, second = (texts[0] for texts in different[:2])
        groups = [[row for texts in some for row in unused[texts]] for some in different]
        problem = (
            f"has this warning: {'; '.join(first)}. But {unused[second][0].file} has another: "
            f"{'; '.join(second)}{_class_warning(groups, read)}"
        )
        yield Fault("channel-names", unused[first][0].file, problem, remedy)
        return
    rows = [row for some in unused.values() for row in some]
    warning = _class_warning([rows], read) if rows and () in kinds else ""
    if warning:
        # The names of the other files were used, or they have none; their order may be another one.
        texts = next(iter(unused))
        problem = f"has this warning: {'; '.join(texts)}. But {kinds[()][0].file} has none{warning}"
        yield Fault("channel-names", rows[0].file, problem, remedy)


def _different(unused: dict[Texts, list[Row]]) -> list[list[Texts]]:
    """Group the ways in which channels are named; return no groups if there is no relevant difference.

    Labels often contain the name of the file from which an image was made, which is irrelevant: if nearly
    every file has its own labels, numbers are ignored.
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
    if len(by_class) > 1 and max(map(len, by_class)) == 1 and len(unused) < _MAX_DISTINCT * files:
        return list(by_class.values())
    by_letters: dict[str, list[Texts]] = {}
    for texts in unused:
        by_letters.setdefault(_DIGITS.sub("#", " ".join(texts)), []).append(texts)
    return list(by_letters.values()) if 1 < len(by_letters) <= files / 2 else []


def dtype_faults(read: Read) -> Iterator[Fault]:
    """Report data types that differ between the classes."""
    kinds: dict[str, list[Row]] = defaultdict(list)
    for row, _, facts in read:
        kinds[facts.dtype].append(row)
    warning = _class_warning(kinds.values(), read) if len(kinds) > 1 else ""
    if warning:
        types = [f"{_more(rows)}has the data type {dtype}" for dtype, rows in kinds.items()]
        files = [rows[0].file for rows in kinds.values()]
        others = ", ".join(f"{file} {dtype}" for file, dtype in zip(files[1:], types[1:], strict=True))
        remedy = (
            "Save the detector's counts, unscaled and in the same data type, in all files; or, if all files "
            "contain counts, set data.accept: [types]"
        )
        yield Fault("types", files[0], f"{types[0]}, {others}{warning}", remedy)


def brightness_notes(read: Read, channels: Sequence[str]) -> Iterator[str]:
    """Note channels in which every file of one class is many times as bright as every file of the other."""
    labels = np.array([row.label for row, _, _ in read])
    names = np.unique(labels)
    if len(names) != 2 or min((labels == name).sum() for name in names) < _MIN_FILES:
        return
    levels = np.array([facts.bright_levels for _, _, facts in read], np.float64)
    for c, channel in enumerate(channels):
        for dim, bright in (names, names[::-1]):
            most, least = levels[labels == dim, c].max(), levels[labels == bright, c].min()
            if most > 0 and least > _MIN_BRIGHTNESS_RATIO * most:
                yield (
                    f"every file of {bright} is more than {int(least / most)} times as bright in {channel} "
                    f"as every file of {dim} (99th percentiles: {least:,.5g} or more, {most:,.5g} or less): "
                    "check that all files were recorded with the same gain and that none was scaled"
                )


def zero_level_faults(read: Read, channels: Sequence[str]) -> Iterator[Fault]:
    """Report channels whose darkest level differs by thousands of counts between files.

    The stored numbers then have different offsets, for example because one program adds 32,768 to signed
    numbers.
    """
    if len(read) < 2:
        return
    levels = np.array([facts.zero_levels for _, _, facts in read], np.float64)
    labels = np.array([row.label for row, _, _ in read])
    for c, channel in enumerate(channels):
        sides = _group_levels(levels[:, c], labels)
        if sides is None:
            continue
        brightest_first = range(sides.max(), -1, -1)
        groups = [[read[k][0] for k in np.flatnonzero(sides == side).tolist()] for side in brightest_first]
        middles = [float(np.median(levels[sides == side, c])) for side in brightest_first]
        others = ", ".join(
            f"{rows[0].file} {_more(rows)}one of {middle:,.0f}"
            for rows, middle in zip(groups[1:], middles[1:], strict=True)
        )
        problem = (
            f"{_more(groups[0])}has a zero level of {middles[0]:,.0f} in {channel}, "
            f"{others}{_class_warning(groups, read)}"
        )
        remedy = (
            "Save all files with the same offset (a program may have added 32,768 to signed numbers), or, if "
            "the detector had different offsets, set data.accept: [zero-level]"
        )
        yield Fault("zero-level", groups[0][0].file, problem, remedy)


def _more(rows: Sequence[Row]) -> str:
    return f"(and {len(rows) - 1} more) " if len(rows) > 1 else ""


def _group_levels(
    levels: npt.NDArray[np.float64], labels: npt.NDArray[np.str_]
) -> npt.NDArray[np.int64] | None:
    """Return the group of each file, from the darkest, if gaps of thousands of counts separate groups.

    Otherwise return None. The gaps must be wide compared with the spread within groups, and the groups few; a
    ramp has no groups.
    """
    order = np.sort(levels)
    gaps = np.diff(order)
    wide = np.flatnonzero((gaps >= _MIN_GAP) & ((order[:-1] <= 0) | (order[1:] >= _MIN_RATIO * order[:-1])))
    found = None
    for count in range(1, len(wide) + 1):
        if count > 1 and count + 1 > len(levels) / 2:
            break
        cuts = np.sort(wide[np.argsort(-gaps[wide], kind="stable")[:count]])
        spread = max(float(np.ptp(group)) for group in np.split(order, cuts + 1))
        sides = np.searchsorted(order[cuts + 1], levels, side="right")
        # A network would learn a gap that separates the classes, so a smaller gap is reported then.
        if gaps[cuts].min() >= (1.0 if _match_classes(sides, labels) else _MIN_GAP_TO_SPREAD) * spread:
            found = np.asarray(sides, np.int64)
    return found


def _match_classes(groups: npt.NDArray[Any], labels: npt.NDArray[np.str_]) -> bool:
    """Return whether groups match the classes: their total variation distance is at least 0.8."""
    classes = np.unique(labels)
    if len(classes) != 2 or min((labels == name).sum() for name in classes) < _MIN_FILES:
        return False
    one, other = (groups[labels == name] for name in classes)
    distances = [abs(np.mean(one == group) - np.mean(other == group)) for group in np.unique(groups)]
    return bool(np.sum(distances) / 2 >= 0.8)


def _class_warning(groups: Iterable[Sequence[Row]], read: Read) -> str:
    """Return a warning if groups of files match the classes; files in no group are one more group."""
    labels = np.array([row.label for row, _, _ in read])
    group_of = {row.file: k for k, rows in enumerate(groups) for row in rows}
    if not _match_classes(np.array([group_of.get(row.file, -1) for row, _, _ in read]), labels):
        return ""
    return ". The difference is between the classes: a network would learn it instead of the cells"
