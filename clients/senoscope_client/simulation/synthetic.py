"""Synthetic fields of view of HepG2-like cells, control or senescent, with their true class.

The difference between the classes is documented in `senoscope_client.simulation.cells`. The images are for
demonstrations and tests; they are no evidence about real cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from senoscope_client.simulation.cells import CONTROL, SENESCENT, Scene
from senoscope_client.simulation.drawing import Image, blur, laplacian, smooth_noise
from senoscope_client.simulation.fov_defaults import CHANNELS, HEIGHT, PIXEL_SIZE_UM, WIDTH

__all__ = ["CHANNELS", "HEIGHT", "PIXEL_SIZE_UM", "WIDTH", "SyntheticFov", "is_senescent", "synthesize"]

_SMALLEST = 32
_FULL_SCALE = 4095  # of a 12-bit digitiser


@dataclass(frozen=True, slots=True, eq=False)
class SyntheticFov:
    """A field of view and its true class.

    Attributes
    ----------
    pixels : ndarray of uint16, shape (3, height, width)
        SRS, TPEF and Transmission in raw detector counts, 0 to 4095.
    senescent : bool
        Whether the cells are senescent.
    """

    pixels: npt.NDArray[np.uint16]
    senescent: bool


def is_senescent(seed: int, index: int) -> bool:
    """Return the true class of FOV ``index`` of a seed without rendering it; about half are senescent."""
    return bool(_rng(seed, index, 0).random() < 0.5)


def synthesize(
    seed: int, index: int, *, senescent: bool | None = None, height: int = HEIGHT, width: int = WIDTH
) -> SyntheticFov:
    """Render a field of view.

    Parameters
    ----------
    seed, index : int
        Together they determine every pixel; neither is negative.
    senescent : bool, optional
        The class to render; default: that of `is_senescent`.
    height, width : int
        In pixels of 0.35 um, at least 32. They do not change the size of the cells or their number per area.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """
    if height < _SMALLEST or width < _SMALLEST:
        raise ValueError(
            f"a FOV of {height}x{width} pixels is too small; the minimum is {_SMALLEST}x{_SMALLEST}"
        )
    rendered_class = is_senescent(seed, index) if senescent is None else senescent
    rng = _rng(seed, index, 1)
    scene = Scene(rng, height, width, SENESCENT if rendered_class else CONTROL)
    srs, tpef, path = scene.render()
    return SyntheticFov(_detect(rng, srs, tpef, path), rendered_class)


def _rng(seed: int, index: int, stream: int) -> np.random.Generator:
    if seed < 0 or index < 0:
        raise ValueError(f"seed and index must not be negative, got {seed} and {index}")
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(index, stream))))


def _detect(rng: np.random.Generator, srs: Image, tpef: Image, path: Image) -> npt.NDArray[np.uint16]:
    """Simulate raw counts: focus, illumination, shot noise, gain and offset of the three detectors."""
    focus = rng.uniform(0.7, 1.2)
    shading = 1 + np.float32(0.03) * smooth_noise(rng, srs.shape, 150)
    defocus = rng.uniform(3.0, 4.5)
    # Transport of intensity: slightly out of focus, a phase object shows the curvature of its optical path.
    fringes = np.clip(1 - defocus * laplacian(blur(path, 1.3 * focus)), 0.3, 2.2)
    photons = np.stack(
        (
            rng.uniform(85, 115) * (blur(srs, focus) * shading + 0.12),
            rng.uniform(17, 23) * (blur(tpef, focus) * shading + 0.03),
            rng.uniform(1350, 1650) * fringes * (1 - 0.12 * path) * shading,
        )
    )
    # The square root of a Poisson number is nearly normal with a standard deviation of 0.5. Unlike exact
    # Poisson numbers this needs one random number per pixel, so that a rounding difference between two
    # machines does not change other pixels.
    root = np.sqrt(np.clip(photons, 0, None) + 0.375) + 0.5 * rng.standard_normal(photons.shape, np.float32)
    counted = np.clip(root * root - 0.375, 0, None)
    gain = np.array([6.5, 42.0, 1.25]) * rng.uniform(0.93, 1.07, 3)
    offset = np.array([60.0, 25.0, 40.0])
    read = np.array([9.0, 4.0, 6.0])[:, None, None] * rng.standard_normal(photons.shape, np.float32)
    raw = counted * gain[:, None, None] + offset[:, None, None] + read
    counts: npt.NDArray[np.uint16] = np.clip(np.rint(raw), 0, _FULL_SCALE).astype(np.uint16)
    return counts
