"""The intensity range of labelled data: fitted on pixels that were measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from senoscope.engine.intensity import fit_range
from senoscope_training.dataset.model import DataSetError

Float32 = npt.NDArray[np.float32]


def measured(pixels: npt.NDArray[Any], *, padded: bool) -> npt.NDArray[Any]:
    """The pixels of fields of view [N, C, H, W] that were measured.

    Parameters
    ----------
    padded : bool
        Whether small images stand on zeros: pixels that are zero in every channel then count as padding.
        Left in, they would be the median, and every cell an outlier.

    Returns
    -------
    array [1, C, 1, M], or the whole [N, C, H, W]
    """
    inside = (pixels != 0).any(axis=1)
    if not padded or not inside.any():
        return pixels
    return np.asarray(np.moveaxis(pixels, 1, -1)[inside].T[None, :, None, :])


def measured_range(
    pixels: npt.NDArray[Any], k_iqr: float, *, padded: bool
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Fit the range of each channel, low and high as float32 arrays [C]; see `measured`."""
    return fit_range(measured(pixels, padded=padded), k_iqr)


def require_range(low: Float32, high: Float32, channels: Sequence[str], where: str) -> None:
    """Refuse a range in which nothing can be told apart.

    Raises
    ------
    DataSetError
        Naming the channel and what to do.
    """
    for name, a, b in zip(channels, low, high, strict=True):
        if not b > np.nextafter(a, np.float32(np.inf)):
            raise DataSetError(
                f"{where}: more than half of all pixels of {name} have the value {a:g}, so that the "
                "intensity range is empty and all else counts as an outlier. Crop the background away, "
                "leave out empty fields of view, or raise normalization.k_iqr"
            )
