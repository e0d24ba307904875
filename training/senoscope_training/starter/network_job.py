"""The building of one network of a starter ensemble in a worker process: from weights to a verified file."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx

from senoscope.engine.manifest import Network
from senoscope_training.networks.head import (
    VALIDATION_FRACTION,
    DeadHeadError,
    TrainedHead,
    stratified_split,
    train_head,
)
from senoscope_training.networks.weights import WeightsPlan
from senoscope_training.workers.pool import report_progress
from senoscope_training.workers.progress import Progress

if TYPE_CHECKING:
    from senoscope_training.export.publish import KnownOutput

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class NetworkJob:
    """The input of a worker process.

    Attributes
    ----------
    seed : int
        Seed of the weights, the split and the head of this network.
    train, held_out : Path
        NPY files, uint16 [N, 3, H, W].
    train_labels, held_out_labels : bool array [N]
    low, high : float32 array [3]
        The intensity range.
    batch_norm_fovs, parity_fovs : int
        Number of training FOVs for the batch-norm statistics of random weights, and of held-out FOVs for
        the comparison with Keras.
    vectors : tuple of int
        Indices of the held-out FOVs that become test vectors; smaller than ``parity_fovs``.
    recipe_dir : Path, optional
        Folder for the network's recipe; the network's file is then rebuilt from it.
    """

    name: str
    seed: int
    directory: Path
    train: Path
    held_out: Path
    train_labels: npt.NDArray[np.bool_]
    held_out_labels: npt.NDArray[np.bool_]
    low: Float32
    high: Float32
    plan: WeightsPlan
    batch_norm_fovs: int
    parity_fovs: int
    vectors: tuple[int, ...]
    threads: int
    keras_dir: Path | None
    recipe_dir: Path | None


@dataclass(frozen=True)
class NetworkResult:
    """The result of a worker process.

    Attributes
    ----------
    network : Network
        The network's entry in the manifest.
    held_out : float32 array [N]
        Probabilities of the held-out FOVs, computed with the final file.
    expected : list of KnownOutput
        Keras' outputs for the test vectors.
    validation : list of int
        Indices of the training FOVs that were used for early stopping.
    """

    network: Network
    held_out: Float32
    expected: list[KnownOutput]
    validation: list[int]


def _report(stage: str, network: str, detail: str = "") -> None:
    report_progress(Progress(stage, network, detail))


def run_job(job: NetworkJob) -> NetworkResult:
    """Build one network."""
    import keras

    from senoscope_training.export import parity
    from senoscope_training.export.graph import save
    from senoscope_training.export.network import export_network
    from senoscope_training.export.publish import publish
    from senoscope_training.networks.architectures import ARCHITECTURES, backbone_of, preprocessing
    from senoscope_training.networks.images import FeatureExamples
    from senoscope_training.networks.random_weights import draw_kernels, estimate_batch_norm, kernel_slots
    from senoscope_training.networks.weights import describe_weights, load_application
    from senoscope_training.starter.recipe import Distillation, Source

    keras.backend.clear_session()
    gc.collect()  # frees the previous network of this process, and its graphs
    began = time.monotonic()
    train = np.load(job.train, mmap_mode="r")
    held_out = np.load(job.held_out, mmap_mode="r")
    height, width = train.shape[2:]

    _report("weights", job.name, job.plan.description)
    application = load_application(job.name, job.plan, job.seed, height, width)
    if job.plan.random:
        draw_kernels(job.name, application, job.seed)
        sample = train[: job.batch_norm_fovs]
        estimate_batch_norm(job.name, application, parity.keras_input(job.name, sample, job.low, job.high))
    weights = describe_weights(job.name, application, job.plan)
    backbone = backbone_of(job.name, application)

    _report("export", job.name)
    exported = export_network(backbone, preprocessing(ARCHITECTURES[job.name].preprocess))
    write: Callable[[onnx.ModelProto, Path], None] = save
    if job.recipe_dir is not None:
        sources = [
            Source(slot.index, slot.shape, slot.smooth) for slot in kernel_slots(job.name, application)
        ]
        distilled = Distillation(exported.model, job.name, job.seed, sources)
        write = partial(distilled.save, recipe=job.recipe_dir / f"{job.name}.zip")

    _report("features", job.name, f"{len(train)} FOVs")
    features = _run_all(exported.model.SerializeToString(), "features", train, job)

    _report("head", job.name)
    train_indices, held_indices = stratified_split(job.train_labels, VALIDATION_FRACTION, job.seed)
    train_examples, held_examples = (
        FeatureExamples(features[indices], job.train_labels[indices])
        for indices in (train_indices, held_indices)
    )
    trained = train_head(train_examples, held_examples, job.seed, standardize=job.plan.random)
    _require_alive(trained, job)
    correct = (trained.head.logits(features) > 0) == job.train_labels
    _report("parity", job.name)
    path = job.directory / f"{job.name}.onnx"
    published = publish(
        job.name,
        exported,
        backbone,
        trained.head,
        job.directory,
        np.asarray(held_out[: job.parity_fovs]),
        job.low,
        job.high,
        weights=weights,
        seed=trained.seed,
        metrics={
            "train_accuracy": float(correct[train_indices].mean()),
            "validation_accuracy": float(correct[held_indices].mean()),
            "validation_loss": trained.state.best,
            "epochs": float(trained.state.epoch),
            "head_attempts": float(trained.attempts),
        },
        threads=job.threads,
        write=write,
    )
    if job.keras_dir is not None:
        _save_keras(job, application, trained.head)

    _report("held-out", job.name, f"{len(held_out)} FOVs")
    probability = _run_all(str(path), "probability", held_out, job)
    accuracy = float(((probability > 0.5) == job.held_out_labels).mean())
    metrics = {"held_out_accuracy": accuracy, **published.network.metrics}
    _report(
        "done",
        job.name,
        f"accuracy {accuracy:.0%} on held-out FOVs; deviates from Keras by "
        f"{published.report.logit_relative:.1e} (logit), {published.report.gradcam:.1e} (Grad-CAM); "
        f"{time.monotonic() - began:.0f} s",
    )
    return NetworkResult(
        published.network.model_copy(update={"metrics": metrics}),
        probability,
        [published.expected[k] for k in job.vectors],
        [int(k) for k in held_indices],
    )


def _require_alive(trained: TrainedHead, job: NetworkJob) -> None:
    if trained.dead:
        raise DeadHeadError(
            f"{job.name}: {trained.dead}, after {trained.attempts} attempts; another --seed may help"
        )


def _run_all(model: str | bytes, output: str, stack: npt.NDArray[Any], job: NetworkJob) -> Float32:
    """Compute an output of a network for FOVs, one at a time: on a CPU, larger batches are not faster."""
    from senoscope_training.export.parity import open_session

    session = open_session(model, job.threads)
    feeds = {"low": job.low, "high": job.high}
    return np.concatenate(
        [session.run([output], {"image": fov[None].astype(np.float32), **feeds})[0] for fov in stack]
    )


def _save_keras(job: NetworkJob, application: Any, head: Any) -> None:
    """Save the weights for a comparison with Keras in tests that share no code with the export."""
    assert job.keras_dir is not None
    job.keras_dir.mkdir(parents=True, exist_ok=True)
    application.save_weights(job.keras_dir / f"{job.name}.weights.h5")
    np.savez(job.keras_dir / f"{job.name}.head.npz", w1=head.w1, b1=head.b1, w2=head.w2, b2=head.b2)
