"""The export of one network of an experiment, in a worker process: from its weights to a verified file."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from senoscope.engine.manifest import BackboneWeights, sha256_of
from senoscope_training.config import DataConfig, InputConfig
from senoscope_training.dataset.reading import load_fov
from senoscope_training.experiment.folder import Validation
from senoscope_training.export.publish import Published
from senoscope_training.workers.pool import report_progress
from senoscope_training.workers.progress import Progress

Float32 = npt.NDArray[np.float32]
_MAX_VALIDATION_FOVS = 100  # of each class


@dataclass(frozen=True)
class ExportJob:
    """The input of a worker process.

    Attributes
    ----------
    weights : tuple of Path
        Files with the unit's weights, as training wrote them: one file, or one of the backbone and one of
        the head.
    sample : array [N, C, H, W]
        FOVs on which the network is compared with Keras, raw counts.
    source : str
        Source of the backbone's weights, for the manifest.
    data : DataConfig
    validation : Validation, optional
        Further FOVs on which the network must not predict always the same.
    truth : tuple of bool
        Truth of ``sample``.
    note : str
        The problem that occurred in its training, or an empty string.
    """

    name: str
    weights: tuple[Path, ...]
    directory: Path
    sample: npt.NDArray[Any]
    low: Float32
    high: Float32
    source: str
    seed: int
    metrics: dict[str, float]
    threads: int
    data: DataConfig
    validation: Validation | None
    truth: tuple[bool, ...]
    note: str


@dataclass(frozen=True)
class ExportedNetwork:
    """The result of a worker process.

    Attributes
    ----------
    published : Published
    fault : str
        The reason why the network should not be used, beginning with its name; empty if there is none.
    """

    published: Published
    fault: str


def run_export(job: ExportJob) -> ExportedNetwork:
    """Export one network."""
    import keras

    from senoscope_training.export.network import export_network
    from senoscope_training.export.publish import publish
    from senoscope_training.networks.architectures import (
        ARCHITECTURES,
        backbone_of,
        build_application,
        preprocessing,
    )
    from senoscope_training.networks.head import Head

    keras.backend.clear_session()
    gc.collect()
    began = time.monotonic()
    height, width = job.sample.shape[2:]
    report_progress(Progress("weights", job.name))
    backbone = backbone_of(job.name, build_application(job.name, height, width))
    arrays: dict[str, npt.NDArray[Any]] = {}
    for path in job.weights:
        with np.load(path) as some:
            arrays |= {name: some[name] for name in some}
    names = sorted(name for name in arrays if name.startswith("backbone_"))
    backbone.set_weights([arrays[name] for name in names])
    head = Head(arrays["w1"], arrays["b1"], arrays["w2"], float(arrays["b2"]))
    report_progress(Progress("export", job.name))
    exported = export_network(backbone, preprocessing(ARCHITECTURES[job.name].preprocess))
    report_progress(Progress("parity", job.name))
    published = publish(
        job.name,
        exported,
        backbone,
        head,
        job.directory,
        job.sample,
        job.low,
        job.high,
        weights=BackboneWeights(source=job.source, sha256=sha256_of(job.weights[0])),
        seed=job.seed,
        metrics=job.metrics,
        threads=job.threads,
    )
    detail = f"deviates from Keras by {published.report.logit_relative:.1e} (logit)"
    report_progress(Progress("done", job.name, f"{detail}; {time.monotonic() - began:.0f} s"))
    report_progress(Progress("answers", job.name))
    return ExportedNetwork(published, _fault(job))


def _fault(job: ExportJob) -> str:
    """Return the reason why the exported network is useless on its validation FOVs and the sample, if any."""
    from senoscope.engine.blank_networks import blank_reason
    from senoscope_training.export.parity import open_session

    session = open_session(job.directory / f"{job.name}.onnx", job.threads)
    fovs = list(job.sample)
    truth = list(job.truth)
    if job.validation is not None:
        chosen = _evenly(job.validation.truth, _MAX_VALIDATION_FOVS)
        size = InputConfig(height=job.sample.shape[2], width=job.sample.shape[3])
        fovs += [load_fov(job.data.path, job.validation.files[k], job.data, size) for k in chosen]
        truth += [job.validation.truth[k] for k in chosen]
    feeds = {"low": np.asarray(job.low, np.float32), "high": np.asarray(job.high, np.float32)}
    logits, peaks = [], []
    for fov in fovs:
        image = np.asarray(fov[None], np.float32)
        logit, gradcam = session.run(["logit", "gradcam"], {"image": image, **feeds})
        logits.append(float(logit[0]))
        peaks.append(float(gradcam.max()))
    blank = blank_reason(logits, peaks, truth)
    if blank:
        return f"{job.name} {blank} (validation and test)"
    return f"{job.name}: {job.note}" if job.note else ""


def _evenly(truth: Sequence[bool], most: int) -> list[int]:
    """Return the indices of at most ``most`` FOVs of each class, evenly distributed."""
    chosen: list[int] = []
    for value in (False, True):
        members = np.flatnonzero(np.array(truth, np.bool_) == value)
        if len(members):
            chosen += members[np.unique(np.linspace(0, len(members) - 1, most).astype(int))].tolist()
    return sorted(chosen)
