"""One network in one run of one fold, with all channels or some of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from senoscope_training.experiment.folder import PHASE_2_BEGAN, frozen_backbone
from senoscope_training.experiment.job_images import JobImages
from senoscope_training.experiment.job_network import JobNetwork
from senoscope_training.experiment.plan import Run, TrainingJob
from senoscope_training.experiment.unit_writer import UnitWriter, phase_history
from senoscope_training.networks.augmentation import first_copies
from senoscope_training.networks.fitting import Checkpoint
from senoscope_training.networks.head import Float32, Head
from senoscope_training.networks.images import FeatureExamples, batches
from senoscope_training.networks.seeds import derive_seed
from senoscope_training.systems import CHANNELS_OF
from senoscope_training.workers.files import atomic_file

_FEATURES_BATCH = 32  # images


class Variant:
    """Trains one network in one run of one fold, with all channels or those in ``kept``."""

    def __init__(
        self,
        job: TrainingJob,
        run: Run,
        kept: tuple[int, ...] | None,
        images: JobImages,
        network: JobNetwork,
        writer: UnitWriter,
    ) -> None:
        self.job, self.run, self.kept = job, run, kept
        self.config = job.config
        self.writer = writer
        self.shared = network
        self.network = network.open(run.fold)
        self.train_images, self.held, self.test = images.for_run(run, kept, self.network.preprocess)
        self.name = "all" if kept is None else "".join(str(channel) for channel in kept)

    def train(self, systems: list[str]) -> None:
        """Train the systems that share the features of this variant, and write their results."""
        features = self._features()
        if "hybrid" in systems:
            self._train_hybrid(features)
        tuned = [system for system in systems if system in {"fully_trained", *CHANNELS_OF}]
        if "frozen" in systems or tuned:
            self._train_phases(features, "frozen" in systems, tuned)
        self._cache().unlink(missing_ok=True)

    def _features(self) -> dict[str, Float32]:
        """Compute pooled features of all images with the frozen backbone, or read them from the cache."""
        path = self._cache()
        if path.is_file():
            with np.load(path) as kept:
                return {name: kept[name] for name in kept}
        self.network.reset()
        sources = {"train": self.train_images, "held": self.held}
        found = {name: self._extract(name, len(s), s.scaled) for name, s in sources.items()}
        found["test"] = self._extract("test", len(self.test), lambda indices: self.test[indices])
        arrays: dict[str, Any] = dict(found)
        with atomic_file(path) as file:
            np.savez(file, **arrays)
        return found

    def _extract(self, name: str, count: int, images: Any) -> Float32:
        extract = self.shared.extractor(self.run.fold)
        parts = []
        for indices in batches(count, _FEATURES_BATCH):
            step = f"{self.name} channels, features of {name}"
            self.writer.report(self.run, step, f"{indices[0]}/{count}")
            parts.append(extract(images(indices)))
        return np.concatenate(parts)

    def _train_hybrid(self, features: dict[str, Float32]) -> None:
        from senoscope_training.networks.hybrid import train_hybrid

        config, run = self.config.hybrid, self.run
        self.writer.report(run, "hybrid", "grid search")
        chosen = []
        for name, examples, copies, indices in (
            ("train", self.train_images, run.train_copies, run.train),
            ("held", self.held, run.held_copies, run.held),
        ):
            kept = first_copies(copies, len(indices), config.copies)
            chosen.append((features[name][kept], examples.labels[kept], indices[copies.source[kept]]))
        inputs, labels, fovs = (np.concatenate(part) for part in zip(*chosen, strict=True))
        votes = train_hybrid(inputs, labels, fovs, features["test"], config, derive_seed(run.seed, "hybrid"))
        validation = self.writer.validation(*votes.of_originals())
        accuracy = votes.validation_accuracy
        details: dict[str, Any] = {"chosen": votes.chosen, "cross_validated_accuracy": accuracy}
        self.writer.finish(run, "hybrid", votes.votes, validation, {}, **details)

    def _train_phases(self, features: dict[str, Float32], frozen: bool, tuned: list[str]) -> None:
        from senoscope_training.networks.head import train_head

        config, run, writer = self.config, self.run, self.writer
        mode = config.head.standardize
        unit = f"{'frozen' if frozen else tuned[0]}.{self.job.network}"
        trained = train_head(
            FeatureExamples(features["train"], self.train_images.labels),
            FeatureExamples(features["held"], self.held.labels),
            derive_seed(run.seed, "head", self.name),
            standardize=self.job.plan.random if mode == "auto" else mode == "always",
            config=config.head,
            phase=config.phase1,
            on_epoch=writer.on_epoch(run, unit, "phase1", config.phase1.max_epochs),
        )
        history = phase_history(trained.state, 1)
        if frozen:
            self._keep_frozen(trained.head)
            test, held = (
                1 / (1 + np.exp(-trained.head.logits(some)))
                for some in (features["test"], features["held"][: self.held.originals])
            )
            validation = writer.validation(run.held, held)
            details = _details(trained)
            writer.finish(run, "frozen", test, validation, history, note=trained.dead, **details)
        for system in tuned:
            self._fine_tune(system, trained, history)

    def _keep_frozen(self, head: Head) -> None:
        """Write the weights for an export of the frozen ensemble: the head, and once the backbone."""
        if self.config.keep_weights == "none":
            return
        directory, network = self.config.directory, self.job.network
        backbone = frozen_backbone(directory, self.run.fold.name, network, random=self.job.plan.random)
        if not backbone.is_file():
            self.network.reset()
            with atomic_file(backbone) as file:
                np.savez(file, **_backbone_arrays(self.network))
        with atomic_file(self.writer.folder(self.run) / f"frozen.{network}.weights.npz") as file:
            np.savez(file, **vars(head))

    def _fine_tune(self, system: str, trained: Any, before: dict[str, list[float]]) -> None:
        config, run, writer = self.config, self.run, self.writer
        unit = f"{system}.{self.job.network}"
        checkpoint = Checkpoint(writer.folder(run) / f"{unit}.checkpoint.npz")
        seed = derive_seed(run.seed, "phase2", self.name)
        on_epoch = writer.on_epoch(run, unit, "phase2", config.phase2.max_epochs)
        head, state = self.network.fine_tune(
            trained, self.train_images, self.held, config.phase2, seed, checkpoint, on_epoch
        )
        explained = self.network.explain(self.test, head)
        if self.kept is None:
            with atomic_file(writer.folder(run) / f"{unit}.npz") as file:
                np.savez_compressed(file, gradcam=explained.gradcam)
            if config.keep_weights == "all":
                with atomic_file(writer.folder(run) / f"{unit}.weights.npz") as file:
                    np.savez(file, **_backbone_arrays(self.network), **vars(head))
        after = phase_history(state, 2)
        history = {name: before[name] + after[name] for name in before}
        originals = self.held.scaled(np.arange(self.held.originals))
        validation = writer.validation(run.held, self.network.explain(originals, head).probability)
        note = f"{PHASE_2_BEGAN}{trained.dead}" if trained.dead else ""
        details = _details(trained)
        writer.finish(run, system, explained.probability, validation, history, note=note, **details)
        checkpoint.remove()
        self.network.reset()

    def _cache(self) -> Path:
        return self.writer.folder(self.run) / f"{self.job.network}.{self.name}.features.npz"


def _details(trained: Any) -> dict[str, Any]:
    return {"head_seed": trained.seed, "head_attempts": trained.attempts}


def _backbone_arrays(network: Any) -> dict[str, Any]:
    return {f"backbone_{k:04d}": weight for k, weight in enumerate(network.backbone.get_weights())}
