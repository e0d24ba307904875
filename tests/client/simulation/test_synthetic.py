"""Synthetic fields of view: reproducible, of the stated class, and within the range of a detector."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from senoscope_client.simulation.synthetic import is_senescent, synthesize


def test_seed_and_index_determine_every_pixel_in_any_process():
    code = (
        "import hashlib; from senoscope_client.simulation.synthetic import synthesize;"
        "print(hashlib.sha256(synthesize(7, 3).pixels.tobytes()).hexdigest())"
    )
    digests = {
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout for _ in range(2)
    }
    assert len(digests) == 1
    first, again = synthesize(7, 3).pixels, synthesize(7, 3).pixels
    np.testing.assert_array_equal(first, again)


def test_fovs_differ():
    fovs = {synthesize(seed, index).pixels.tobytes() for seed in range(2) for index in range(3)}
    assert len(fovs) == 6


def test_is_senescent_returns_the_rendered_class():
    assert all(synthesize(5, n).senescent == is_senescent(5, n) for n in range(8))
    share = np.mean([is_senescent(5, n) for n in range(1000)])
    assert 0.45 < share < 0.55


def test_a_class_can_be_chosen():
    assert {synthesize(1, 0, senescent=truth).senescent for truth in (True, False)} == {True, False}


@pytest.mark.parametrize("shape", [(250, 300), (64, 48), (301, 517)])
def test_pixels_are_12_bit_counts_of_the_given_size(shape):
    fov = synthesize(0, 0, height=shape[0], width=shape[1])
    assert fov.pixels.shape == (3, *shape)
    assert fov.pixels.dtype == np.uint16
    assert fov.pixels.flags.c_contiguous
    assert fov.pixels.max() <= 4095
    assert np.mean(fov.pixels == 4095) < 0.01


def test_the_classes_differ_like_real_cells():
    control, senescent = (
        np.stack([synthesize(11, n, senescent=truth).pixels for n in range(12)]) for truth in (False, True)
    )
    # Senescent cells have more and larger lipid droplets, and clumped mitochondria.
    droplets = [np.quantile(fovs[:, 0], 0.99, axis=(1, 2)) for fovs in (control, senescent)]
    clumps = [np.quantile(fovs[:, 1], 0.995, axis=(1, 2)) for fovs in (control, senescent)]
    assert droplets[1].min() > droplets[0].max()
    assert np.median(clumps[1]) > 1.3 * np.median(clumps[0])
    # Transmission is bright with dark cells; in SRS, bright cells are on a dark background.
    for fovs in (control, senescent):
        assert np.median(fovs[:, 2]) > 5 * np.median(fovs[:, 0])


@pytest.mark.parametrize(("seed", "index", "size"), [(-1, 0, 250), (0, -1, 250), (0, 0, 8)])
def test_invalid_arguments_are_rejected(seed, index, size):
    with pytest.raises(ValueError, match=r"negative|small"):
        synthesize(seed, index, height=size)
