"""An image as it is stored in a file: its planes, which are read one at a time, and their metadata."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from senoscope_client.images.calibration import Calibration
from senoscope_client.images.notices import Notice
from senoscope_client.wire.messages import Position


@dataclass(frozen=True)
class Labels:
    """Labels that name the channels.

    Attributes
    ----------
    source : str
        Metadata that contain the labels, for messages.
    planes : sequence of str
        The label of each plane, empty if it has none; or no labels at all.
    samples : tuple of str
        Names of the samples within each plane; or no names at all.
    """

    source: str
    planes: Sequence[str] = ()
    samples: tuple[str, ...] = ()


@dataclass(frozen=True)
class StoredImage:
    """An image that is opened but not decoded.

    Attributes
    ----------
    shape : tuple of int
        Leading axes, then the axes within a plane.
    axes : str
        A letter for each axis, I or Q for axes that the file does not name; empty if it names none.
    inner : int
        Number of the last axes that are within a plane.
    dtype : dtype
        As stored.
    read_plane : callable
        Reads the plane with a number in C order of the leading axes: as detector counts, in the shape of the
        last ``inner`` axes.
    labels : Labels or None
    mentions : tuple of str
        Channels of the ensemble whose names occur anywhere in the file's metadata.
    calibration : Calibration or None
        Applied by ``read_plane``.
    notices : tuple of Notice
    pixel_size_um : float or None
    position_of : callable or None
        Returns the stage position of a plane.
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

    @property
    def nbytes(self) -> int:
        """Bytes of all decoded planes."""
        return prod(self.shape) * self.dtype.itemsize
