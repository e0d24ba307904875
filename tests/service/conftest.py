"""Fixtures of several tests of the service."""

from __future__ import annotations

import numpy as np
import pytest

from support import miniature as mini


@pytest.fixture(scope="module")
def fovs() -> np.ndarray:
    """Return four FOVs, uint16, alternately senescent and control, with some texture."""
    texture = np.random.default_rng(5).integers(0, 50, (4, 3, 250, 300), dtype=np.uint16)
    return np.stack([mini.bright(), mini.dark()] * 2) + texture
