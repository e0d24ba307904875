"""The images of a job, for training and testing its networks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from senoscope_training.dataset.ranges import measured_range
from senoscope_training.experiment.plan import FoldData, Run, TrainingJob, class_balanced
from senoscope_training.networks.augmentation import Copies
from senoscope_training.networks.images import ImageExamples, Preprocess, augmented_range, scale_to_images
from senoscope_training.networks.seeds import derive_seed

_BATCH_NORM_FOVS = 10


class JobImages:
    """The FOVs of a job, scaled by the intensity range of each fold; ``pixels`` are their raw counts."""

    def __init__(self, job: TrainingJob) -> None:
        self._job = job
        self._each_split = job.config.normalization.fitted_on == "each_split"
        self._padded = job.config.data.fit == "pad"
        self.pixels: npt.NDArray[np.generic] = np.load(job.pixels, mmap_mode="r")

    def for_run(
        self, run: Run, kept: tuple[int, ...] | None, preprocess: Preprocess
    ) -> tuple[ImageExamples, ImageExamples, npt.NDArray[np.uint8]]:
        """Return examples of the training and validation FOVs, and scaled images of the test FOVs.

        Channels that are not in ``kept`` are set to zero.
        """
        train = self._examples(run, run.train, run.train_copies, kept, preprocess)
        held = self._examples(run, run.held, run.held_copies, kept, preprocess)
        raw = self.pixels[run.fold.test]
        low, high = run.fold.low, run.fold.high
        if self._each_split:  # test FOVs have no copies
            low, high = measured_range(raw, self._job.config.normalization.k_iqr, padded=self._padded)
        return train, held, scale_to_images(raw, low, high, kept)

    def statistics_sample(self, fold: FoldData) -> npt.NDArray[np.uint8]:
        """Return training FOVs of both classes, for the batch-norm statistics of a random backbone."""
        job = self._job
        seed = derive_seed(job.config.seed, fold.name, "batch norm", job.network)
        chosen = class_balanced(fold.train, job.labels, _BATCH_NORM_FOVS, seed)
        return scale_to_images(self.pixels[chosen], fold.low, fold.high)

    def _examples(
        self,
        run: Run,
        indices: npt.NDArray[np.int64],
        copies: Copies,
        kept: tuple[int, ...] | None,
        preprocess: Preprocess,
    ) -> ImageExamples:
        raw, labels = self.pixels[indices], self._job.labels[indices]
        if not self._each_split:
            images = scale_to_images(raw, run.fold.low, run.fold.high, kept)
            return ImageExamples(images, labels, copies, preprocess)
        counts = np.ascontiguousarray(raw.transpose(0, 2, 3, 1))
        k_iqr = self._job.config.normalization.k_iqr
        low, high = augmented_range(counts, copies, k_iqr, padded=self._padded)
        return ImageExamples(
            counts,
            labels,
            copies,
            preprocess,
            lambda some: scale_to_images(some.transpose(0, 3, 1, 2), low, high, kept),
        )
