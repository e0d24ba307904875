"""The synthetic fields of view on which a starter ensemble is trained and tested."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from senoscope_client.simulation.synthetic import synthesize

# Seeds of simulated microscopes start at zero; these are different, so that a demonstration never contains a
# field of view that the ensemble was trained on.
_FIRST_SEED = 7_946_845


@dataclass(frozen=True)
class LabelledFovs:
    """Raw counts [N, C, H, W] of fields of view, and their labels [N], True for senescent."""

    pixels: npt.NDArray[np.uint16]
    labels: npt.NDArray[np.bool_]

    def sha256(self) -> str:
        """Compute a digest of pixels and labels."""
        digest = hashlib.sha256(np.ascontiguousarray(self.pixels).tobytes())
        digest.update(self.labels.tobytes())
        return digest.hexdigest()


def synthetic_fovs(seed: int, first: int, count: int, height: int, width: int) -> LabelledFovs:
    """Synthesize FOVs ``first`` to ``first + count - 1`` of a seed, with alternating classes."""
    made = [
        synthesize(_FIRST_SEED + seed, index, senescent=bool(index % 2), height=height, width=width)
        for index in range(first, first + count)
    ]
    return LabelledFovs(
        np.stack([fov.pixels for fov in made]), np.array([fov.senescent for fov in made], np.bool_)
    )
