"""Augmentation of fields of view."""

from __future__ import annotations

import numpy as np
import pytest

from senoscope_training.networks.augmentation import plan_copies
from senoscope_training.networks.images import scale_to_images
from senoscope_training.networks.settings import AugmentationConfig

LABELS = np.arange(10) < 4


def images(count: int = 10, height: int = 40, width: int = 60):
    return np.random.default_rng(0).integers(1, 256, (count, height, width, 3), dtype=np.uint8)


def test_originals_come_first_and_unchanged():
    copies = plan_copies(LABELS, 40, 60, AugmentationConfig(copies=3), seed=1)
    assert len(copies) == 40
    np.testing.assert_array_equal(copies.render(images(), np.arange(10)), images())
    assert np.bincount(copies.source).tolist() == [4] * 10


def test_copies_depend_on_the_seed():
    first, same, other = (plan_copies(LABELS, 40, 60, AugmentationConfig(), seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.transforms, same.transforms)
    assert not np.array_equal(first.transforms, other.transforms)


def test_drawing_with_replacement_preserves_the_fractions_of_classes():
    config = AugmentationConfig(copies=11, draw="with_replacement")
    copies = plan_copies(LABELS, 40, 60, config, seed=1)
    assert len(copies) == 120
    assert LABELS[copies.source].sum() == 4 * 12
    assert len(set(np.bincount(copies.source).tolist())) > 1


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (AugmentationConfig(copies=1, rotation_deg=0, shift=0, horizontal_flip=False), (5, 12)),
        (AugmentationConfig(copies=1, rotation_deg=0, shift=0.5, horizontal_flip=False), None),
    ],
)
def test_without_transformation_copies_are_the_originals(config, expected):
    stack = np.zeros((10, 20, 30, 3), np.uint8)
    stack[:, 5, 12] = 200
    made = plan_copies(LABELS, 20, 30, config, seed=3).render(stack, np.arange(10, 20))
    if expected is not None:
        np.testing.assert_array_equal(made, stack)
    else:
        assert not np.array_equal(made, stack)


def test_about_half_of_the_copies_are_mirrored_about_the_centre():
    stack = np.zeros((1000, 5, 9, 3), np.uint8)
    stack[:, 2, 1] = 90
    config = AugmentationConfig(copies=1, rotation_deg=0, shift=0)
    made = plan_copies(np.arange(1000) < 500, 5, 9, config, seed=4).render(stack, np.arange(1000, 2000))
    mirrored = made[:, 2, 7, 0] == 90
    assert 400 < mirrored.sum() < 600
    assert (made[~mirrored][:, 2, 1, 0] == 90).all()


def test_angles_and_shifts_are_limited_and_corners_are_zero():
    stack = np.full((1, 101, 101, 3), 255, np.uint8)
    config = AugmentationConfig(copies=100, rotation_deg=45, shift=0.15, horizontal_flip=False)
    copies = plan_copies(np.array([True]), 101, 101, config, seed=5)
    linear = copies.transforms[1:, :, :2]
    angles = np.rad2deg(np.arctan2(linear[:, 1, 0], linear[:, 0, 0]))
    assert np.abs(angles).max() <= 45
    assert np.abs(angles).max() > 35
    # No zoom and no shear: the linear part is a rotation.
    np.testing.assert_allclose(np.linalg.det(linear), 1, atol=1e-6)
    centre = np.array([50.0, 50.0])
    moved = np.einsum("nij,j->ni", linear, centre) + copies.transforms[1:, :, 2] - centre
    assert np.linalg.norm(moved, axis=1).max() <= 0.15 * 101 * np.sqrt(2) + 1e-3
    made = copies.render(stack, np.arange(1, 101))
    assert (made == 0).any(axis=(1, 2, 3)).all()


def test_only_the_channels_to_keep_are_not_zero():
    pixels = np.random.default_rng(1).integers(0, 4000, (3, 3, 20, 30), dtype=np.uint16)
    low, high = np.array([100, 200, 0.5], np.float32), np.array([3000, 2500, 3999.5], np.float32)
    ours = scale_to_images(pixels, low, high)
    blanked = scale_to_images(pixels, low, high, kept=(0, 2))
    np.testing.assert_array_equal(blanked[..., [0, 2]], ours[..., [0, 2]])
    assert (blanked[..., 1] == 0).all()
