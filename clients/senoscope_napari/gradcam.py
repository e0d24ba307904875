"""Computation of a Grad-CAM map in the pixels of the field of view from the grids of a result."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from senoscope_client.models.result import Result

Map = npt.NDArray[np.float32]


def result_map(result: Result, network: str | None, height: int, width: int) -> Map:
    """Compute the map of one network, or of the ensemble.

    Each network's map is upsampled bilinearly and divided by its maximum, which gives M_k; the map of the
    ensemble is the mean of p_k M_k, which is large at evidence of senescence.

    Parameters
    ----------
    result : Result
        With its grids.
    network : str or None
        None: the map of the ensemble.

    Returns
    -------
    float32 array [height, width]
        From 0 to 1; zero if the result has no such map.
    """
    grids = result.gradcam.grids or {}
    if network is not None:
        return _network_map(grids.get(network, [[0.0]]), height, width)
    total = np.zeros((height, width), np.float32)
    for name, grid in grids.items():
        total += np.float32(result.networks[name]) * _network_map(grid, height, width)
    return total / np.float32(max(len(grids), 1))


def _network_map(grid: list[list[float]], height: int, width: int) -> Map:
    cells = np.asarray(grid, np.float32)
    upsampled = _weights(cells.shape[0], height) @ cells @ _weights(cells.shape[1], width).T
    peak = float(upsampled.max())
    return np.asarray(upsampled / peak if peak > 0 else upsampled, np.float32)


@lru_cache(maxsize=32)
def _weights(cells: int, pixels: int) -> Map:
    """Return the weights of cells for each pixel: linear between the centres of cells, constant outside."""
    positions = (np.arange(pixels) + 0.5) * cells / pixels - 0.5
    columns = [np.interp(positions, np.arange(cells), cell) for cell in np.eye(cells)]
    return np.stack(columns, axis=1).astype(np.float32)
