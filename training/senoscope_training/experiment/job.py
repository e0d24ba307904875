"""What a worker process does: one network through all folds and runs, or the CNN from scratch."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from senoscope.engine.answers import all_same
from senoscope_training.config import Config
from senoscope_training.dataset.ranges import measured_range
from senoscope_training.dataset.splits import validation_split
from senoscope_training.experiment.folder import (
    UnitResult,
    Validation,
    read_unit,
    run_folder,
    units_of,
    write_unit,
)
from senoscope_training.experiment.systems import CHANNELS_OF
from senoscope_training.experiment.variant import Variant, phase_history
from senoscope_training.networks.augmentation import Copies, plan_copies
from senoscope_training.networks.fitting import Checkpoint, Watch
from senoscope_training.networks.images import (
    ImageExamples,
    Preprocess,
    augmented_range,
    scale_to_images,
)
from senoscope_training.networks.seeds import derive_seed
from senoscope_training.networks.weights import WeightsPlan
from senoscope_training.workers.pool import tell
from senoscope_training.workers.progress import Progress

Float32 = npt.NDArray[np.float32]

_BATCH_NORM_FOVS = 10
_TELL_EVERY_S = 0.5


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
    """One run of one fold: what is trained on, scaled."""

    fold: FoldData
    number: int
    train: npt.NDArray[np.int64]
    held: npt.NDArray[np.int64]
    train_copies: Copies
    held_copies: Copies
    seed: int


def run_training(job: TrainingJob) -> None:
    """Do all units of a job that are not done yet."""
    Worker(job).run()


class Worker:
    """Does a job's units, one run after another."""

    def __init__(self, job: TrainingJob) -> None:
        self.job = job
        self.config = job.config
        self.pixels = np.load(job.pixels, mmap_mode="r")
        self.network: Any = None
        self.extract: Any = None
        self.statistics_of = ""
        self.last_told_s = 0.0
        self.writers: list[Any] = []
        suffix = job.network if job.network == "scratch" else f".{job.network}"
        self.units = [unit for unit in units_of(self.config) if unit.endswith(suffix)]

    def run(self) -> None:
        """Do every unit that has no result yet."""
        steps = [(fold, run) for fold in self.job.folds for run in range(1, self.config.runs + 1)]
        for fold, number in steps:
            missing = [
                unit
                for unit in self.units
                if read_unit(self.config.directory, fold.name, number, unit) is None
            ]
            if missing:
                self._run(self._draw(fold, number), missing)
        tell(Progress("done", self.job.network, f"{len(steps)} runs"))
        if self.network is not None:
            import keras

            self.network = self.extract = None
            keras.backend.clear_session()
            gc.collect()

    def _draw(self, fold: FoldData, number: int) -> Run:
        """Validation split and copies: others for each network and run."""
        seed = derive_seed(self.config.seed, fold.name, number, self.job.network)
        labels = self.job.labels[fold.train]
        groups = tuple(self.job.groups[k] for k in fold.train)
        split = self.config.split
        train, held = validation_split(
            labels, groups, split.by, split.validation_fraction, derive_seed(seed, "validation")
        )
        height, width = self.pixels.shape[2:]
        copies = [
            plan_copies(
                labels[part], height, width, self.config.augmentation, derive_seed(seed, "copies", side)
            )
            for side, part in (("train", train), ("validation", held))
        ]
        return Run(fold, number, fold.train[train], fold.train[held], copies[0], copies[1], seed)

    def _run(self, run: Run, missing: list[str]) -> None:
        if missing == ["scratch"]:
            self._scratch(run)
            return
        variants: dict[tuple[int, ...] | None, list[str]] = {}
        for unit in missing:
            variants.setdefault(CHANNELS_OF.get(unit.split(".")[0]), []).append(unit)
        for kept, units in variants.items():
            Variant(self, run, kept).do([unit.split(".")[0] for unit in units])

    def images(
        self, run: Run, kept: tuple[int, ...] | None, preprocess: Preprocess
    ) -> tuple[ImageExamples, ImageExamples, npt.NDArray[np.uint8]]:
        """Examples of the training and the validation FOVs, and scaled images of the test FOVs."""
        train = self._examples(run, run.train, run.train_copies, kept, preprocess)
        held = self._examples(run, run.held, run.held_copies, kept, preprocess)
        raw = self.pixels[run.fold.test]
        low, high = run.fold.low, run.fold.high
        if self._each_split:  # test FOVs have no copies
            low, high = measured_range(raw, self.config.normalization.k_iqr, padded=self._padded)
        return train, held, scale_to_images(raw, low, high, kept)

    def _examples(
        self,
        run: Run,
        indices: npt.NDArray[np.int64],
        copies: Copies,
        kept: tuple[int, ...] | None,
        preprocess: Preprocess,
    ) -> ImageExamples:
        raw, labels = self.pixels[indices], self.job.labels[indices]
        if not self._each_split:
            images = scale_to_images(raw, run.fold.low, run.fold.high, kept)
            return ImageExamples(images, labels, copies, preprocess)
        counts = np.ascontiguousarray(raw.transpose(0, 2, 3, 1))
        low, high = augmented_range(counts, copies, self.config.normalization.k_iqr, padded=self._padded)
        return ImageExamples(
            counts,
            labels,
            copies,
            preprocess,
            lambda some: scale_to_images(some.transpose(0, 3, 1, 2), low, high, kept),
        )

    @property
    def _each_split(self) -> bool:
        return self.config.normalization.fitted_on == "each_split"

    @property
    def _padded(self) -> bool:
        return self.config.data.fit == "pad"

    def open_network(self, fold: FoldData) -> Any:
        """The trainable network, made for the first unit that needs it.

        A random backbone has the batch-norm statistics of this fold's training FOVs: those of another fold
        would have seen this one's test FOVs.
        """
        if self.network is None:
            from senoscope_training.networks.trainable import TrainableNetwork

            tell(Progress("weights", self.job.network, self.job.plan.words))
            self.network = TrainableNetwork(
                self.job.network,
                self.job.plan,
                derive_seed(self.config.seed, "backbone", self.job.network),
                self._statistics_sample(fold),
                self.config.head,
            )
        elif self.job.plan.random and self.statistics_of != fold.name:
            self.network.take_statistics(self._statistics_sample(fold))
            self.extract = None  # an exported copy holds the old statistics
        self.statistics_of = fold.name
        return self.network

    def _statistics_sample(self, fold: FoldData) -> npt.NDArray[np.uint8]:
        chosen = class_balanced(
            fold.train,
            self.job.labels,
            _BATCH_NORM_FOVS,
            derive_seed(self.config.seed, fold.name, "batch norm", self.job.network),
        )
        return scale_to_images(self.pixels[chosen], fold.low, fold.high)

    def watch(self, run: Run, unit: str, phase: str, max_epochs: int) -> Watch:
        """Tell of epochs, on the way and in TensorBoard's files."""
        from tensorboardX import SummaryWriter

        folder = self.config.directory / "tensorboard" / run.fold.name / f"run_{run.number:02d}"
        writer: Any = None

        def told(epoch: int, columns: dict[str, float]) -> None:
            nonlocal writer
            if writer is None:  # what an interrupted process wrote after its last checkpoint goes
                writer = SummaryWriter(str(folder / f"{unit}.{phase}"), purge_step=epoch)
                self.writers.append(writer)
            for name, value in columns.items():
                writer.add_scalar(name, value, epoch)
            now = time.monotonic()
            if now - self.last_told_s >= _TELL_EVERY_S:
                self.last_told_s = now
                detail = f"epoch {epoch}/{max_epochs}, val_loss {columns['val_loss']:.4f}"
                system = unit.split(".", maxsplit=1)[0]
                tell(Progress(self.where(run, f"{system}, {phase}"), self.job.network, detail))

        return told

    def where(self, run: Run, what: str) -> str:
        """Fold, run and step, for people."""
        fold = "" if len(self.job.folds) == 1 else f"{run.fold.name}, "
        return f"{fold}run {run.number}/{self.config.runs}, {what}"

    def result(
        self,
        run: Run,
        system: str,
        score: npt.NDArray[Any],
        validation: Validation,
        history: dict[str, list[float]],
        *,
        note: str = "",
        **details: Any,
    ) -> UnitResult:
        """A unit's result for the test FOVs.

        Parameters
        ----------
        note : str
            What went wrong with it, if anything.
        """
        test = run.fold.test
        if all_same([*score, *validation.score]):
            constant = "it gives all validation and test FOVs the same score"
            note = f"{note}; {constant}" if note else constant
        return UnitResult(
            system=system,
            network="" if system == "scratch" else self.job.network,
            files=tuple(self.job.files[k] for k in test),
            truth=tuple(bool(value) for value in self.job.labels[test]),
            score=tuple(float(value) for value in score),
            validation=validation,
            history=history,
            details={"seed": run.seed, **details},
            note=note,
        )

    def validation(self, indices: npt.NDArray[np.int64], score: npt.NDArray[Any]) -> Validation:
        """Predictions for FOVs that a unit has not learned from, its originals alone."""
        return Validation(
            files=tuple(self.job.files[k] for k in indices),
            truth=tuple(bool(value) for value in self.job.labels[indices]),
            score=tuple(float(value) for value in score),
        )

    def finish(self, run: Run, result: UnitResult) -> None:
        """Write a result and say so."""
        write_unit(self.config.directory, run.fold.name, run.number, result)
        while self.writers:
            self.writers.pop().close()
        flat = f"; {result.note}" if result.note else ""
        right = np.mean((np.array(result.score) > 0.5) == np.array(result.truth))
        tell(
            Progress(
                self.where(run, f"{result.system} finished"),
                self.job.network,
                f"{right:.0%} of test right{flat}",
            )
        )

    def folder(self, run: Run) -> Path:
        """Folder of a run."""
        return run_folder(self.config.directory, run.fold.name, run.number)

    def _scratch(self, run: Run) -> None:
        from senoscope_training.networks.scratch import scale_to_unit, train_scratch

        train, held, test = self.images(run, None, scale_to_unit)
        checkpoint = Checkpoint(self.folder(run) / "scratch.checkpoint.npz")
        outcome = train_scratch(
            train,
            held,
            test,
            self.config.scratch,
            derive_seed(run.seed, "scratch"),
            checkpoint,
            self.watch(run, "scratch", "training", self.config.scratch.max_epochs),
        )
        history = phase_history(outcome.progressed, 1)
        validation = self.validation(run.held, outcome.held)
        self.finish(run, self.result(run, "scratch", outcome.probability, validation, history))
        checkpoint.remove()


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
