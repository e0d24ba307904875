"""What an experiment consists of: folds, the jobs of worker processes, and the runs of each fold."""

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
    """One fold, as indices into the pixels of the experiment.

    Attributes
    ----------
    train, test : int64 array
    low, high : float32 array [C]
        The intensity range, fitted on the training FOVs.
    """

    name: str
    train: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]
    low: Float32
    high: Float32


@dataclass(frozen=True)
class TrainingJob:
    """One network (or ``scratch``) of an experiment, all folds and runs.

    Attributes
    ----------
    pixels : Path
        NPY file [N, C, H, W] of all FOVs, raw counts.
    labels : bool array [N]
    groups : tuple of str or None
    files : tuple of str
        Of each FOV, for the predictions.
    """

    network: str
    config: Config
    plan: WeightsPlan
    pixels: Path
    labels: npt.NDArray[np.bool_]
    groups: tuple[str | None, ...]
    files: tuple[str, ...]
    folds: tuple[FoldData, ...]
    threads: int


@dataclass(frozen=True)
class Run:
    """One run of one fold: which FOVs are trained on and validated with, and their copies.

    Attributes
    ----------
    number : int
        From 1.
    train, held : int64 array
        Indices of the training FOVs, and of the validation FOVs.
    train_copies, held_copies : Copies
    seed : int
        What is random in this run follows from it.
    """

    fold: FoldData
    number: int
    train: npt.NDArray[np.int64]
    held: npt.NDArray[np.int64]
    train_copies: Copies
    held_copies: Copies
    seed: int


def draw_run(job: TrainingJob, fold: FoldData, number: int, height: int, width: int) -> Run:
    """Draw validation split and copies: others for each network and run.

    Parameters
    ----------
    height, width : int
        Of the images, in pixels.
    """
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
    """Draw some FOVs, half of each class; where a class has fewer, the other one fills up.

    Parameters
    ----------
    indices : int64 array [N]
        To draw from.
    labels : bool array
        Of all FOVs, those of other indices included.
    count : int
        How many at most.
    seed : int

    Returns
    -------
    int64 array
        Ascending.
    """
    rng = np.random.default_rng(seed)
    negative, positive = (rng.permutation(indices[labels[indices] == value]) for value in (False, True))
    half = count // 2
    from_positive = min(len(positive), max(half, count - len(negative)))
    drawn = np.concatenate([positive[:from_positive], negative[: count - from_positive]])
    return np.sort(drawn)
