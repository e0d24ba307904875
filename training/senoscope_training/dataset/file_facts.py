"""What is remembered of a file when its pixels are let go."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from senoscope_training.dataset.pixels import Decoded

_HASH_EDGE = 16
_ZERO_PERCENTILE, _BRIGHT_PERCENTILE = 1.0, 99.0


@dataclass(frozen=True)
class FileFacts:
    """What was found in a file.

    Attributes
    ----------
    height, width : int
        Before any padding or resizing.
    dtype : str
    pixel_sha256 : str
        Of the pixels as decoded, whatever the container.
    average_hash : bytes or None
        256 bits: which of 16x16 blocks are brighter than their mean. None for a flat image.
    zero_levels, bright_levels : tuple of float
        Of each channel: what one pixel in a hundred is darker than, and what one is brighter than.
    warnings, by_position : tuple of str
        See `senoscope_training.dataset.pixels.Decoded`.
    grey : bool
        Whether it holds one plane alone.
    """

    height: int
    width: int
    dtype: str
    pixel_sha256: str
    average_hash: bytes | None
    zero_levels: tuple[float, ...] = ()
    warnings: tuple[str, ...] = ()
    by_position: tuple[str, ...] = ()
    grey: bool = False
    bright_levels: tuple[float, ...] = ()


def facts_of(decoded: Decoded) -> FileFacts:
    """The facts of a field of view."""
    pixels = decoded.pixels
    digest = hashlib.sha256(f"{pixels.shape} {pixels.dtype.str}".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    height, width = pixels.shape[1:]
    marks = (_ZERO_PERCENTILE, _BRIGHT_PERCENTILE)
    dark, bright = np.array([np.percentile(plane, marks) for plane in pixels]).T.tolist()
    return FileFacts(
        height,
        width,
        pixels.dtype.name,
        digest.hexdigest(),
        _average_hash(pixels),
        tuple(dark),
        decoded.warnings,
        decoded.by_position,
        decoded.grey,
        tuple(bright),
    )


def _average_hash(pixels: npt.NDArray[Any]) -> bytes | None:
    edge = (_HASH_EDGE, _HASH_EDGE)
    blocks = [
        cv2.resize(plane.astype(np.float32), edge, interpolation=cv2.INTER_AREA).astype(np.float64)
        for plane in pixels
    ]
    spreads = [float(block.std()) for block in blocks]
    # Channels count alike, whatever the gain of their detectors.
    seen = [
        (block - block.mean()) / spread for block, spread in zip(blocks, spreads, strict=True) if spread > 0
    ]
    if not seen:
        return None
    mean = np.mean(seen, axis=0)
    return np.packbits(mean > mean.mean()).tobytes()
