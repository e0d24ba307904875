"""The paper's head and its training."""

from __future__ import annotations

import numpy as np
import pytest

from senoscope_training.head import DeadHeadError, HeadConfig, build_head, stratified_split, train_head


def features(seed: int, count: int = 120, size: int = 300, scale: float = 1.0, offset: float = 0.0):
    """Max-pooled features as backbones have them: positive, of any scale, a tenth of them telling."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2 == 1
    values = rng.normal(4, 0.5, (count, size))
    values[:, : size // 10] += 0.8 * labels[:, None]
    return (scale * np.maximum(values, 0) + offset).astype(np.float32), labels


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (0.01, 0.0), (100.0, 0.0), (0.1, 20.0)])
def test_learns_whatever_the_scale_of_the_features(tensorflow, scale, offset):
    x, labels = features(0, scale=scale, offset=offset)
    trained = train_head(x[:80], labels[:80], seed=1)
    right = (trained.head.logits(x[80:]) > 0) == labels[80:]
    assert right.mean() >= 0.95


def test_same_seed_same_head(tensorflow):
    x, labels = features(0)
    first, second = (train_head(x, labels, seed=5) for _ in range(2))
    np.testing.assert_array_equal(first.head.w1, second.head.w1)
    np.testing.assert_array_equal(first.validation, second.validation)
    other = train_head(x, labels, seed=6)
    assert not np.array_equal(first.validation, other.validation)


def test_features_without_signal_are_an_error(tensorflow):
    labels = np.arange(60) % 2 == 1
    with pytest.raises(DeadHeadError, match="no signal"):
        train_head(np.ones((60, 50), np.float32), labels, seed=0, config=HeadConfig(max_epochs=2, attempts=2))


def test_split_is_stratified_and_complete():
    labels = np.arange(170) < 60
    train, held = stratified_split(labels, 43 / 170, seed=3)
    assert sorted([*train, *held]) == list(range(170))
    assert labels[held].sum() == round(60 * 43 / 170)
    assert (~labels[held]).sum() == round(110 * 43 / 170)


def test_head_is_the_papers(tensorflow):
    layers = {layer.name: layer for layer in build_head(7, HeadConfig()).layers}
    assert layers["dropout"].rate == 0.8
    hidden = layers["hidden"]
    assert hidden.units == 4
    assert hidden.activation.__name__ == "relu"
    configs = [
        hidden.kernel_regularizer.get_config(),
        hidden.bias_regularizer.get_config(),
        hidden.activity_regularizer.get_config(),
    ]
    assert configs == [
        {"l1": pytest.approx(0.01), "l2": pytest.approx(0.01)},
        {"l2": pytest.approx(0.01)},
        {"l2": pytest.approx(5e-5)},
    ]
    assert layers["logit"].units == 1
