"""The paper's head and its training."""

from __future__ import annotations

import numpy as np
import pytest

from senoscope_training.metrics import auc
from senoscope_training.networks.head import (
    VALIDATION_FRACTION,
    build_head,
    dead_reason,
    head_loss,
    stratified_split,
    train_head,
)
from senoscope_training.networks.images import FeatureExamples
from senoscope_training.networks.seeds import derive_seed
from senoscope_training.networks.settings import FrozenPhase, HeadConfig


def features(seed: int, count: int = 120, size: int = 300, scale: float = 1.0, offset: float = 0.0):
    """Draw features like those of backbones: positive, of any scale, with one tenth informative."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2 == 1
    values = rng.normal(4, 0.5, (count, size))
    values[:, : size // 10] += 0.8 * labels[:, None]
    return (scale * np.maximum(values, 0) + offset).astype(np.float32), labels


def train(x, labels, seed, **options):
    split = stratified_split(labels, VALIDATION_FRACTION, seed)
    training, held = (FeatureExamples(x[indices], labels[indices]) for indices in split)
    return train_head(training, held, seed, standardize=True, **options)


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (0.01, 0.0), (100.0, 0.0), (0.1, 20.0)])
def test_learns_with_features_of_any_scale(tensorflow, scale, offset):
    x, labels = features(0, scale=scale, offset=offset)
    trained = train(x[:80], labels[:80], seed=1)
    correct = (trained.head.logits(x[80:]) > 0) == labels[80:]
    assert correct.mean() >= 0.95


def test_the_same_seed_gives_the_same_head(tensorflow):
    x, labels = features(0)
    once = {"config": HeadConfig(attempts=1), "phase": FrozenPhase(max_epochs=2)}
    first, second = (train(x, labels, seed=5, **once) for _ in range(2))
    np.testing.assert_array_equal(first.head.w1, second.head.w1)
    other = train(x, labels, seed=6, **once)
    assert not np.array_equal(first.head.w1, other.head.w1)


def test_without_signal_the_best_attempt_is_kept_with_the_reason(tensorflow):
    labels = np.arange(60) % 2 == 1
    trained = train(
        np.ones((60, 50), np.float32),
        labels,
        seed=0,
        config=HeadConfig(attempts=2),
        phase=FrozenPhase(max_epochs=2),
    )
    assert trained.attempts == 2
    assert trained.dead == "the head gives all 44 training examples the same logit"


@pytest.mark.parametrize("share", [0.1, *(pytest.param(s, marks=pytest.mark.full) for s in (0.2, 0.8)), 0.9])
def test_a_head_that_ranks_examples_is_not_dead_if_all_predictions_are_equal(tensorflow, share):
    """Few positives and little training: no logit crosses zero, but the AUC is high."""
    count = 100
    rng = np.random.default_rng(1)
    labels = np.arange(count) < share * count
    x = rng.normal(4, 0.5, (count, 60))
    x[:, :20] += 0.5 * labels[:, None]
    phase = FrozenPhase(max_epochs=3)
    trained = train(x.astype(np.float32), labels, seed=2, config=HeadConfig(attempts=5), phase=phase)
    logits = trained.head.logits(x.astype(np.float32))
    majority = max(labels.mean(), 1 - labels.mean())
    assert ((logits > 0) == labels).mean() <= majority + 1e-9, "in this case all predictions are equal"
    assert trained.dead == ""
    assert auc(labels, logits) > 0.5


def test_training_with_permuted_labels_finishes(tensorflow):
    x, labels = features(0, count=80, size=60)
    labels = np.random.default_rng(3).permutation(labels)
    trained = train(x, labels, seed=2, phase=FrozenPhase(max_epochs=20))
    assert np.isfinite(trained.head.logits(x)).all()


@pytest.mark.parametrize(
    ("logits", "reason"),
    [
        ([0.5, 0.5, 0.5, 0.5], "the same logit"),
        ([0.5, 0.5 + 1e-8, 0.5, 0.5], "the same logit"),
        ([1.0, 0.9, 0.2, 0.1], "no better than chance (AUC 0.00)"),
        ([0.1, 0.3, 0.1, 0.3], "no better than chance (AUC 0.50)"),
        ([-9.0, -9.2, -8.9, -8.8], ""),
        ([-9.0, -8.9, -9.0, -8.8], ""),
    ],
)
def test_a_dead_head_is_constant_or_no_better_than_chance(logits, reason):
    labels = np.array([False, False, True, True])
    found = dead_reason(labels, np.array(logits))
    assert reason in found
    assert bool(reason) == bool(found)


def test_of_dead_attempts_the_one_with_the_highest_auc_is_kept(tensorflow, monkeypatch):
    x, labels = features(0, count=40, size=20)
    monkeypatch.setattr(
        "senoscope_training.networks.head.dead_reason", lambda labels, logits: "dead for this test"
    )
    kept = train(x, labels, seed=4, config=HeadConfig(attempts=2), phase=FrozenPhase(max_epochs=2))
    monkeypatch.undo()
    split = stratified_split(labels, VALIDATION_FRACTION, 4)
    areas = []
    for attempt in range(2):
        one = train_one(x, labels, split, derive_seed(4, "attempt", attempt))
        areas.append(auc(labels[split[0]], one.logits(x[split[0]])))
    assert kept.dead == "dead for this test"
    assert auc(labels[split[0]], kept.head.logits(x[split[0]])) == pytest.approx(max(areas))


def train_one(x, labels, split, seed):
    """Train one attempt: phase 1 with the seed of the attempt."""
    import keras

    from senoscope_training.networks.fitting import fit
    from senoscope_training.networks.head import Standardization, compile_for, folded

    standard = Standardization.fitted(x[split[0]])
    training, held = (FeatureExamples(standard.apply(x[part]), labels[part]) for part in split)
    keras.utils.set_random_seed(seed)
    config, phase = HeadConfig(), FrozenPhase(max_epochs=2)
    model = build_head(x.shape[1], config)
    compile_for(model, phase.learning_rate)
    fit(
        model,
        training,
        lambda: head_loss(model.get_weights(), held.features, held.truth, config),
        phase,
        seed,
    )
    return folded(model.get_weights(), standard)


def test_split_is_stratified_and_complete():
    labels = np.arange(170) < 60
    train, held = stratified_split(labels, 43 / 170, seed=3)
    assert sorted([*train, *held]) == list(range(170))
    assert labels[held].sum() == round(60 * 43 / 170)
    assert (~labels[held]).sum() == round(110 * 43 / 170)


def test_the_head_is_that_of_the_paper(tensorflow):
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

    from senoscope_training.networks.head import compile_for

    x, labels = features(3, count=40, size=20)
    keras.utils.set_random_seed(1)
    config = HeadConfig(activity_l2=0.05)
    model = build_head(20, config)
    compile_for(model, 1e-3)
    truth = labels.astype(np.float32)[:, None]
    ours = head_loss(model.get_weights(), x, truth, config)
    assert ours == pytest.approx(float(model.test_on_batch(x, truth)), rel=1e-6)
