"""From raw counts to what networks take, in batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from senoscope.engine.intensity import fit_range
from senoscope_training.networks.augmentation import Copies

Float32 = npt.NDArray[np.float32]
Preprocess = Callable[[Float32], Float32]
_KEEP_BYTES = 1_500_000_000
_RENDERED = 64  # images at a time


class Examples(Protocol):
    """What a model learns from, or is judged by."""

    def __len__(self) -> int: ...

    def batch(self, indices: npt.NDArray[np.int64]) -> tuple[Float32, Float32]:
        """Inputs [K, ...] and truth [K, 1] of some of them."""
        ...


class FeatureExamples:
    """Pooled features that were computed once.

    Parameters
    ----------
    features : float32 array [N, C]
    labels : bool array [N]
    """

    def __init__(self, features: Float32, labels: npt.NDArray[np.bool_]) -> None:
        self.features = features
        self.truth = labels.astype(np.float32)[:, None]

    def __len__(self) -> int:
        return len(self.features)

    def batch(self, indices: npt.NDArray[np.int64]) -> tuple[Float32, Float32]:
        """Features [K, C] and truth [K, 1]."""
        return self.features[indices], self.truth[indices]


class ImageExamples:
    """Augmented images, made when asked for, or kept where memory allows.

    Parameters
    ----------
    images : uint8 array [N, H, W, C]
        Scaled originals.
    labels : bool array [N]
    copies : Copies
    preprocess : callable
        From float32 images of 0..255 to what the network takes.
    scale : callable, optional
        From ``images`` to images of 0..255, where ``images`` are raw counts: copies are then made of counts,
        and scaled afterwards.
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
        """How many are no copies; they come first."""
        return len(self._images)

    def batch(self, indices: npt.NDArray[np.int64]) -> tuple[Float32, Float32]:
        """Preprocessed images [K, H, W, C] and truth [K, 1]."""
        return self.inputs(indices), self._truth[indices]

    def inputs(self, indices: npt.NDArray[np.int64]) -> Float32:
        """Preprocessed images [K, H, W, C]."""
        return self._preprocess(self.scaled(indices).astype(np.float32))

    def scaled(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Images of 0..255, uint8 [K, H, W, C]."""
        if self._made is None and len(self) * self._images[0].size <= _KEEP_BYTES:
            self._made = np.empty((len(self), *self._images.shape[1:]), np.uint8)
            for first in range(0, len(self), _RENDERED):
                part = np.arange(first, min(first + _RENDERED, len(self)))
                self._made[part] = self._render(part)
        if self._made is not None:
            return self._made[indices]
        return self._render(indices)

    def _render(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        made = self._copies.render(self._images, indices)
        return made if self._scale is None else self._scale(made)


def augmented_range(
    counts: npt.NDArray[Any], copies: Copies, k_iqr: float, *, padded: bool
) -> tuple[Float32, Float32]:
    """The intensity range of raw counts [N, H, W, C] with their copies, as the authors' code fits it.

    The zeros that fill the corners of copies count as pixels.

    Parameters
    ----------
    padded : bool
        Whether small images stand on zeros: pixels that are zero in every channel do not count then, the
        corners of copies included, for zero would be the median.

    Returns
    -------
    low, high : float32 array [C]
    """
    everything = np.arange(len(copies))
    channels = range(counts.shape[3])
    # One channel at a time: all copies of all channels are a few GB.
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
    """Raw counts [N, C, H, W] to images of 0..255 [N, H, W, C], as exported graphs scale them.

    Parameters
    ----------
    kept : tuple of int, optional
        Channels to keep; the others become zero.
    """
    made = np.empty((len(pixels), *pixels.shape[2:], pixels.shape[1]), np.uint8)
    bounds = [np.asarray(bound, np.float32)[:, None, None] for bound in (low, high)]
    for fov, image in zip(pixels, made, strict=True):
        unit = (fov.astype(np.float32) - bounds[0]) / (bounds[1] - bounds[0])
        image[:] = np.clip(unit * np.float32(255), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    if kept is not None:
        made[..., [c for c in range(made.shape[3]) if c not in kept]] = 0
    return made
