"""Random kernels that are identical on every machine: fixed numbers, and their composition."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from senoscope.starter.kernels import binomial_window, draw_taps, random_kernel

SHAPE = (6, 4, 3, 5)
EXPECTED_TAPS = [-6171, -573, 9605, -9241]
EXPECTED_SHA256 = "80d0a98dace5a325ef1412c21ff7603828ad787fe7e038f44b4366377908cfcd"


def test_draws_are_fixed() -> None:
    """They must never change: the hashes in the package's recipe depend on them."""
    taps = draw_taps(7, "resnet50", 3, SHAPE)
    assert taps.dtype == np.float32
    assert (taps.ravel()[:4] * 2**15).astype(int).tolist() == EXPECTED_TAPS
    assert hashlib.sha256(taps.astype("<f4").tobytes()).hexdigest() == EXPECTED_SHA256


@pytest.mark.parametrize(
    "other", [(8, "resnet50", 3, SHAPE), (7, "mobilenet", 3, SHAPE), (7, "resnet50", 4, SHAPE)]
)
def test_each_kernel_of_each_network_and_seed_has_its_own_stream(other: tuple) -> None:
    assert not np.array_equal(draw_taps(7, "resnet50", 3, SHAPE), draw_taps(*other))


def test_draws_are_uniform_multiples_of_a_power_of_two() -> None:
    taps = draw_taps(0, "xception", 0, (100, 100, 3, 3))
    assert np.array_equal(taps * 2**15, np.round(taps * 2**15))
    assert -1 <= taps.min() < -0.999
    assert 0.999 < taps.max() < 1
    assert abs(taps.mean()) < 0.01
    assert abs(np.square(taps.astype(np.float64)).mean() - 1 / 3) < 0.005


def test_an_odd_number_of_taps_is_a_prefix_of_the_stream() -> None:
    long, short = draw_taps(1, "a", 0, (1, 1, 1, 9)), draw_taps(1, "a", 0, (1, 1, 1, 7))
    assert np.array_equal(long[..., :7], short)


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (1, 7), (5, 5), (7, 7)])
def test_windows_are_exact_and_have_the_sum_one(size: tuple[int, int]) -> None:
    window = binomial_window(*size)
    assert window.shape == size
    assert float(window.astype(np.float64).sum()) == 1.0
    assert np.array_equal(window * 2**12, np.round(window * 2**12))


def test_a_smooth_kernel_is_one_tap_for_each_pair_of_channels_times_the_window_and_the_scale() -> None:
    scale = np.linspace(-1, 2, 6, dtype=np.float32)
    kernel = random_kernel(7, "resnet50", 3, SHAPE, scale, smooth=True)
    taps = draw_taps(7, "resnet50", 3, (6, 4, 1, 1))
    np.testing.assert_allclose(
        kernel, taps * binomial_window(3, 5) * scale[:, None, None, None], rtol=1e-6, atol=0
    )


def test_a_kernel_that_is_not_smooth_is_its_taps_times_the_scale() -> None:
    scale = np.linspace(-1, 2, 6, dtype=np.float32)
    kernel = random_kernel(7, "resnet50", 3, SHAPE, scale, smooth=False)
    assert np.array_equal(kernel, draw_taps(7, "resnet50", 3, SHAPE) * scale[:, None, None, None])


def test_a_kernel_without_a_stream_is_the_window_times_the_scale() -> None:
    kernel = random_kernel(0, "", None, (2, 1, 3, 3), np.float32([2, -3]), smooth=True)
    assert np.array_equal(kernel[:, 0], np.stack([2 * binomial_window(3, 3), -3 * binomial_window(3, 3)]))
