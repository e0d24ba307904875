"""Properties of a file that are kept when its pixels are not."""

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
    """Properties of a file."""

    height: int
    width: int
    """Size before any padding or resizing."""
    dtype: str
    pixel_sha256: str
    """Digest of the decoded pixels, independent of the file format."""
    average_hash: bytes | None
    """256 bits: which of 16x16 blocks are brighter than their mean. None for an image without contrast."""
    zero_levels: tuple[float, ...] = ()
    """The 1st percentile of each channel."""
    warnings: tuple[str, ...] = ()
    by_position: tuple[str, ...] = ()
    """See `senoscope_training.dataset.pixels.Decoded`."""
    grey: bool = False
    """Whether the file contains only one plane."""
    bright_levels: tuple[float, ...] = ()
    """The 99th percentile of each channel."""


def facts_of(decoded: Decoded) -> FileFacts:
    """Collect the properties of a decoded file."""
    pixels = decoded.pixels
    digest = hashlib.sha256(f"{pixels.shape} {pixels.dtype.str}".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    height, width = pixels.shape[1:]
    percentiles = (_ZERO_PERCENTILE, _BRIGHT_PERCENTILE)
    dark, bright = np.array([np.percentile(plane, percentiles) for plane in pixels]).T.tolist()
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
    resized = (cv2.resize(plane.astype(np.float32), edge, interpolation=cv2.INTER_AREA) for plane in pixels)
    blocks = [block for block in (one.astype(np.float64) for one in resized) if block.std() > 0]
    if not blocks:
        return None
    # Standardized, so that all channels have the same weight, independent of detector gains.
    mean = np.mean([(block - block.mean()) / block.std() for block in blocks], axis=0)
    return np.packbits(mean > mean.mean()).tobytes()
