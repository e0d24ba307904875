"""The check of a data set: counts, leaks between training and test, intensities, faults."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from senoscope.engine.intensity import fit_range
from senoscope_training.config import DataConfig
from senoscope_training.dataset.faults import Fault
from senoscope_training.dataset.model import DataSet, Fold
from senoscope_training.dataset.ranges import measured_pixels
from senoscope_training.dataset.reading import FileFacts, Inspection, ReadWarning
from senoscope_training.dataset.writing import is_synthetic

BINS = 32
PERCENTILES = (1, 25, 50, 75, 99)
_MAX_DISTANCE = 4  # of 256 bits, between similar images

LeakKind = Literal["group", "identical file", "identical pixels", "similar pixels"]


@dataclass(frozen=True)
class Leak:
    """A group, or a pair of equal or similar files, that may be both in training and in test."""

    kind: LeakKind
    what: str
    """The group, or the files."""
    folds: tuple[str, ...]
    """Folds that have it on both sides; empty if it is on one side, or if no split is known."""


@dataclass(frozen=True)
class ChannelStats:
    """Intensities of one channel over all fields of view."""

    name: str
    min: float
    percentiles: dict[str, float]
    """The 1st, 25th, 50th, 75th and 99th percentile."""
    max: float
    histogram: tuple[int, ...]
    """Numbers of pixels in 32 bins of equal width from ``min`` to ``max``."""
    at_type_max: float | None
    """Fraction of the pixels at the maximum of their data type; None for floats."""
    at_max: float
    """Fraction of the pixels at the largest value; large if the detector clips below the maximum of the data
    type."""
    low: float
    high: float
    """Range that training would map to 0..255."""
    above_range: float
    """Fraction of the pixels above that range."""


@dataclass(frozen=True)
class CheckReport:
    """The result of `senoscope-train check`."""

    path: str
    classes: tuple[str, ...]
    size: str
    counts: dict[str, int]
    """Number of fields of view of each class."""
    groups: dict[str, dict[str, int]]
    """The same per group."""
    splits: dict[str, dict[str, int]]
    """The same per side of each fold, or of the column ``split``."""
    sizes: dict[str, int]
    dtypes: dict[str, int]
    """Number of files per ``<height>x<width>`` and per data type."""
    channels: tuple[ChannelStats, ...]
    leaks: tuple[Leak, ...]
    faults: tuple[Fault, ...]
    notes: tuple[str, ...] = field(default=())
    """Skipped files, the reason why there is no split, and limitations of folds."""
    warnings: tuple[ReadWarning, ...] = field(default=())
    """Assumptions about files, and faults that data.accept accepts."""

    @property
    def usable(self) -> bool:
        """Whether there are no faults; leaks are reported, but do not prevent training."""
        return not self.faults


def check(
    inspection: Inspection,
    config: DataConfig,
    folds: Sequence[Fold] = (),
    *,
    k_iqr: float = 3.5,
    notes: tuple[str, ...] = (),
) -> CheckReport:
    """Describe the usable part of a data set, with or without faults.

    The folds are those of the training, if they are known, and ``notes`` are further ones for the report.
    """
    data_set = inspection.data_set
    pixels = measured_pixels(inspection.pixels, padded=config.fit == "pad")
    synthetic = ("these fields of view are synthetic, not for science",) if is_synthetic(data_set) else ()
    known = folds or _column_fold(data_set)
    limits = (fold.note for fold in folds if fold.note)
    sizes = Counter(f"{facts.height}x{facts.width}" for facts in inspection.facts)
    dtypes = Counter(facts.dtype for facts in inspection.facts)
    return CheckReport(
        path=str(config.path),
        classes=data_set.classes,
        size=f"{inspection.size.height}x{inspection.size.width}",
        counts=_class_counts(data_set, range(len(data_set))),
        groups={
            group: _class_counts(data_set, [n for n, one in enumerate(data_set.groups) if one == group])
            for group in sorted(set(filter(None, data_set.groups)))
        },
        splits={
            f"{fold.name}: {side}": _class_counts(data_set, indices)
            for fold in known
            for side, indices in (("train", fold.train), ("test", fold.test))
        },
        sizes=dict(sizes.most_common()),
        dtypes=dict(dtypes.most_common()),
        channels=channel_stats(pixels, config.channels, k_iqr) if len(data_set) else (),
        leaks=find_leaks(data_set, inspection.facts, known),
        faults=inspection.faults,
        notes=(*synthetic, *inspection.notes, *notes, *limits),
        warnings=inspection.warnings,
    )


def channel_stats(
    pixels: npt.NDArray[Any], names: tuple[str, ...], k_iqr: float = 3.5
) -> tuple[ChannelStats, ...]:
    """Compute the intensity statistics of each channel of fields of view [N, C, H, W]."""
    lows, highs = fit_range(pixels, k_iqr)
    stats = []
    for c, name in enumerate(names):
        values = pixels[:, c].ravel()
        low, high = float(values.min()), float(values.max())
        percentiles = np.percentile(values, PERCENTILES)
        is_integer = values.dtype.kind == "u"
        histogram, _ = np.histogram(values, BINS, (low, high if high > low else low + 1))
        stats.append(
            ChannelStats(
                name=name,
                min=low,
                percentiles={str(p): float(q) for p, q in zip(PERCENTILES, percentiles, strict=True)},
                max=high,
                histogram=tuple(map(int, histogram)),
                at_type_max=float(np.mean(values == np.iinfo(values.dtype).max)) if is_integer else None,
                at_max=float(np.mean(values == values.max())),
                low=float(lows[c]),
                high=float(highs[c]),
                above_range=float(np.mean(values > highs[c])),
            )
        )
    return tuple(stats)


def find_leaks(data_set: DataSet, facts: Sequence[FileFacts], folds: Sequence[Fold] = ()) -> tuple[Leak, ...]:
    """Find groups on both sides of a fold, and pairs of files with equal or similar contents.

    Equal files and pixels are always reported. Similar pixels are reported only between the two sides of a
    fold, or, without folds, between groups: fields of view of one plate may overlap.
    """
    leaks: list[Leak] = []
    groups = np.array([group or "" for group in data_set.groups])
    sides = np.zeros((len(folds), len(data_set)), np.int8)
    for side, fold in zip(sides, folds, strict=True):
        side[fold.train], side[fold.test] = -1, 1

    def divided(members: list[int] | npt.NDArray[np.int64]) -> tuple[str, ...]:
        """Return the folds with some of the members on either side."""
        return tuple(f.name for f, side in zip(folds, sides, strict=True) if {-1, 1} <= {*side[members]})

    for group in sorted(set(filter(None, data_set.groups))):
        members = np.flatnonzero(groups == group)
        if shared := divided(members):
            leaks.append(Leak("group", group, shared))
    for one, other, kind in _similar_pairs(data_set, facts):
        apart = divided([one, other])
        if kind == "similar pixels" and not (apart or (not folds and groups[one] != groups[other])):
            continue
        entries = data_set.entries
        leaks.append(Leak(kind, f"{entries[one].file} and {entries[other].file}", apart))
    return tuple(leaks)


def _similar_pairs(data_set: DataSet, facts: Sequence[FileFacts]) -> list[tuple[int, int, LeakKind]]:
    """Find pairs of equal or similar entries; each of several copies is paired with the first."""
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
        similar = np.flatnonzero(distance <= _MAX_DISTANCE) + row + 1
        found += [(n, originals[other], "similar pixels") for other in similar]
    return found


def _class_counts(data_set: DataSet, indices: Sequence[int] | npt.NDArray[np.int64]) -> dict[str, int]:
    positive = sum(data_set.entries[int(index)].positive for index in indices)
    return {data_set.classes[0]: len(indices) - positive, data_set.classes[1]: positive}


def _column_fold(data_set: DataSet) -> tuple[Fold, ...]:
    """Return the fold in dataset.csv, even if some entries have no split."""
    train, test = (
        np.array([n for n, entry in enumerate(data_set.entries) if entry.split == side], np.int64)
        for side in ("train", "test")
    )
    return (Fold("split", train, test),) if len(train) and len(test) else ()
