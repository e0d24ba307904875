"""A labelled data set in memory: which files there are and what is known of each."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from senoscope_training.dataset.faults import Fault


class DataSetError(Exception):
    """A data set that cannot be used; the message lists every fault with its file and what to do.

    Attributes
    ----------
    faults : tuple of Fault
        The same, one by one; empty where the error is not of single files.
    """

    def __init__(self, message: str, faults: tuple[Fault, ...] = ()) -> None:
        super().__init__(message)
        self.faults = faults


class FovError(DataSetError):
    """A file that holds no usable field of view."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault), (fault,))
        self.fault = fault


@dataclass(frozen=True)
class Entry:
    """One labelled field of view.

    Attributes
    ----------
    file : str
        Relative to the data set's folder, with forward slashes.
    positive : bool
        Whether it is of the positive class (senescent).
    group : str or None
        Culture plate, donor, animal: whatever must not be in training and test at once.
    split : {"train", "test"} or None
        Where the data set says so itself.
    sha256 : str
        Of the file's bytes, or of those of all its parts.
    parts : tuple of str
        The files of its channels in their order, where each lies in a file of its own.
    """

    file: str
    positive: bool
    group: str | None
    split: Literal["train", "test"] | None
    sha256: str
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataSet:
    """A labelled data set.

    Attributes
    ----------
    root : Path
    classes : tuple of str
        The negative class and the positive one.
    channels : tuple of str
    entries : tuple of Entry
        In the order of their file names, which no file system and no order of rows changes.
    """

    root: Path
    classes: tuple[str, str]
    channels: tuple[str, ...]
    entries: tuple[Entry, ...]

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def labels(self) -> npt.NDArray[np.bool_]:
        """True for the positive class, bool [N]."""
        return np.array([entry.positive for entry in self.entries], np.bool_)

    @property
    def groups(self) -> tuple[str | None, ...]:
        """Group of each entry."""
        return tuple(entry.group for entry in self.entries)

    def sha256(self) -> str:
        """Over contents, labels and groups, whatever the files are called and wherever they lie."""
        lines = sorted(f"{e.sha256} {int(e.positive)} {e.group or ''}" for e in self.entries)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@dataclass(frozen=True)
class Fold:
    """One division of a data set into training and test.

    Attributes
    ----------
    name : str
        ``split``, or the group that was left out.
    train, test : int64 array
        Indices of entries, ascending.
    note : str
        What the reader of its results must know; empty if nothing.
    """

    name: str
    train: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]
    note: str = ""
