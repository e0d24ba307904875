"""The network of a job, which all folds and runs share."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from senoscope_training.experiment.job_images import JobImages
from senoscope_training.experiment.plan import FoldData, TrainingJob
from senoscope_training.networks.architectures import ARCHITECTURES
from senoscope_training.networks.head import Float32
from senoscope_training.networks.seeds import derive_seed
from senoscope_training.systems import CHANNELS_OF
from senoscope_training.workers.pool import report_progress
from senoscope_training.workers.progress import Progress

if TYPE_CHECKING:
    from senoscope_training.networks.trainable import TrainableNetwork

# The export of a backbone takes as long as Keras takes for about this number of pixels.
_MIN_PIXELS_FOR_ONNX = 60_000_000

Extractor = Callable[[npt.NDArray[np.uint8]], Float32]
"""Computes pooled features [N, F] of scaled images [N, H, W, C]."""


class JobNetwork:
    """Builds the network of a job when it is first needed, and keeps it."""

    def __init__(self, job: TrainingJob, images: JobImages) -> None:
        self._job = job
        self._images = images
        self._network: TrainableNetwork | None = None
        self._extract: Extractor | None = None
        self._statistics_of = ""

    def open(self, fold: FoldData) -> TrainableNetwork:
        """Return the network for a fold.

        A random backbone has the batch-norm statistics of the training FOVs of this fold, because those of
        another fold may contain test FOVs of this one.
        """
        job = self._job
        if self._network is None:
            from senoscope_training.networks.trainable import TrainableNetwork

            report_progress(Progress("weights", job.network, job.plan.description))
            seed = derive_seed(job.config.seed, "backbone", job.network)
            sample = self._images.statistics_sample(fold)
            self._network = TrainableNetwork(job.network, job.plan, seed, sample, job.config.head)
        elif job.plan.random and self._statistics_of != fold.name:
            self._network.set_statistics(self._images.statistics_sample(fold))
            self._extract = None  # an exported copy has the old statistics
        self._statistics_of = fold.name
        return self._network

    def extractor(self, fold: FoldData) -> Extractor:
        """Return a function that computes pooled features, with Keras or, if faster, with ONNX Runtime."""
        import keras

        if self._extract is None:
            network = self.open(fold)
            self._extract = network.features
            if self._pixels(fold) > _MIN_PIXELS_FOR_ONNX and keras.backend.backend() == "tensorflow":
                report_progress(Progress("export of the frozen backbone", self._job.network))
                self._extract = onnx_extractor(self._job.network, network.backbone, self._job.threads)
        return self._extract

    def close(self) -> None:
        """Release the memory of the network."""
        if self._network is not None:
            import keras

            self._network = self._extract = None
            keras.backend.clear_session()
            gc.collect()

    def _pixels(self, fold: FoldData) -> int:
        """Estimate the pixels per channel for which the backbone is used with its current weights."""
        config = self._job.config
        folds = [fold] if self._job.plan.random else self._job.folds  # random backbones differ between folds
        channel_sets = 1 + sum(system in CHANNELS_OF for system in config.systems)
        images = (1 + config.augmentation.copies) * sum(len(one.train) for one in folds)
        pixels: int = images * config.runs * channel_sets * self._images.pixels[0, 0].size
        return pixels


def onnx_extractor(name: str, backbone: Any, threads: int) -> Extractor:
    """Export a copy of a frozen backbone; on a CPU, ONNX Runtime is three times as fast as Keras.

    Later changes of the backbone do not affect the copy.
    """
    from senoscope_training.export.network import export_network
    from senoscope_training.export.parity import open_session

    exported = export_network(backbone, ARCHITECTURES[name].preprocessing)
    session = open_session(exported.model.SerializeToString(), threads)

    def extract(images: npt.NDArray[np.uint8]) -> Float32:
        channels = images.shape[-1]
        feeds = {"low": np.zeros(channels, np.float32), "high": np.full(channels, 255, np.float32)}
        # The graph truncates to integers; an additional 0.5 makes the result independent of rounding.
        counts = images.transpose(0, 3, 1, 2).astype(np.float32) + np.float32(0.5)
        rows = [session.run(["features"], {"image": fov[None], **feeds})[0] for fov in counts]
        return np.concatenate(rows)

    return extract
