"""Grad-CAM maps in the pixels of the field of view, from the networks' grids."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

Map = npt.NDArray[np.float32]


def network_map(grid: Map, height: int, width: int) -> Map:
    """Return the map of one network: its grid, upsampled bilinearly and divided by its maximum.

    Parameters
    ----------
    grid : float32 array [h, w]
        Non-negative, not normalised.

    Returns
    -------
    float32 array [height, width]
        In 0..1. A map that is zero everywhere stays zero: no part of the image is evidence of senescence.
    """
    upsampled = cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)
    peak = float(upsampled.max())
    return np.asarray(upsampled / peak if peak > 0 else upsampled, np.float32)


def ensemble_map(
    grids: Sequence[Map], probabilities: npt.NDArray[np.floating], height: int, width: int
) -> Map:
    """Return the map of the ensemble: the mean of the networks' maps, weighted with their probabilities.

    It is bright on senescent cells and dark on control cells, as in Figure 6 of the paper.

    Parameters
    ----------
    grids : sequence of K float32 arrays [h_k, w_k]
    probabilities : array [K]

    Returns
    -------
    float32 array [height, width]
        In 0..1.
    """
    total = np.zeros((height, width), np.float32)
    for grid, probability in zip(grids, probabilities, strict=True):
        total += np.float32(probability) * network_map(grid, height, width)
    total /= np.float32(len(grids))
    return total
