"""An image as a file stores it: planes that are read one at a time, and what is known of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from senoscope_client.images.calibration import Calibration
from senoscope_client.images.notices import Notice
from senoscope_client.wire.messages import Position


@dataclass(frozen=True)
class Labels:
    """What names the channels.

    Attributes
    ----------
    source : str
        What they are taken from, for messages.
    planes : sequence of str
        A label of each plane, empty where it has none; or none at all.
    samples : tuple of str
        Names of the samples within each plane; or none at all.
    """

    source: str
    planes: Sequence[str] = ()
    samples: tuple[str, ...] = ()


@dataclass(frozen=True)
class StoredImage:
    """An image that was opened but not yet decoded.

    Attributes
    ----------
    shape : tuple of int
        Leading axes, then those within a plane.
    axes : str
        A letter for each axis, I or Q where the file does not say; empty where it names none at all.
    inner : int
        How many of the last axes lie within a plane.
    dtype : dtype
        As stored.
    read_plane : callable
        Reads the plane with a number in C order of the leading axes: as detector counts, in the shape of the
        last ``inner`` axes.
    labels : Labels or None
    mentions : tuple of str
        Channels of the ensemble whose names are somewhere in the file's metadata.
    calibration : Calibration or None
        That ``read_plane`` applies.
    notices : tuple of Notice
    pixel_size_um : float or None
    position_of : callable or None
        Where the stage stood for a plane.
    """

    shape: tuple[int, ...]
    axes: str
    inner: int
    dtype: np.dtype[Any]
    read_plane: Callable[[int], npt.NDArray[Any]]
    labels: Labels | None = None
    mentions: tuple[str, ...] = ()
    calibration: Calibration | None = None
    notices: tuple[Notice, ...] = ()
    pixel_size_um: float | None = None
    position_of: Callable[[int], Position | None] | None = None
