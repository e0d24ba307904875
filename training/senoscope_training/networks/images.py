"""Batches of training examples, and the scaling of raw counts to images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from senoscope.engine.intensity import fit_range
from senoscope_training.networks.augmentation import Copies

Float32 = npt.NDArray[np.float32]
Preprocess = Callable[[Float32], Float32]
_MAX_KEPT_BYTES = 1_500_000_000
_RENDER_BATCH = 64  # images


class FeatureExamples:
    """Pooled features [N, C], computed in advance."""

    def __init__(self, features: Float32, labels: npt.NDArray[np.bool_]) -> None:
        self.features = features
        self.truth = labels.astype(np.float32)[:, None]

    def __len__(self) -> int:
        return len(self.features)

    def batch(self, indices: npt.NDArray[np.int64]) -> tuple[Float32, Float32]:
        """Return features [K, C] and truth [K, 1]."""
        return self.features[indices], self.truth[indices]


class ImageExamples:
    """Augmented images, computed on demand, and kept if they are not too large.

    Parameters
    ----------
    images : array [N, H, W, C]
        Originals, scaled to 0..255.
    preprocess : callable
        Converts float32 images of 0..255 to the input of the network.
    scale : callable, optional
        If ``images`` are raw counts: scales them to 0..255, after the augmentation.
    """

    def __init__(
        self,
        images: npt.NDArray[Any],
        labels: npt.NDArray[np.bool_],
        copies: Copies,
        preprocess: Preprocess,
        scale: Callable[[npt.NDArray[Any]], npt.NDArray[np.uint8]] | None = None,
    ) -> None:
        self._images = images
        self._scale = scale
        self._copies = copies
        self._preprocess = preprocess
        self.labels = labels[copies.source]
        self._truth = self.labels.astype(np.float32)[:, None]
        self._made: npt.NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self._copies)

    @property
    def originals(self) -> int:
        """Number of originals, which come before the copies."""
        return len(self._images)

    def batch(self, indices: npt.NDArray[np.int64]) -> tuple[Float32, Float32]:
        """Return preprocessed images [K, H, W, C] and truth [K, 1]."""
        return self.inputs(indices), self._truth[indices]

    def inputs(self, indices: npt.NDArray[np.int64]) -> Float32:
        """Return preprocessed images [K, H, W, C]."""
        return self._preprocess(self.scaled(indices).astype(np.float32))

    def scaled(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Return images of 0..255, uint8 [K, H, W, C]."""
        if self._made is None and len(self) * self._images[0].size <= _MAX_KEPT_BYTES:
            self._made = np.empty((len(self), *self._images.shape[1:]), np.uint8)
            for part in batches(len(self), _RENDER_BATCH):
                self._made[part] = self._render(part)
        if self._made is not None:
            return self._made[indices]
        return self._render(indices)

    def _render(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        made = self._copies.render(self._images, indices)
        return made if self._scale is None else self._scale(made)


Examples = FeatureExamples | ImageExamples
"""Examples for training or validation; ``batch`` returns inputs [K, ...] and truth [K, 1]."""


def batches(count: int, size: int) -> list[npt.NDArray[np.int64]]:
    """Return the indices 0 to ``count - 1`` in batches of ``size``; the last may be smaller."""
    return [np.arange(first, min(first + size, count)) for first in range(0, count, size)]


def augmented_range(
    counts: npt.NDArray[Any], copies: Copies, k_iqr: float, *, padded: bool
) -> tuple[Float32, Float32]:
    """Fit the intensity range to raw counts [N, H, W, C] and their copies, as the authors' code does.

    The zeros in the corners of copies are included, unless small images are ``padded`` with zeros: then
    pixels that are zero in every channel are excluded, because the median could be zero.
    """
    everything = np.arange(len(copies))
    channels = range(counts.shape[3])
    # One channel at a time, because all copies of all channels take several GB.
    inside: npt.NDArray[np.bool_] | None = None
    if padded:
        inside = np.zeros((len(copies), *counts.shape[1:3]), np.bool_)
        for c in channels:
            inside |= copies.render(counts[..., c : c + 1], everything)[..., 0] != 0
    bounds = []
    for c in channels:
        values = copies.render(counts[..., c : c + 1], everything)[..., 0]
        measured = values if inside is None or not inside.any() else values[inside]
        low, high = fit_range(measured.reshape(1, 1, -1), k_iqr)
        bounds.append((low[0], high[0]))
    lows, highs = np.array(bounds, np.float32).T
    return lows, highs


def scale_to_images(
    pixels: npt.NDArray[Any], low: Float32, high: Float32, kept: tuple[int, ...] | None = None
) -> npt.NDArray[np.uint8]:
    """Scale raw counts [N, C, H, W] to images of 0..255 [N, H, W, C], in the same way as exported graphs.

    Channels that are not in ``kept`` are set to zero.
    """
    made = np.empty((len(pixels), *pixels.shape[2:], pixels.shape[1]), np.uint8)
    bounds = [np.asarray(bound, np.float32)[:, None, None] for bound in (low, high)]
    for fov, image in zip(pixels, made, strict=True):
        unit = (fov.astype(np.float32) - bounds[0]) / (bounds[1] - bounds[0])
        image[:] = np.clip(unit * np.float32(255), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    if kept is not None:
        made[..., [c for c in range(made.shape[3]) if c not in kept]] = 0
    return made
