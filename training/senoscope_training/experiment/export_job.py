"""One fine-tuned network of an experiment, from its weights to a checked file, in a process of its own."""

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
from senoscope_training.workers.pool import tell
from senoscope_training.workers.progress import Progress

Float32 = npt.NDArray[np.float32]
_MOST_JUDGED = 100  # of each class


@dataclass(frozen=True)
class ExportJob:
    """What a process needs to know.

    Attributes
    ----------
    weights : tuple of Path
        The unit's weights, as training wrote them, in one file or in two: backbone and head.
    sample : array [N, C, H, W]
        FOVs to compare on, raw counts.
    source : str
        Where the backbone's weights come from.
    data : DataConfig
    validation : Validation, optional
        FOVs to see on whether the network tells anything apart; those to compare on are among them anyway.
    truth : tuple of bool
        Of the FOVs to compare on.
    note : str
        What went wrong when it was trained, if anything.
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
    """What a process hands back.

    Attributes
    ----------
    published : Published
    fault : str
        Why it should not be used, beginning with its name; empty if there is no reason.
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
    tell(Progress("weights", job.name))
    backbone = backbone_of(job.name, build_application(job.name, height, width))
    arrays: dict[str, npt.NDArray[Any]] = {}
    for path in job.weights:
        with np.load(path) as some:
            arrays |= {name: some[name] for name in some}
    names = sorted(name for name in arrays if name.startswith("backbone_"))
    backbone.set_weights([arrays[name] for name in names])
    head = Head(arrays["w1"], arrays["b1"], arrays["w2"], float(arrays["b2"]))
    tell(Progress("export", job.name))
    exported = export_network(backbone, preprocessing(ARCHITECTURES[job.name].preprocess))
    tell(Progress("parity", job.name))
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
    tell(Progress("done", job.name, f"{detail}; {time.monotonic() - began:.0f} s"))
    tell(Progress("answers", job.name))
    return ExportedNetwork(published, _fault(job))


def _fault(job: ExportJob) -> str:
    """Why the exported network tells nothing apart, on its validation FOVs and those it was compared on."""
    from senoscope.engine.answers import blank_answers
    from senoscope_training.export.parity import open_session

    session = open_session(job.directory / f"{job.name}.onnx", job.threads)
    fovs = list(job.sample)
    truth = list(job.truth)
    if job.validation is not None:
        chosen = _evenly(job.validation.truth, _MOST_JUDGED)
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
    blank = blank_answers(logits, peaks, truth)
    if blank:
        return f"{job.name} {blank} (validation and test)"
    return f"{job.name}: {job.note}" if job.note else ""


def _evenly(truth: Sequence[bool], most: int) -> list[int]:
    """So many at most of each class, evenly over all there are."""
    chosen: list[int] = []
    for value in (False, True):
        members = np.flatnonzero(np.array(truth, np.bool_) == value)
        if len(members):
            chosen += members[np.unique(np.linspace(0, len(members) - 1, most).astype(int))].tolist()
    return sorted(chosen)
