"""The parts of an experiment: folds, the jobs of worker processes, and the runs of each fold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from senoscope_training.config import Config
from senoscope_training.dataset.splits import validation_split
from senoscope_training.networks.augmentation import Copies, plan_copies
from senoscope_training.networks.head import Float32
from senoscope_training.networks.seeds import derive_seed
from senoscope_training.networks.weights import WeightsPlan


@dataclass(frozen=True)
class FoldData:
    """The indices of a fold's FOVs, and the intensity range [C] that is fitted to its training FOVs."""

    name: str
    train: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]
    low: Float32
    high: Float32


@dataclass(frozen=True)
class TrainingJob:
    """All folds and runs of one network (or of ``scratch``)."""

    network: str
    config: Config
    plan: WeightsPlan
    pixels: Path
    """NPY file [N, C, H, W] with the raw counts of all FOVs."""
    labels: npt.NDArray[np.bool_]
    groups: tuple[str | None, ...]
    files: tuple[str, ...]
    """File of each FOV, for the predictions."""
    folds: tuple[FoldData, ...]
    threads: int


@dataclass(frozen=True)
class Run:
    """One run of one fold: the indices of its training and validation FOVs, and their copies."""

    fold: FoldData
    number: int
    train: npt.NDArray[np.int64]
    held: npt.NDArray[np.int64]
    train_copies: Copies
    held_copies: Copies
    seed: int


def draw_run(job: TrainingJob, fold: FoldData, number: int, height: int, width: int) -> Run:
    """Draw the validation split and the copies, which are different for each network and run."""
    config = job.config
    seed = derive_seed(config.seed, fold.name, number, job.network)
    labels = job.labels[fold.train]
    groups = tuple(job.groups[k] for k in fold.train)
    split = config.split
    train, held = validation_split(
        labels, groups, split.by, split.validation_fraction, derive_seed(seed, "validation")
    )
    train_copies, held_copies = (
        plan_copies(labels[part], height, width, config.augmentation, derive_seed(seed, "copies", side))
        for side, part in (("train", train), ("validation", held))
    )
    return Run(fold, number, fold.train[train], fold.train[held], train_copies, held_copies, seed)


def class_balanced(
    indices: npt.NDArray[np.int64], labels: npt.NDArray[np.bool_], count: int, seed: int
) -> npt.NDArray[np.int64]:
    """Draw at most ``count`` of the indices, half of each class; if a class has fewer, more of the other one.

    The labels are those of all FOVs; the result is sorted.
    """
    rng = np.random.default_rng(seed)
    negative, positive = (rng.permutation(indices[labels[indices] == value]) for value in (False, True))
    half = count // 2
    from_positive = min(len(positive), max(half, count - len(negative)))
    drawn = np.concatenate([positive[:from_positive], negative[: count - from_positive]])
    return np.sort(drawn)
