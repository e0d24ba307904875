"""The interface between the ensemble and the hardware that runs its networks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

OUTPUT_NAMES = ("logit", "probability", "gradcam", "features")
INPUT_NAMES = ("image", "low", "high")

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class NetworkFile:
    """A network to run: its name, its ONNX file, and what goes in and comes out for one field of view.

    Attributes
    ----------
    gradcam_grid : tuple of int
        Rows and columns of its Grad-CAM map.
    feature_size : int
    input_shape : tuple of int
        Channels, rows and columns.
    """

    name: str
    path: Path
    gradcam_grid: tuple[int, int]
    feature_size: int
    input_shape: tuple[int, int, int]


class NetworkOutput(NamedTuple):
    """What one network says of a batch; the order is that of the graph's outputs.

    Attributes
    ----------
    logit, probability : float32 array [N]
    gradcam : float32 array [N, h, w]
    features : float32 array [N, C]
    """

    logit: Float32
    probability: Float32
    gradcam: Float32
    features: Float32


class Executor(Protocol):
    """Runs all networks of an ensemble on one batch.

    The ensemble creates it once, calls ``warm_up`` once, then ``run`` from one thread at a time, then
    ``close``. Whatever a run can share with the next (sessions, threads, buffers, captured graphs) is
    made in the first two.
    """

    @property
    def device(self) -> str:
        """``cuda`` or ``cpu``."""
        ...

    def warm_up(self, image: Float32, low: Float32, high: Float32) -> None:
        """Run as often as it takes for the next ``run`` to be as fast as any later one."""
        ...

    def run(self, image: Float32, low: Float32, high: Float32) -> list[NetworkOutput]:
        """Outputs of all networks, in their order, for a batch [N, C, H, W] in raw detector units."""
        ...

    @property
    def cools_down(self) -> bool:
        """Whether the device lowers its clocks when idle, so that the next frame would be late."""
        ...

    def keep_warm(self) -> None:
        """Do a little work, much less than a run; after ``warm_up`` only."""
        ...

    def describe(self) -> dict[str, Any]:
        """How the networks are arranged on the hardware, for people who read logs."""
        ...

    def close(self) -> None:
        """Let go of threads and device memory."""
        ...
