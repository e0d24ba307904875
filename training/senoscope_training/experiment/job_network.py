"""The network of a job, which its folds and runs share."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import numpy as np

from senoscope_training.experiment.job_images import JobImages
from senoscope_training.experiment.plan import FoldData, TrainingJob
from senoscope_training.networks.seeds import derive_seed
from senoscope_training.systems import CHANNELS_OF
from senoscope_training.workers.pool import tell
from senoscope_training.workers.progress import Progress

if TYPE_CHECKING:
    from senoscope_training.networks.trainable import TrainableNetwork

# Exporting a backbone takes as long as Keras takes for about this many pixels.
_ONNX_PAYS_PIXELS = 60_000_000


class JobNetwork:
    """Makes the trainable network for the first unit that needs it, and keeps it."""

    def __init__(self, job: TrainingJob, images: JobImages) -> None:
        self._job = job
        self._images = images
        self._network: TrainableNetwork | None = None
        self._extract: Any = None
        self._statistics_of = ""

    def open(self, fold: FoldData) -> TrainableNetwork:
        """The network for a fold.

        A random backbone has the batch-norm statistics of this fold's training FOVs: those of another fold
        would have seen this one's test FOVs.
        """
        job = self._job
        if self._network is None:
            from senoscope_training.networks.trainable import TrainableNetwork

            tell(Progress("weights", job.network, job.plan.words))
            self._network = TrainableNetwork(
                job.network,
                job.plan,
                derive_seed(job.config.seed, "backbone", job.network),
                self._images.statistics_sample(fold),
                job.config.head,
            )
        elif job.plan.random and self._statistics_of != fold.name:
            self._network.take_statistics(self._images.statistics_sample(fold))
            self._extract = None  # an exported copy holds the old statistics
        self._statistics_of = fold.name
        return self._network

    def extractor(self, fold: FoldData) -> Any:
        """What computes pooled features of images: Keras, or an exported copy where that pays."""
        import keras

        if self._extract is None:
            network = self.open(fold)
            self._extract = network.features
            if self._pixels(fold) > _ONNX_PAYS_PIXELS and keras.backend.backend() == "tensorflow":
                from senoscope_training.experiment.frozen_onnx import FrozenFeatures

                tell(Progress("export of the frozen backbone", self._job.network))
                frozen = FrozenFeatures(self._job.network, network.backbone, self._job.threads)
                self._extract = lambda batch: np.stack([frozen(image) for image in batch])
        return self._extract

    def close(self) -> None:
        """Give the network's memory back."""
        if self._network is not None:
            import keras

            self._network = self._extract = None
            keras.backend.clear_session()
            gc.collect()

    def _pixels(self, fold: FoldData) -> int:
        """How many pixels of one channel the backbone is to see while its weights stay as they are."""
        config = self._job.config
        folds = [fold] if self._job.plan.random else self._job.folds  # random ones differ from fold to fold
        channel_sets = 1 + sum(system in CHANNELS_OF for system in config.systems)
        images = (1 + config.augmentation.copies) * sum(len(one.train) for one in folds)
        pixels: int = images * config.runs * channel_sets * self._images.pixels[0, 0].size
        return pixels
