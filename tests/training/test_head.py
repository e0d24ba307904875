"""The paper's head and its training."""

from __future__ import annotations

import numpy as np
import pytest

from senoscope_training.config import FrozenPhase, HeadConfig
from senoscope_training.head import (
    VALIDATION_FRACTION,
    DeadHeadError,
    build_head,
    head_loss,
    stratified_split,
    train_head,
)
from senoscope_training.learning.images import FeatureExamples


def features(seed: int, count: int = 120, size: int = 300, scale: float = 1.0, offset: float = 0.0):
    """Max-pooled features as backbones have them: positive, of any scale, a tenth of them telling."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2 == 1
    values = rng.normal(4, 0.5, (count, size))
    values[:, : size // 10] += 0.8 * labels[:, None]
    return (scale * np.maximum(values, 0) + offset).astype(np.float32), labels


def train(x, labels, seed, **options):
    split = stratified_split(labels, VALIDATION_FRACTION, seed)
    learnt, held = (FeatureExamples(x[indices], labels[indices]) for indices in split)
    return train_head(learnt, held, seed, standardize=True, **options)


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (0.01, 0.0), (100.0, 0.0), (0.1, 20.0)])
def test_learns_whatever_the_scale_of_the_features(tensorflow, scale, offset):
    x, labels = features(0, scale=scale, offset=offset)
    trained = train(x[:80], labels[:80], seed=1)
    right = (trained.head.logits(x[80:]) > 0) == labels[80:]
    assert right.mean() >= 0.95


def test_same_seed_same_head(tensorflow):
    x, labels = features(0)
    first, second = (train(x, labels, seed=5) for _ in range(2))
    np.testing.assert_array_equal(first.head.w1, second.head.w1)
    other = train(x, labels, seed=6)
    assert not np.array_equal(first.head.w1, other.head.w1)


def test_features_without_signal_are_an_error(tensorflow):
    labels = np.arange(60) % 2 == 1
    with pytest.raises(DeadHeadError, match="no signal"):
        train(
            np.ones((60, 50), np.float32),
            labels,
            seed=0,
            config=HeadConfig(attempts=2),
            phase=FrozenPhase(max_epochs=2),
        )


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


def test_numpy_and_keras_agree_on_the_loss(tensorflow):
    import keras

    from senoscope_training.head import compile_for

    x, labels = features(3, count=40, size=20)
    keras.utils.set_random_seed(1)
    config = HeadConfig(activity_l2=0.05)
    model = build_head(20, config)
    compile_for(model, 1e-3)
    truth = labels.astype(np.float32)[:, None]
    ours = head_loss(model.get_weights(), x, truth, config)
    assert ours == pytest.approx(float(model.test_on_batch(x, truth)), rel=1e-6)
