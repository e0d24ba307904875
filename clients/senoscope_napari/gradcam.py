"""From the grids that a result carries to one Grad-CAM map in the pixels of the field of view."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from senoscope_client.models.result import Result

Map = npt.NDArray[np.float32]


def result_map(result: Result, network: str | None, height: int, width: int) -> Map:
    """The map of one network, or the ensemble's.

    Each network's map is upsampled bilinearly and divided by its own maximum, which gives M_k; the
    ensemble's is the mean of p_k M_k, bright where senescence is seen.

    Parameters
    ----------
    result : Result
        With its grids.
    network : str or None
        None: the ensemble's.

    Returns
    -------
    float32 array [height, width]
        In 0..1; zero where the result carries no such map.
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
    """How much of each cell each pixel gets: linear between the cells' centres, constant beyond the outer."""
    places = np.clip((np.arange(pixels) + 0.5) * cells / pixels - 0.5, 0, cells - 1)
    below = np.floor(places).astype(int)
    above = np.minimum(below + 1, cells - 1)
    part = (places - below).astype(np.float32)
    weights = np.zeros((pixels, cells), np.float32)
    rows = np.arange(pixels)
    weights[rows, below] = 1 - part
    weights[rows, above] += part
    return weights
