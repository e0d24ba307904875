"""What a worker process does: one network through all folds and runs, or the CNN from scratch."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from senoscope_training.config import Config
from senoscope_training.dataset.ranges import measured_range
from senoscope_training.dataset.splits import validation_split
from senoscope_training.experiment import (
    UnitResult,
    read_unit,
    run_folder,
    units_of,
    write_unit,
)
from senoscope_training.learning.augmentation import Copies, plan_copies
from senoscope_training.learning.fitting import Checkpoint, Watch
from senoscope_training.learning.images import ImageExamples, scale_to_images
from senoscope_training.learning.seeds import derive_seed
from senoscope_training.learning.variant import Variant, phase_history
from senoscope_training.pool import tell
from senoscope_training.progress import Progress
from senoscope_training.systems import CHANNELS_OF
from senoscope_training.weights import WeightsPlan

Float32 = npt.NDArray[np.float32]

_BATCH_NORM_FOVS = 10
_TELL_EVERY_S = 0.5
_FLAT = 1e-3


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

    def images(self, run: Run, kept: tuple[int, ...] | None) -> Iterator[npt.NDArray[np.uint8]]:
        """Scaled images of the training, the validation and the test FOVs."""
        for indices in (run.train, run.held, run.fold.test):
            raw = self.pixels[indices]
            low, high = run.fold.low, run.fold.high
            if self.config.normalization.fitted_on == "each_split":
                padded = self.config.data.fit == "pad"
                low, high = measured_range(raw, self.config.normalization.k_iqr, padded=padded)
            yield scale_to_images(raw, low, high, kept)

    def open_network(self) -> Any:
        """The trainable network; made for the first unit that needs it."""
        if self.network is None:
            from senoscope_training.learning.network import TrainableNetwork

            tell(Progress("weights", self.job.network, self.job.plan.words))
            fold = self.job.folds[0]
            sample = scale_to_images(self.pixels[fold.train[:_BATCH_NORM_FOVS]], fold.low, fold.high)
            self.network = TrainableNetwork(
                self.job.network,
                self.job.plan,
                derive_seed(self.config.seed, "backbone", self.job.network),
                sample,
                self.config.head,
            )
        return self.network

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
        self, run: Run, system: str, score: npt.NDArray[Any], history: dict[str, list[float]], **details: Any
    ) -> UnitResult:
        """A unit's result for the test FOVs."""
        test = run.fold.test
        return UnitResult(
            system=system,
            network="" if system == "scratch" else self.job.network,
            files=tuple(self.job.files[k] for k in test),
            truth=tuple(bool(value) for value in self.job.labels[test]),
            score=tuple(float(value) for value in score),
            history=history,
            details={"seed": run.seed, **details},
        )

    def finish(self, run: Run, result: UnitResult) -> None:
        """Write a result and say so."""
        write_unit(self.config.directory, run.fold.name, run.number, result)
        while self.writers:
            self.writers.pop().close()
        flat = ", all with the same score: it learned nothing" if np.ptp(result.score) < _FLAT else ""
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
        from senoscope_training.learning.scratch import scale_to_unit, train_scratch

        train, held, test = self.images(run, None)
        labels = self.job.labels
        checkpoint = Checkpoint(self.folder(run) / "scratch.checkpoint.npz")
        outcome = train_scratch(
            ImageExamples(train, labels[run.train], run.train_copies, scale_to_unit),
            ImageExamples(held, labels[run.held], run.held_copies, scale_to_unit),
            test,
            self.config.scratch,
            derive_seed(run.seed, "scratch"),
            checkpoint,
            self.watch(run, "scratch", "training", self.config.scratch.max_epochs),
        )
        history = phase_history(outcome.progressed, 1)
        self.finish(run, self.result(run, "scratch", outcome.probability, history))
        checkpoint.remove()
