"""Fields of view for measurements of time, of the shape that any ensemble takes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from senoscope_client.simulation.synthetic import synthesize

_SEED = 17
_RENDERED = 16  # further ones are repetitions: rendering takes longer than a fast GPU


def fovs_for(shape: tuple[int, int, int], number: int) -> npt.NDArray[np.uint16]:
    """Return synthetic fields of view; channels after the third repeat the first three.

    Parameters
    ----------
    shape : tuple of int
        Channels, rows and columns.
    number : int
        Of fields of view, N.

    Returns
    -------
    ndarray of uint16, shape (N, C, H, W)
    """
    channels, height, width = shape
    rendered = [
        synthesize(_SEED, n, height=height, width=width).pixels for n in range(min(number, _RENDERED))
    ]
    planes = np.arange(channels) % len(rendered[0])
    return np.stack([rendered[n % len(rendered)][planes] for n in range(number)])
