"""PCA and a support vector machine on pooled features."""

from __future__ import annotations

import numpy as np

from senoscope_training.networks.augmentation import first_copies, plan_copies
from senoscope_training.networks.hybrid import train_hybrid
from senoscope_training.networks.settings import AugmentationConfig, HybridConfig

GRID = HybridConfig(c=(0.1, 10), gamma=(1,), degree=(2, 3))


def data(count: int, seed: int, signal: float = 3.0):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2 == 1
    return (rng.normal(0, 1, (count, 12)) + signal * labels[:, None]).astype(np.float32), labels


def test_classifies_and_reports_the_chosen_parameters():
    features, labels = data(60, 0)
    test, truth = data(40, 1)
    votes = train_hybrid(features, labels, np.arange(60), test, GRID, seed=0)
    assert (votes.votes == truth).mean() >= 0.95
    assert set(votes.chosen) == {"C", "gamma", "degree"}
    assert votes.chosen["C"] in GRID.c
    again = train_hybrid(features, labels, np.arange(60), test, GRID, seed=0)
    np.testing.assert_array_equal(votes.votes, again.votes)
    assert votes.chosen == again.chosen


def test_copies_of_a_fov_do_not_bias_the_cross_validation():
    """Random labels, each FOV five times: a fold that tests on copies would have an accuracy of 1."""
    rng = np.random.default_rng(0)
    base = rng.normal(0, 1, (30, 12)).astype(np.float32)
    labels = rng.permutation(np.arange(30) % 2 == 1)
    features = np.concatenate([base + 0.001 * rng.normal(0, 1, base.shape) for _ in range(5)])
    votes = train_hybrid(
        features.astype(np.float32), np.tile(labels, 5), np.tile(np.arange(30), 5), base, GRID, seed=0
    )
    assert votes.validation_accuracy < 0.8


def test_first_copies_are_one_of_each_fov():
    copies = plan_copies(np.arange(7) < 3, 10, 10, AugmentationConfig(copies=4), seed=0)
    chosen = first_copies(copies, 7, 1)
    assert np.bincount(copies.source[chosen]).tolist() == [2] * 7
    assert chosen[:7].tolist() == list(range(7))
