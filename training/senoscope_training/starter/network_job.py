"""The building of one network of a starter ensemble in a worker process: from weights to a verified file."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from senoscope_training.export.graph import save
from senoscope_training.export.network import export_network
from senoscope_training.export.parity import keras_input
from senoscope_training.export.publish import Float32, NetworkJob, Published, publish
from senoscope_training.networks.architectures import ARCHITECTURES, backbone_of
from senoscope_training.networks.head import (
    VALIDATION_FRACTION,
    DeadHeadError,
    Head,
    stratified_split,
    train_head,
)
from senoscope_training.networks.images import FeatureExamples
from senoscope_training.networks.random_weights import draw_kernels, estimate_batch_norm, kernel_slots
from senoscope_training.networks.weights import WeightsPlan, describe_weights, load_application
from senoscope_training.starter.recipe import Distillation


@dataclass(frozen=True, kw_only=True)
class StarterJob(NetworkJob):
    """The input of a worker process; ``seed`` is that of the weights, the split and the head."""

    train: Path
    """NPY file, uint16 [N, C, H, W], like ``held_out``."""
    held_out: Path
    train_labels: npt.NDArray[np.bool_]
    held_out_labels: npt.NDArray[np.bool_]
    plan: WeightsPlan
    batch_norm_fovs: int
    """Number of training FOVs for the batch-norm statistics of random weights."""
    parity_fovs: int
    """Number of held-out FOVs for the comparison with Keras."""
    keras_dir: Path | None
    recipe_dir: Path | None
    """Folder for the network's recipe; the network's file is then rebuilt from it."""


@dataclass(frozen=True)
class NetworkResult:
    """The result of a worker process."""

    published: Published
    held_out: Float32
    """Probabilities [N] of the held-out FOVs, computed with the final file."""
    validation: list[int]
    """Indices of the training FOVs that were used for early stopping."""


def run_job(job: StarterJob) -> NetworkResult:
    """Build one network."""
    import keras

    keras.backend.clear_session()
    gc.collect()  # frees the previous network of this process, and its graphs
    began = time.monotonic()
    train = np.load(job.train, mmap_mode="r")
    held_out = np.load(job.held_out, mmap_mode="r")
    architecture = ARCHITECTURES[job.name]

    job.report("weights", job.plan.description)
    application = load_application(job.name, job.plan, job.seed, *train.shape[2:])
    if job.plan.random:
        draw_kernels(job.name, application, job.seed)
        sample = train[: job.batch_norm_fovs]
        estimate_batch_norm(job.name, application, keras_input(job.name, sample, job.low, job.high))
    weights = describe_weights(job.name, application, job.plan)
    backbone = backbone_of(job.name, application)

    job.report("export")
    exported = export_network(backbone, architecture.preprocessing)
    write: Callable[[onnx.ModelProto, Path], None] = save
    if job.recipe_dir is not None:
        slots = kernel_slots(architecture, application)
        distilled = Distillation(exported.model, job.name, job.seed, slots)
        write = partial(distilled.save, recipe=job.recipe_dir / f"{job.name}.zip")

    job.report("features", f"{len(train)} FOVs")
    (features,) = job.run(exported.model.SerializeToString(), ["features"], train)

    job.report("head")
    split = stratified_split(job.train_labels, VALIDATION_FRACTION, job.seed)
    fitted, held = (FeatureExamples(features[indices], job.train_labels[indices]) for indices in split)
    trained = train_head(fitted, held, job.seed, standardize=job.plan.random)
    if trained.dead:
        raise DeadHeadError(
            f"{job.name}: {trained.dead}, after {trained.attempts} attempts; another --seed may help"
        )
    correct = (trained.head.logits(features) > 0) == job.train_labels
    job.report("parity")
    published = publish(
        job,
        exported,
        backbone,
        trained.head,
        np.asarray(held_out[: job.parity_fovs]),
        weights=weights,
        seed=trained.seed,
        metrics={
            "train_accuracy": float(correct[split[0]].mean()),
            "validation_accuracy": float(correct[split[1]].mean()),
            "validation_loss": trained.state.best,
            "epochs": float(trained.state.epoch),
            "head_attempts": float(trained.attempts),
        },
        write=write,
    )
    if job.keras_dir is not None:
        _save_keras(job.name, job.keras_dir, application, trained.head)

    job.report("held-out", f"{len(held_out)} FOVs")
    (probability,) = job.run(job.path, ["probability"], held_out)
    accuracy = float(((probability > 0.5) == job.held_out_labels).mean())
    metrics = {"held_out_accuracy": accuracy, **published.network.metrics}
    job.report(
        "done",
        f"accuracy {accuracy:.0%} on held-out FOVs; deviates from Keras by "
        f"{published.report.logit_relative:.1e} (logit), {published.report.gradcam:.1e} (Grad-CAM); "
        f"{time.monotonic() - began:.0f} s",
    )
    network = published.network.model_copy(update={"metrics": metrics})
    return NetworkResult(replace(published, network=network), probability, split[1].tolist())


def _save_keras(name: str, folder: Path, application: Any, head: Head) -> None:
    """Save the weights for a comparison with Keras in tests that share no code with the export."""
    folder.mkdir(parents=True, exist_ok=True)
    application.save_weights(folder / f"{name}.weights.h5")
    np.savez(folder / f"{name}.head.npz", **vars(head))
