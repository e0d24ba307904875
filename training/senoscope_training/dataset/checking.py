"""What a data set is like: counts, leaks between training and test, intensities, faults."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from senoscope.engine.intensity import fit_range
from senoscope_training.config import DataConfig
from senoscope_training.dataset.faults import Fault
from senoscope_training.dataset.model import DataSet, Fold
from senoscope_training.dataset.ranges import measured
from senoscope_training.dataset.reading import FileFacts, Inspection, Warned, load_pixels
from senoscope_training.dataset.writing import is_synthetic
from senoscope_training.workers.progress import Report, silent

BINS = 32
PERCENTILES = (1, 25, 50, 75, 99)
_NEAR = 4  # of 256 bits

LeakKind = Literal["group", "identical file", "identical pixels", "similar pixels"]


@dataclass(frozen=True)
class Leak:
    """Something that training and test share.

    Attributes
    ----------
    kind : str
    what : str
        The group, or the files.
    folds : tuple of str
        Folds that have it on both sides; empty where it is on one side, or no split is known.
    """

    kind: LeakKind
    what: str
    folds: tuple[str, ...]


@dataclass(frozen=True)
class ChannelStats:
    """Intensities of one channel over all fields of view.

    Attributes
    ----------
    percentiles : dict of str to float
        The first, 25th, 50th, 75th and 99th.
    histogram : tuple of int
        Pixels in 32 bins of equal width from ``min`` to ``max``.
    at_type_max : float or None
        Fraction of the pixels at the largest value of their type; None for floats.
    at_max : float
        Fraction at the largest value there is, which tells of detectors that clip below their type.
    low, high : float
        Range that training would map to 0..255.
    above_range : float
        Fraction of the pixels above that range.
    """

    name: str
    min: float
    percentiles: dict[str, float]
    max: float
    histogram: tuple[int, ...]
    at_type_max: float | None
    at_max: float
    low: float
    high: float
    above_range: float


@dataclass(frozen=True)
class CheckReport:
    """What `senoscope-train check` tells.

    Attributes
    ----------
    counts : dict
        Of each class.
    groups, splits : dict of dict
        Counts of each class per group, and per side of each fold or of the column ``split``.
    sizes, dtypes : dict
        Number of files per ``<height>x<width>`` and per type.
    leaks : tuple of Leak
    warnings : tuple of Warned
        What was assumed about files.
    notes : tuple of str
        What was passed over, why a split is not told, and what to know of folds.
    """

    path: str
    classes: tuple[str, str]
    size: str
    counts: dict[str, int]
    groups: dict[str, dict[str, int]]
    splits: dict[str, dict[str, int]]
    sizes: dict[str, int]
    dtypes: dict[str, int]
    channels: tuple[ChannelStats, ...]
    leaks: tuple[Leak, ...]
    faults: tuple[Fault, ...]
    notes: tuple[str, ...] = field(default=())
    warnings: tuple[Warned, ...] = field(default=())

    @property
    def usable(self) -> bool:
        """Whether there is no fault; leaks are for people to judge."""
        return not self.faults

    def document(self) -> dict[str, Any]:
        """As plain dictionaries and lists, for JSON."""
        return {**asdict(self), "usable": self.usable}


def check(
    inspection: Inspection,
    config: DataConfig,
    folds: Sequence[Fold] = (),
    *,
    k_iqr: float = 3.5,
    notes: tuple[str, ...] = (),
    pixels: npt.NDArray[Any] | None = None,
    report: Report = silent,
) -> CheckReport:
    """Look at a data set.

    Parameters
    ----------
    inspection : Inspection
        Of a data set with or without faults; what can be used of it is described.
    config : DataConfig
    folds : sequence of Fold
        How it would be divided, if that is known.
    k_iqr : float
        As training uses it.
    notes : tuple of str
        To be told with the rest.
    pixels : array [N, C, H, W], optional
        Of all entries, if they are loaded already.
    """
    data_set = inspection.data_set
    if pixels is None:
        pixels = load_pixels(data_set, range(len(data_set)), config, inspection.size, report)
    entries = data_set.entries
    groups = {group: _counts(data_set, group) for group in sorted(set(filter(None, data_set.groups)))}
    sizes = Counter(f"{facts.height}x{facts.width}" for facts in inspection.facts)
    dtypes = Counter(facts.dtype for facts in inspection.facts)
    return CheckReport(
        path=str(config.path),
        classes=data_set.classes,
        size=f"{inspection.size.height}x{inspection.size.width}",
        counts=_labelled(data_set, range(len(entries))),
        groups=groups,
        splits=_splits(data_set, folds),
        sizes=dict(sizes.most_common()),
        dtypes=dict(dtypes.most_common()),
        channels=_stats(pixels, config, k_iqr) if len(entries) else (),
        leaks=find_leaks(data_set, inspection.facts, folds or _column_fold(data_set)),
        faults=inspection.faults,
        notes=(*_drawn(data_set), *inspection.notes, *notes, *(fold.note for fold in folds if fold.note)),
        warnings=inspection.warnings,
    )


def _drawn(data_set: DataSet) -> tuple[str, ...]:
    return ("these fields of view are synthetic, not for science",) if is_synthetic(data_set) else ()


def _stats(pixels: npt.NDArray[Any], config: DataConfig, k_iqr: float) -> tuple[ChannelStats, ...]:
    return channel_stats(measured(pixels, padded=config.fit == "pad"), config.channels, k_iqr)


def channel_stats(
    pixels: npt.NDArray[Any], names: tuple[str, ...], k_iqr: float = 3.5
) -> tuple[ChannelStats, ...]:
    """Intensities of each channel of fields of view [N, C, H, W]."""
    lows, highs = fit_range(pixels, k_iqr)
    stats = []
    for c, name in enumerate(names):
        values = pixels[:, c].ravel()
        low, high = float(values.min()), float(values.max())
        marks = np.percentile(values, PERCENTILES)
        whole = values.dtype.kind == "u"
        histogram, _ = np.histogram(values, BINS, (low, high if high > low else low + 1))
        stats.append(
            ChannelStats(
                name=name,
                min=low,
                percentiles={str(p): float(mark) for p, mark in zip(PERCENTILES, marks, strict=True)},
                max=high,
                histogram=tuple(map(int, histogram)),
                at_type_max=float(np.mean(values == np.iinfo(values.dtype).max)) if whole else None,
                at_max=float(np.mean(values == values.max())),
                low=float(lows[c]),
                high=float(highs[c]),
                above_range=float(np.mean(values > highs[c])),
            )
        )
    return tuple(stats)


def find_leaks(data_set: DataSet, facts: Sequence[FileFacts], folds: Sequence[Fold] = ()) -> tuple[Leak, ...]:
    """Groups on both sides of a fold, and pairs of files that are the same or nearly so.

    Same files and pixels are told wherever they are. Similar ones are told across the sides of a fold, or,
    without folds, across groups: within a plate, fields of view may overlap.
    """
    leaks: list[Leak] = []
    groups = np.array([group or "" for group in data_set.groups])
    for group in sorted(set(filter(None, data_set.groups))):
        members = np.flatnonzero(groups == group)
        shared = tuple(
            fold.name
            for fold in folds
            if np.isin(members, fold.train).any() and np.isin(members, fold.test).any()
        )
        if shared:
            leaks.append(Leak("group", group, shared))
    sides = [_sides(len(data_set), fold) for fold in folds]
    for one, other, kind in _alike(data_set, facts):
        apart = tuple(
            fold.name for fold, side in zip(folds, sides, strict=True) if side[one] * side[other] == -1
        )
        if kind == "similar pixels" and not (apart or (not folds and groups[one] != groups[other])):
            continue
        entries = data_set.entries
        leaks.append(Leak(kind, f"{entries[one].file} and {entries[other].file}", apart))
    return tuple(leaks)


def _sides(count: int, fold: Fold) -> npt.NDArray[np.int8]:
    sides = np.zeros(count, np.int8)
    sides[fold.train], sides[fold.test] = -1, 1
    return sides


def _alike(data_set: DataSet, facts: Sequence[FileFacts]) -> list[tuple[int, int, LeakKind]]:
    """Pairs of entries that are alike; of several copies each is paired with the first."""
    found: list[tuple[int, int, LeakKind]] = []
    first_file: dict[str, int] = {}
    first_pixels: dict[str, int] = {}
    originals: list[int] = []
    for n, (entry, fact) in enumerate(zip(data_set.entries, facts, strict=True)):
        same_file = first_file.setdefault(entry.sha256, n)
        same_pixels = first_pixels.setdefault(fact.pixel_sha256, n)
        if same_file != n:
            found.append((same_file, n, "identical file"))
        elif same_pixels != n:
            found.append((same_pixels, n, "identical pixels"))
        elif fact.average_hash is not None:
            originals.append(n)
    if not originals:
        return found
    hashes = np.array([np.frombuffer(facts[n].average_hash or b"", np.uint8) for n in originals])
    for row, n in enumerate(originals):
        distance = np.bitwise_count(hashes[row + 1 :] ^ hashes[row]).sum(axis=1)
        near = np.flatnonzero(distance <= _NEAR) + row + 1
        found += [(n, originals[other], "similar pixels") for other in near]
    return found


def _labelled(data_set: DataSet, indices: Sequence[int] | npt.NDArray[np.int64]) -> dict[str, int]:
    positive = sum(data_set.entries[int(index)].positive for index in indices)
    return {data_set.classes[0]: len(indices) - positive, data_set.classes[1]: positive}


def _counts(data_set: DataSet, group: str) -> dict[str, int]:
    return _labelled(data_set, [n for n, one in enumerate(data_set.groups) if one == group])


def _column_fold(data_set: DataSet) -> tuple[Fold, ...]:
    """The fold that dataset.csv tells, complete or not."""
    train, test = (
        np.array([n for n, entry in enumerate(data_set.entries) if entry.split == side], np.int64)
        for side in ("train", "test")
    )
    return (Fold("split", train, test),) if len(train) and len(test) else ()


def _splits(data_set: DataSet, folds: Sequence[Fold]) -> dict[str, dict[str, int]]:
    return {
        f"{fold.name}: {side}": _labelled(data_set, indices)
        for fold in folds or _column_fold(data_set)
        for side, indices in (("train", fold.train), ("test", fold.test))
    }
