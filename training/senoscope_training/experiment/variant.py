"""One network in one run of one fold, with all channels or with some of them blanked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from senoscope_training.experiment.folder import PHASE_2_BEGAN, atomic_file, frozen_backbone
from senoscope_training.experiment.systems import CHANNELS_OF
from senoscope_training.export.graph import Head
from senoscope_training.networks.augmentation import first_copies
from senoscope_training.networks.fitting import Checkpoint, Progressed
from senoscope_training.networks.images import FeatureExamples
from senoscope_training.networks.seeds import derive_seed
from senoscope_training.workers.pool import tell
from senoscope_training.workers.progress import Progress

if TYPE_CHECKING:
    from senoscope_training.experiment.job import Run, Worker

Float32 = npt.NDArray[np.float32]

# Exporting a backbone takes as long as Keras takes for about this many pixels.
_ONNX_PAYS_PIXELS = 60_000_000


class Variant:
    """One run with all channels, or with some of them blanked."""

    def __init__(self, worker: Worker, run: Run, kept: tuple[int, ...] | None) -> None:
        self.worker, self.run, self.kept = worker, run, kept
        self.config = worker.config
        self.network = worker.open_network(run.fold)
        self.train, self.held, self.test = worker.images(run, kept, self.network.preprocess)
        self.name = "all" if kept is None else "".join(str(channel) for channel in kept)

    def do(self, systems: list[str]) -> None:
        """Train the systems that share this variant's features; write each one's result."""
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
            config = self.config
            # A random backbone is exported anew for each fold.
            folds = [self.run.fold] if worker.job.plan.random else worker.job.folds
            channel_sets = 1 + sum(system in CHANNELS_OF for system in config.systems)
            images = (1 + config.augmentation.copies) * sum(len(fold.train) for fold in folds)
            pixels = images * config.runs * channel_sets * worker.pixels[0, 0].size
            worker.extract = self.network.features
            if pixels > _ONNX_PAYS_PIXELS and keras.backend.backend() == "tensorflow":
                from senoscope_training.experiment.frozen_onnx import FrozenFeatures

                tell(Progress("export of the frozen backbone", worker.job.network))
                frozen = FrozenFeatures(worker.job.network, self.network.backbone, worker.job.threads)
                worker.extract = lambda batch: np.stack([frozen(image) for image in batch])
        return worker.extract

    def _hybrid(self, features: dict[str, Float32]) -> None:
        from senoscope_training.networks.hybrid import train_hybrid

        worker, config, run = self.worker, self.config.hybrid, self.run
        tell(Progress(worker.where(run, "hybrid"), worker.job.network, "grid search"))
        parts, labels, fovs = [], [], []
        for name, examples, copies, indices in (
            ("train", self.train, run.train_copies, run.train),
            ("held", self.held, run.held_copies, run.held),
        ):
            chosen = first_copies(copies, len(indices), config.copies)
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
                worker.validation(*votes.of_originals()),
                {},
                chosen=votes.chosen,
                cross_validated_accuracy=votes.validation_accuracy,
            ),
        )

    def _phases(self, features: dict[str, Float32], frozen: bool, tuned: list[str]) -> None:
        from senoscope_training.networks.head import train_head

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
        history = phase_history(trained.progressed, 1)
        if frozen:
            self._keep_frozen(trained.head)
            test, held = (
                1 / (1 + np.exp(-trained.head.logits(some)))
                for some in (features["test"], features["held"][: self.held.originals])
            )
            validation = worker.validation(run.held, held)
            details = _details(trained)
            result = worker.result(run, "frozen", test, validation, history, note=trained.dead, **details)
            worker.finish(run, result)
        for system in tuned:
            self._fine_tune(system, trained, history)

    def _keep_frozen(self, head: Head) -> None:
        """Keep what an export of the frozen ensemble needs: the head, and the backbone once for all runs."""
        worker, run = self.worker, self.run
        if self.config.keep_weights == "none":
            return
        directory, network = self.config.directory, worker.job.network
        backbone = frozen_backbone(directory, run.fold.name, network, random=worker.job.plan.random)
        if not backbone.is_file():
            self.network.reset()
            with atomic_file(backbone) as file:
                np.savez(file, **_backbone_arrays(self.network))
        with atomic_file(worker.folder(run) / f"frozen.{network}.weights.npz") as file:
            np.savez(file, **_head_arrays(head))

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
                with atomic_file(worker.folder(run) / f"{unit}.weights.npz") as file:
                    np.savez(file, **_backbone_arrays(self.network), **_head_arrays(head))
        after = phase_history(progressed, 2)
        history = {name: before[name] + after[name] for name in before}
        originals = self.held.scaled(np.arange(self.held.originals))
        validation = worker.validation(run.held, self.network.see(originals, head).probability)
        note = f"{PHASE_2_BEGAN}{trained.dead}" if trained.dead else ""
        details = _details(trained)
        result = worker.result(run, system, seen.probability, validation, history, note=note, **details)
        worker.finish(run, result)
        checkpoint.remove()
        self.network.reset()

    def _cache(self) -> Path:
        worker = self.worker
        return worker.folder(self.run) / f"{worker.job.network}.{self.name}.features.npz"


def _details(trained: Any) -> dict[str, Any]:
    return {"head_seed": trained.seed, "head_attempts": trained.attempts}


def _backbone_arrays(network: Any) -> dict[str, Any]:
    return {f"backbone_{k:04d}": weight for k, weight in enumerate(network.weights_now())}


def _head_arrays(head: Head) -> dict[str, Any]:
    return {"w1": head.w1, "b1": head.b1, "w2": head.w2, "b2": np.asarray(head.b2, np.float32)}


def phase_history(progressed: Progressed, phase: int) -> dict[str, list[float]]:
    """The history of one phase, each epoch marked with the phase's number."""
    return {**progressed.history, "phase": [float(phase)] * progressed.epoch}
