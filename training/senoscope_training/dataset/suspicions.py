"""What makes the files of one data set look as if they did not belong together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from senoscope_training.dataset.faults import Fault

if TYPE_CHECKING:
    from senoscope_training.dataset.reading import FileFacts
    from senoscope_training.dataset.table import Row

_APART = 1000.0  # counts between two groups of zero levels
_CLEAR = 3.0  # times what levels differ by within a group
_RATIO = 1.5  # of the levels on both sides: brighter lamps move a bright field by less
_FEW = 3  # files of a class
_WORD = re.compile(r"\w+")
_DIGITS = re.compile(r"\d+")


def suspect_channel_names(read: Sequence[tuple[Row, str, FileFacts]]) -> Iterator[Fault]:
    """A fault where files name their channels differently, and names were not used to order them."""
    kinds: dict[tuple[str, ...], list[Row]] = {}
    for row, _, facts in read:
        kinds.setdefault(facts.by_position, []).append(row)
    unused = {texts: rows for texts, rows in kinds.items() if texts}
    remedy = (
        "Name the channels in all files as data.channels does, or in the same order in all of them; if the "
        "order is right in all, set data.accept: [channel-names]"
    )
    pair = _different(unused)
    if pair is not None:
        first, second = pair
        problem = (
            f"says: {'; '.join(first)}. But {unused[second][0].file} says: {'; '.join(second)}"
            f"{_following(unused.values(), read)}"
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


def _different(unused: dict[tuple[str, ...], list[Row]]) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Two ways in which channels are named, if there are several and not one for each file.

    Labels often hold the name of the file that an image was made from, which says nothing of channels.
    """
    by_words: dict[tuple[str, ...], tuple[str, ...]] = {}
    for texts in unused:
        other = by_words.setdefault(tuple(sorted(_WORD.findall(" ".join(texts)))), texts)
        if other != texts:  # the same words in another order
            return other, texts
    by_letters: dict[str, list[tuple[str, ...]]] = {}
    for texts in unused:
        by_letters.setdefault(_DIGITS.sub("#", " ".join(texts)), []).append(texts)
    files = sum(len(rows) for rows in unused.values())
    if 1 < len(by_letters) <= files / 2:
        first, second, *_ = by_letters.values()
        return first[0], second[0]
    return None


def suspect_zero_levels(
    read: Sequence[tuple[Row, str, FileFacts]], channels: Sequence[str]
) -> Iterator[Fault]:
    """A fault for each channel whose darkest level is thousands of counts apart between files.

    Stored numbers then mean something else in some of them, as where one program adds 32,768 to signed
    numbers.
    """
    if len(read) < 2:
        return
    levels = np.array([facts.zero_levels for _, _, facts in read], np.float64)
    labels = np.array([row.label for row, _, _ in read])
    for c, channel in enumerate(channels):
        high = _apart(levels[:, c], labels)
        if high is None:
            continue
        groups = [
            [row for (row, _, _), up in zip(read, high, strict=True) if up == side] for side in (True, False)
        ]
        middles = [float(np.median(levels[high == side, c])) for side in (True, False)]
        problem = (
            f"{_more(groups[0])}has a zero level of {middles[0]:,.0f} in {channel}, "
            f"{groups[1][0].file} {_more(groups[1])}one of {middles[1]:,.0f}{_following(groups, read)}"
        )
        remedy = (
            "Save all files with the same offset (a program may have added 32,768 to signed numbers), or, if "
            "the detector was set so, data.accept: [zero-level]"
        )
        yield Fault("zero-level", groups[0][0].file, problem, remedy)


def _more(rows: Sequence[Row]) -> str:
    return f"(and {len(rows) - 1} more) " if len(rows) > 1 else ""


def _apart(levels: npt.NDArray[np.float64], labels: npt.NDArray[np.str_]) -> npt.NDArray[np.bool_] | None:
    """Which files are on the upper side of a gap of thousands; None where there is none."""
    order = np.sort(levels)
    gaps = np.diff(order)
    k = int(np.argmax(gaps))
    below, above = order[: k + 1], order[k + 1 :]
    spread = max(float(np.ptp(below)), float(np.ptp(above)))
    if gaps[k] < _APART or (below[-1] > 0 and above[0] < _RATIO * below[-1]):
        return None
    high = np.asarray(levels >= above[0])
    # Where the gap follows the class a network would learn it, and nothing else.
    if gaps[k] < (1.0 if _follows(high, labels) else _CLEAR) * spread:
        return None
    return high


def _follows(high: npt.NDArray[np.bool_], labels: npt.NDArray[np.str_]) -> bool:
    classes = np.unique(labels)
    if len(classes) != 2 or min((labels == name).sum() for name in classes) < _FEW:
        return False
    shares = [float(high[labels == name].mean()) for name in classes]
    return abs(shares[0] - shares[1]) >= 0.8


def _following(groups: Iterable[Sequence[Row]], read: Sequence[tuple[Row, str, FileFacts]]) -> str:
    """Words on groups of files that are the classes, or nothing."""
    labels = np.array([row.label for row, _, _ in read])
    first = {row.file for row in next(iter(groups))}
    if not _follows(np.array([row.file in first for row, _, _ in read]), labels):
        return ""
    return ". This follows the class: a network would learn it instead of the cells"
