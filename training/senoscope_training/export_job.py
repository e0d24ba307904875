"""One fine-tuned network of an experiment, from its weights to a checked file, in a process of its own."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from senoscope.engine.manifest import BackboneWeights, sha256_of
from senoscope_training.pool import tell
from senoscope_training.progress import Progress
from senoscope_training.publish import Published

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ExportJob:
    """What a process needs to know.

    Attributes
    ----------
    weights : Path
        The unit's weights, as training wrote them.
    sample : array [N, C, H, W]
        FOVs to compare on, raw counts.
    source : str
        What the backbone was before it was fine-tuned.
    """

    name: str
    weights: Path
    directory: Path
    sample: npt.NDArray[Any]
    low: Float32
    high: Float32
    source: str
    seed: int
    metrics: dict[str, float]
    threads: int


def run_export(job: ExportJob) -> Published:
    """Export one network."""
    import keras

    from senoscope_training.architectures import (
        ARCHITECTURES,
        backbone_of,
        build_application,
        preprocessing,
    )
    from senoscope_training.export import export_network
    from senoscope_training.graph import Head
    from senoscope_training.publish import publish

    keras.backend.clear_session()
    gc.collect()
    began = time.monotonic()
    height, width = job.sample.shape[2:]
    tell(Progress("weights", job.name))
    backbone = backbone_of(job.name, build_application(job.name, height, width))
    with np.load(job.weights) as arrays:
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
        weights=BackboneWeights(source=job.source, sha256=sha256_of(job.weights)),
        seed=job.seed,
        metrics=job.metrics,
        threads=job.threads,
    )
    detail = f"deviates from Keras by {published.report.logit_relative:.1e} (logit)"
    tell(Progress("done", job.name, f"{detail}; {time.monotonic() - began:.0f} s"))
    return published
