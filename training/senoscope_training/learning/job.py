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
    atomic_file,
    read_unit,
    run_folder,
    units_of,
    write_unit,
)
from senoscope_training.learning.augmentation import Copies, plan_copies
from senoscope_training.learning.fitting import Checkpoint, Progressed, Watch
from senoscope_training.learning.images import FeatureExamples, ImageExamples, scale_to_images
from senoscope_training.learning.seeds import derive_seed
from senoscope_training.pool import tell
from senoscope_training.progress import Progress
from senoscope_training.systems import CHANNELS_OF
from senoscope_training.weights import WeightsPlan

Float32 = npt.NDArray[np.float32]

# Exporting a backbone takes as long as Keras takes for about this many pixels.
_ONNX_PAYS_PIXELS = 60_000_000
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
class _Run:
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
    _Worker(job).run()


class _Worker:
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

    def _draw(self, fold: FoldData, number: int) -> _Run:
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
        return _Run(fold, number, fold.train[train], fold.train[held], copies[0], copies[1], seed)

    def _run(self, run: _Run, missing: list[str]) -> None:
        if missing == ["scratch"]:
            self._scratch(run)
            return
        variants: dict[tuple[int, ...] | None, list[str]] = {}
        for unit in missing:
            variants.setdefault(CHANNELS_OF.get(unit.split(".")[0]), []).append(unit)
        for kept, units in variants.items():
            _Variant(self, run, kept).do([unit.split(".")[0] for unit in units])

    def images(self, run: _Run, kept: tuple[int, ...] | None) -> Iterator[npt.NDArray[np.uint8]]:
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

    def watch(self, run: _Run, unit: str, phase: str, max_epochs: int) -> Watch:
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

    def where(self, run: _Run, what: str) -> str:
        """Fold, run and step, for people."""
        fold = "" if len(self.job.folds) == 1 else f"{run.fold.name}, "
        return f"{fold}run {run.number}/{self.config.runs}, {what}"

    def result(
        self, run: _Run, system: str, score: npt.NDArray[Any], history: dict[str, list[float]], **details: Any
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

    def finish(self, run: _Run, result: UnitResult) -> None:
        """Write a result and say so."""
        write_unit(self.config.directory, run.fold.name, run.number, result)
        while self.writers:
            self.writers.pop().close()
        right = np.mean((np.array(result.score) > 0.5) == np.array(result.truth))
        tell(
            Progress(
                self.where(run, f"{result.system} finished"), self.job.network, f"{right:.0%} of test right"
            )
        )

    def folder(self, run: _Run) -> Path:
        """Folder of a run."""
        return run_folder(self.config.directory, run.fold.name, run.number)

    def _scratch(self, run: _Run) -> None:
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
        history = _history(outcome.progressed, 1)
        self.finish(run, self.result(run, "scratch", outcome.probability, history))
        checkpoint.remove()


class _Variant:
    """One run with all channels, or with some of them blanked."""

    def __init__(self, worker: _Worker, run: _Run, kept: tuple[int, ...] | None) -> None:
        self.worker, self.run, self.kept = worker, run, kept
        self.config = worker.config
        self.network = worker.open_network()
        labels = worker.job.labels
        train, held, self.test = worker.images(run, kept)
        self.train = ImageExamples(train, labels[run.train], run.train_copies, self.network.preprocess)
        self.held = ImageExamples(held, labels[run.held], run.held_copies, self.network.preprocess)
        self.name = "all" if kept is None else "".join(str(channel) for channel in kept)

    def do(self, systems: list[str]) -> None:
        features = self._features()
        if "hybrid" in systems:
            self._hybrid(features)
        tuned = [system for system in systems if system in {"fully_trained", *CHANNELS_OF}]
        if "frozen" in systems or tuned:
            self._phases(features, "frozen" in systems, tuned)
        self._cache().unlink(missing_ok=True)

    def _features(self) -> dict[str, Float32]:
        """Pooled features of all images by the frozen backbone; kept until the variant is done."""
        path = self._cache()
        if path.is_file():
            with np.load(path) as kept:
                return {name: kept[name] for name in kept}
        self.network.reset()
        sources = {"train": self.train, "held": self.held}
        found = {name: self._extract(name, len(s), s.scaled) for name, s in sources.items()}
        found["test"] = self._extract("test", len(self.test), lambda indices: self.test[indices])
        arrays: dict[str, Any] = dict(found)
        with atomic_file(path) as file:
            np.savez(file, **arrays)
        return found

    def _extract(self, name: str, count: int, images: Any) -> Float32:
        worker = self.worker
        extract = self._extractor()
        step = 32
        parts = []
        for first in range(0, count, step):
            worker_stage = worker.where(self.run, f"{self.name} channels, features of {name}")
            tell(Progress(worker_stage, worker.job.network, f"{first}/{count}"))
            parts.append(extract(images(np.arange(first, min(first + step, count)))))
        return np.concatenate(parts)

    def _extractor(self) -> Any:
        """Keras, or, where there is enough to do for its making to pay, an exported copy."""
        import keras

        worker = self.worker
        if worker.extract is None:
            config, folds = self.config, worker.job.folds
            channel_sets = 1 + sum(system in CHANNELS_OF for system in config.systems)
            images = (1 + config.augmentation.copies) * sum(len(fold.train) for fold in folds)
            pixels = images * config.runs * channel_sets * worker.pixels[0, 0].size
            worker.extract = self.network.features
            if pixels > _ONNX_PAYS_PIXELS and keras.backend.backend() == "tensorflow":
                from senoscope_training.learning.frozen_onnx import FrozenFeatures

                tell(Progress("export of the frozen backbone", worker.job.network))
                frozen = FrozenFeatures(worker.job.network, self.network.backbone, worker.job.threads)
                worker.extract = lambda batch: np.stack([frozen(image) for image in batch])
        return worker.extract

    def _hybrid(self, features: dict[str, Float32]) -> None:
        from senoscope_training.learning.hybrid import train_hybrid

        worker, config, run = self.worker, self.config.hybrid, self.run
        tell(Progress(worker.where(run, "hybrid"), worker.job.network, "grid search"))
        parts, labels, fovs = [], [], []
        for name, examples, copies, indices in (
            ("train", self.train, run.train_copies, run.train),
            ("held", self.held, run.held_copies, run.held),
        ):
            chosen = _first_copies(copies, len(indices), config.copies)
            parts.append(features[name][chosen])
            labels.append(examples.labels[chosen])
            fovs.append(indices[copies.source[chosen]])
        votes = train_hybrid(
            np.concatenate(parts),
            np.concatenate(labels),
            np.concatenate(fovs),
            features["test"],
            config,
            derive_seed(run.seed, "hybrid"),
        )
        worker.finish(
            run,
            worker.result(
                run,
                "hybrid",
                votes.votes,
                {},
                chosen=votes.chosen,
                cross_validated_accuracy=votes.validation_accuracy,
            ),
        )

    def _phases(self, features: dict[str, Float32], frozen: bool, tuned: list[str]) -> None:
        from senoscope_training.head import train_head

        worker, config, run = self.worker, self.config, self.run
        mode = config.head.standardize
        unit = f"{'frozen' if frozen else tuned[0]}.{worker.job.network}"
        trained = train_head(
            FeatureExamples(features["train"], self.train.labels),
            FeatureExamples(features["held"], self.held.labels),
            derive_seed(run.seed, "head", self.name),
            standardize=worker.job.plan.random if mode == "auto" else mode == "always",
            config=config.head,
            phase=config.phase1,
            watch=worker.watch(run, unit, "phase1", config.phase1.max_epochs),
        )
        history = _history(trained.progressed, 1)
        if frozen:
            logits = trained.head.logits(features["test"])
            result = worker.result(run, "frozen", 1 / (1 + np.exp(-logits)), history, **_details(trained))
            worker.finish(run, result)
        for system in tuned:
            self._fine_tune(system, trained, history)

    def _fine_tune(self, system: str, trained: Any, before: dict[str, list[float]]) -> None:
        worker, config, run = self.worker, self.config, self.run
        unit = f"{system}.{worker.job.network}"
        checkpoint = Checkpoint(worker.folder(run) / f"{unit}.checkpoint.npz")
        head, progressed = self.network.fine_tune(
            trained,
            self.train,
            self.held,
            config.phase2,
            derive_seed(run.seed, "phase2", self.name),
            checkpoint,
            worker.watch(run, unit, "phase2", config.phase2.max_epochs),
        )
        seen = self.network.see(self.test, head)
        if self.kept is None:
            with atomic_file(worker.folder(run) / f"{unit}.npz") as file:
                np.savez_compressed(file, gradcam=seen.gradcam)
            if config.keep_weights == "all":
                weights = {f"backbone_{k:04d}": w for k, w in enumerate(self.network.weights_now())}
                arrays = {"w1": head.w1, "b1": head.b1, "w2": head.w2, "b2": np.float32(head.b2)}
                with atomic_file(worker.folder(run) / f"{unit}.weights.npz") as file:
                    np.savez(file, **(weights | arrays))
        after = _history(progressed, 2)
        history = {name: before[name] + after[name] for name in before}
        worker.finish(run, worker.result(run, system, seen.probability, history, **_details(trained)))
        checkpoint.remove()
        self.network.reset()

    def _cache(self) -> Path:
        worker = self.worker
        return worker.folder(self.run) / f"{worker.job.network}.{self.name}.features.npz"


def _first_copies(copies: Copies, fovs: int, wanted: int) -> npt.NDArray[np.int64]:
    """Indices of the originals and of each FOV's first ``wanted`` copies."""
    taken = list(range(fovs))
    count = dict.fromkeys(range(fovs), 0)
    for index in range(fovs, len(copies)):
        source = int(copies.source[index])
        if count[source] < wanted:
            count[source] += 1
            taken.append(index)
    return np.array(taken, np.int64)


def _history(progressed: Progressed, phase: int) -> dict[str, list[float]]:
    return {**progressed.history, "phase": [float(phase)] * progressed.epoch}


def _details(trained: Any) -> dict[str, Any]:
    return {"head_seed": trained.seed, "head_attempts": trained.attempts}
