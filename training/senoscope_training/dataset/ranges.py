"""The intensity range of a data set, fitted without padded pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from senoscope.engine.intensity import fit_range
from senoscope_training.dataset.model import DataSetError

Float32 = npt.NDArray[np.float32]


def measured_pixels(pixels: npt.NDArray[Any], *, padded: bool) -> npt.NDArray[Any]:
    """Remove padded pixels from fields of view [N, C, H, W].

    Parameters
    ----------
    padded : bool
        Whether small images are padded with zeros: pixels that are zero in every channel are then removed.
        Otherwise the median could be zero, and every cell an outlier.

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
    """Fit the range of each channel to `measured_pixels`; return low and high, float32 arrays [C]."""
    return fit_range(measured_pixels(pixels, padded=padded), k_iqr)


def require_range(low: Float32, high: Float32, channels: Sequence[str], where: str) -> None:
    """Require that no range is empty.

    Raises
    ------
    DataSetError
        If a range is empty; the message contains the channel and a remedy.
    """
    for name, a, b in zip(channels, low, high, strict=True):
        if not b > np.nextafter(a, np.float32(np.inf)):
            raise DataSetError(
                f"{where}: more than half of all pixels of {name} have the value {a:g}, so the intensity "
                "range is empty, and all other pixels are outliers. Crop the background, remove empty fields "
                "of view, or increase normalization.k_iqr"
            )
