"""A labelled data set: its files with their labels, groups and splits."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from senoscope_training.dataset.faults import Fault


class DataSetError(Exception):
    """A data set that cannot be used; the message lists every fault with its file and a remedy.

    ``faults`` are those in the message; there are none if the error does not concern single files.
    """

    def __init__(self, message: str, faults: tuple[Fault, ...] = ()) -> None:
        super().__init__(message)
        self.faults = faults


class FovError(DataSetError):
    """A file without a usable field of view, or a row or table that does not list one."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault), (fault,))
        self.fault = fault


@dataclass(frozen=True)
class Entry:
    """One labelled field of view."""

    file: str
    """Relative to the data set's folder, with forward slashes."""
    positive: bool
    """Whether it belongs to the positive class (senescent)."""
    group: str | None
    """Culture plate, donor or animal; a group must not be both in training and in test."""
    split: Literal["train", "test"] | None
    """The split in dataset.csv, if there is one."""
    sha256: str
    """Digest of the file's bytes, or of those of all its parts."""
    parts: tuple[str, ...] = ()
    """With one file per channel: the files of the channels, in their order."""


@dataclass(frozen=True)
class DataSet:
    """A labelled data set."""

    root: Path
    classes: tuple[str, ...]
    """The negative class and the positive one."""
    channels: tuple[str, ...]
    entries: tuple[Entry, ...]
    """Sorted by file name, independent of the file system and of the order of rows in dataset.csv."""

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def labels(self) -> npt.NDArray[np.bool_]:
        """Labels, bool [N]; True for the positive class."""
        return np.array([entry.positive for entry in self.entries], np.bool_)

    @property
    def groups(self) -> tuple[str | None, ...]:
        """Group of each entry."""
        return tuple(entry.group for entry in self.entries)

    def sha256(self) -> str:
        """Compute a digest of contents, labels and groups that is independent of file names and folders."""
        lines = sorted(f"{e.sha256} {int(e.positive)} {e.group or ''}" for e in self.entries)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@dataclass(frozen=True)
class Fold:
    """One division of a data set into training and test."""

    name: str
    """``split``, or the group that is tested on."""
    train: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]
    """Indices of entries, ascending."""
    note: str = ""
    """A limitation of the results of this fold; empty if there is none."""
