"""Splits of a data set into training and test, and of training into training and validation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from senoscope_training.config import SplitConfig
from senoscope_training.dataset.faults import suggest
from senoscope_training.dataset.model import DataSet, DataSetError, Fold

Indices = npt.NDArray[np.int64]

_FOLDS, _VALIDATION = 1, 2  # streams of random numbers
_CANDIDATES = 4096
_MAX_GROUPS_EXHAUSTIVE = 12  # with more groups, not all subsets are tried
# Other files in the folder of an experiment, where each fold has a folder; names that Windows reserves.
_RESERVED_NAMES = (
    *("config.yaml", "provenance.json", "report", "backbones", "tensorboard", "pixels.npy", "pixels.json"),
    *("con", "prn", "aux", "nul"),
)


def make_folds(data_set: DataSet, split: SplitConfig, seed: int) -> tuple[Fold, ...]:
    """Split a data set into training and test.

    The same seed splits the same data set in the same way on every machine. The result is one fold with the
    name ``split``; with ``leave-one-group-out`` one fold per group, with its name.

    Raises
    ------
    DataSetError
        If the split needs groups or a column that the data set does not have, or if a side would not
        contain both classes.
    """
    labels = data_set.labels
    if split.by == "column":
        return (_by_column(data_set),)
    if split.by == "fov":
        test = _stratified(labels, split.test_fraction, _rng(seed, _FOLDS))
        if test is None:
            raise DataSetError("split.by: fov needs two fields of view of each class; add more")
        return (_fold("split", ~test, test),)
    groups = _known_groups(data_set, split.by)
    if split.by == "group":
        test = _whole_groups(labels, groups, split.test_fraction, _rng(seed, _FOLDS))
        if test is None:
            raise DataSetError(
                f"no split of the {len(set(groups))} groups has both classes in training and in test: "
                f"{_distribution(data_set)}. Each class must be in at least two groups; add more, or set "
                "split.by: fov, whose results are too optimistic"
            )
        return (_fold("split", ~test, test),)
    return _leave_one_out(data_set, groups, split.groups)


def validation_split(
    labels: npt.NDArray[np.bool_], groups: Sequence[str | None], by: str, fraction: float, seed: int
) -> tuple[Indices, Indices]:
    """Split training FOVs into training and validation (for early stopping).

    Parameters
    ----------
    labels : bool array [N]
    groups : sequence of str or None [N]
    by : str
        As in `SplitConfig`. With ``group`` and ``leave-one-group-out`` whole groups are drawn if there are
        at least three that can be split; otherwise single FOVs of each class.
    fraction : float
        Fraction of each class for validation.

    Returns
    -------
    train, validation : int64 array
        Positions in ``labels``, ascending. Both arrays contain both classes.

    Raises
    ------
    DataSetError
        If a class has fewer than two FOVs.
    """
    chosen = None
    known = [group for group in groups if group is not None]
    if by in ("group", "leave-one-group-out") and len(known) == len(groups) and len(set(known)) >= 3:
        chosen = _whole_groups(labels, known, fraction, _rng(seed, _VALIDATION))
    if chosen is None:
        chosen = _stratified(labels, fraction, _rng(seed, _VALIDATION))
    if chosen is None:
        raise DataSetError(
            "validation needs two training fields of view of each class; add more, or test on fewer"
        )
    return np.flatnonzero(~chosen).astype(np.int64), np.flatnonzero(chosen).astype(np.int64)


class FileRecord(TypedDict):
    """A file of a data set, and its digest."""

    file: str
    sha256: str


class FoldRecord(TypedDict):
    """A fold as the provenance of an experiment records it."""

    train: list[FileRecord]
    test: list[FileRecord]
    note: str


def split_record(data_set: DataSet, folds: Sequence[Fold]) -> dict[str, FoldRecord]:
    """Return the files of each side with their digests, by the name of the fold."""

    def side(indices: Indices) -> list[FileRecord]:
        entries = [data_set.entries[index] for index in indices]
        return [{"file": entry.file, "sha256": entry.sha256} for entry in entries]

    return {
        fold.name: {"train": side(fold.train), "test": side(fold.test), "note": fold.note} for fold in folds
    }


def _rng(seed: int, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(stream,))))


def _fold(name: str, train: npt.NDArray[np.bool_], test: npt.NDArray[np.bool_], note: str = "") -> Fold:
    return Fold(name, np.flatnonzero(train).astype(np.int64), np.flatnonzero(test).astype(np.int64), note)


def _both(labels: npt.NDArray[np.bool_]) -> bool:
    return bool(labels.any() and not labels.all())


def _by_column(data_set: DataSet) -> Fold:
    without_split = [entry.file for entry in data_set.entries if entry.split is None]
    if without_split:
        raise DataSetError(
            "split.by: column needs a column `split` in dataset.csv with train or test in each row; "
            f"{len(without_split)} files have none, for example {without_split[0]}. Add it, or set split.by: "
            "fov or group"
        )
    test = np.array([entry.split == "test" for entry in data_set.entries], np.bool_)
    for name, chosen in (("train", ~test), ("test", test)):
        if not _both(data_set.labels[chosen]):
            raise DataSetError(
                f"in the column `split` of dataset.csv, {name} does not have both classes, "
                f"{' and '.join(data_set.classes)}; write {name} in rows of both"
            )
    return _fold("split", ~test, test)


def _stratified(
    labels: npt.NDArray[np.bool_], fraction: float, rng: np.random.Generator
) -> npt.NDArray[np.bool_] | None:
    """Draw a fraction of each class, at least one and not all; return None if that is impossible."""
    chosen = np.zeros(len(labels), np.bool_)
    for positive in (False, True):
        members = np.flatnonzero(labels == positive)
        if len(members) < 2:
            return None
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        chosen[rng.permutation(members)[:count]] = True
    return chosen


def _whole_groups(
    labels: npt.NDArray[np.bool_], groups: Sequence[str], fraction: float, rng: np.random.Generator
) -> npt.NDArray[np.bool_] | None:
    """Draw whole groups closest to a fraction of each class; return None if a side would lack a class."""
    names, member_of = np.unique(np.array(groups), return_inverse=True)
    counts = np.zeros((len(names), 2))
    np.add.at(counts, (member_of, labels.astype(np.int64)), 1)
    totals = counts.sum(axis=0)
    subsets = _subsets(len(names), counts, fraction, rng)
    taken = subsets @ counts
    possible = ((taken > 0) & (taken < totals)).all(axis=1)
    if not possible.any():
        return None
    distance = np.abs(taken / np.maximum(totals, 1) - fraction).sum(axis=1)
    best = int(np.argmin(np.where(possible, distance, np.inf)))
    return np.asarray(subsets[best][member_of], np.bool_)


def _subsets(
    groups: int, counts: npt.NDArray[np.float64], fraction: float, rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Return subsets of the groups, bool [K, groups], in random order: all, or many of the right size."""
    if groups <= _MAX_GROUPS_EXHAUSTIVE:
        numbers = rng.permutation(2**groups)
        return np.asarray(numbers[:, None] >> np.arange(groups) & 1, np.bool_)
    sizes = counts.sum(axis=1)
    subsets = np.zeros((_CANDIDATES, groups), np.bool_)
    for subset in subsets:
        order = rng.permutation(groups)
        filled = np.cumsum(sizes[order])
        last = int(np.argmin(np.abs(filled - fraction * sizes.sum())))
        subset[order[: last + 1]] = True
    return subsets


