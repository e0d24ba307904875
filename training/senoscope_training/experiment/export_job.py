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

from senoscope.engine.blank_networks import blank_reason
from senoscope.engine.manifest import BackboneWeights
from senoscope_training.config import DataConfig, InputConfig
from senoscope_training.dataset.reading import load_fov
from senoscope_training.experiment.folder import Validation
from senoscope_training.export.network import export_network
from senoscope_training.export.publish import NetworkJob, Published, publish
from senoscope_training.networks.architectures import ARCHITECTURES, backbone_of, build_application
from senoscope_training.networks.head import Head

_MAX_VALIDATION_FOVS = 100  # of each class


@dataclass(frozen=True, kw_only=True)
class ExportJob(NetworkJob):
    """The input of a worker process; weights and metrics are for the manifest."""

    files: tuple[Path, ...]
    """Files with the unit's weights: one file, or one of the backbone and one of the head."""
    weights: BackboneWeights
    metrics: dict[str, float]
    sample: npt.NDArray[Any]
    """FOVs [N, C, H, W] on which the network is compared with Keras, raw counts."""
    truth: tuple[bool, ...]
    data: DataConfig
    validation: Validation | None
    """Further FOVs on which the network must not predict always the same."""
    note: str
    """The problem that occurred in its training, or an empty string."""


@dataclass(frozen=True)
class ExportResult:
    """The result of a worker process."""

    published: Published
    fault: str
    """The reason why the network should not be used, beginning with its name; empty if there is none."""


def run_export(job: ExportJob) -> ExportResult:
    """Export one network."""
    import keras

    keras.backend.clear_session()
    gc.collect()  # frees the previous network of this process
    began = time.monotonic()
    job.report("weights")
    backbone = backbone_of(job.name, build_application(job.name, *job.sample.shape[2:]))
    arrays: dict[str, npt.NDArray[Any]] = {}
    for path in job.files:
        with np.load(path) as some:
            arrays |= {name: some[name] for name in some}
    names = sorted(name for name in arrays if name.startswith("backbone_"))
    backbone.set_weights([arrays[name] for name in names])
    head = Head(arrays["w1"], arrays["b1"], arrays["w2"], float(arrays["b2"]))
    job.report("export")
    exported = export_network(backbone, ARCHITECTURES[job.name].preprocessing)
    job.report("parity")
    published = publish(
        job, exported, backbone, head, job.sample, weights=job.weights, seed=job.seed, metrics=job.metrics
    )
    detail = f"deviates from Keras by {published.report.logit_relative:.1e} (logit)"
    job.report("done", f"{detail}; {time.monotonic() - began:.0f} s")
    job.report("answers")
    return ExportResult(published, _fault(job))


def _fault(job: ExportJob) -> str:
    """Return the reason why the exported network is useless on its validation FOVs and the sample, if any."""
    fovs, truth = list(job.sample), list(job.truth)
    if job.validation is not None:
        chosen = _evenly(job.validation.truth, _MAX_VALIDATION_FOVS)
        size = InputConfig(height=job.sample.shape[2], width=job.sample.shape[3])
        fovs += [load_fov(job.validation.files[k], job.data, size) for k in chosen]
        truth += [job.validation.truth[k] for k in chosen]
    logits, gradcam = job.run(job.path, ["logit", "gradcam"], fovs)
    blank = blank_reason(logits, gradcam.max(axis=(1, 2)), truth)
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