def _known_groups(data_set: DataSet, by: str) -> list[str]:
    groups = [group for group in data_set.groups if group is not None]
    if len(groups) < len(data_set):
        bare = [entry.file for entry in data_set.entries if entry.group is None]
        raise DataSetError(
            f"split.by: {by} needs a group (culture plate, donor) of each file; {len(bare)} have none, for "
            f"example {bare[0]}. Fill the column `group` of dataset.csv, or sort the files into "
            "<group>/<label>/"
        )
    if len(set(groups)) < 2:
        raise DataSetError(
            f"split.by: {by} needs at least two groups, but all files are of {groups[0]!r}; set split.by: fov"
        )
    return groups


def _distribution(data_set: DataSet) -> str:
    """Describe the number of fields of view of each class in each group, for messages."""
    counts = []
    for group in sorted(set(filter(None, data_set.groups))):
        labels = [entry.positive for entry in data_set.entries if entry.group == group]
        negative, positive = data_set.classes
        counts.append(f"{group} has {len(labels) - sum(labels)} {negative} and {sum(labels)} {positive}")
    return "; ".join(counts[:20])


def _leave_one_out(data_set: DataSet, groups: list[str], wanted: tuple[str, ...]) -> tuple[Fold, ...]:
    labels = data_set.labels
    names = sorted(set(groups))
    for name in wanted:
        if name not in names:
            raise DataSetError(
                f"split.groups has {name!r}, which is not a group of the data set{suggest(name, names)}; "
                f"the groups are {', '.join(names[:20])}"
            )
    folds: list[Fold] = []
    used: set[str] = set()
    for group in (name for name in names if not wanted or name in wanted):
        test = np.array([one == group for one in groups], np.bool_)
        if not _both(labels[~test]):
            raise DataSetError(
                f"without the group {group!r}, training does not have both classes: "
                f"{_distribution(data_set)}. Set split.groups to the groups to test on, or add fields of view"
            )
        note = ""
        if not _both(labels[test]):
            only = data_set.classes[int(labels[test][0])]
            note = f"the group {group} has only {only}: no AUC, and precision or recall are meaningless"
        folds.append(_fold(_folder_name(group, used), ~test, test, note))
    return tuple(folds)


def _folder_name(group: str, used: set[str]) -> str:
    """Return a name that is valid and unused on every file system, also on those that ignore case."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", group).strip("._")[:60] or "group"
    if plain.casefold() in _RESERVED_NAMES or plain.partition(".")[0].casefold() in _RESERVED_NAMES:
        plain = f"group_{plain}"
    name, number = plain, 2
    while name.casefold() in used:
        name, number = f"{plain}_{number}", number + 1
    used.add(name.casefold())
    return name
