"""Training of one network in Keras: a small one, and the smallest of the seven."""

from __future__ import annotations

import numpy as np
import pytest

from senoscope_training.networks.augmentation import plan_copies
from senoscope_training.networks.head import train_head
from senoscope_training.networks.images import FeatureExamples, ImageExamples
from senoscope_training.networks.settings import AugmentationConfig, FrozenPhase, HeadConfig, TunedPhase
from senoscope_training.networks.weights import WeightsPlan

SIZE = 64
RANDOM = WeightsPlan({})


@pytest.fixture(scope="module")
def fovs():
    """Draw scaled images; those of the positive class are brighter."""
    rng = np.random.default_rng(0)
    labels = np.arange(24) % 2 == 1
    base = rng.integers(0, 120, (24, SIZE, SIZE, 3)) + 100 * labels[:, None, None, None]
    return base.astype(np.uint8), labels


@pytest.fixture(scope="module", params=["tiny", pytest.param("mobilenet", marks=pytest.mark.full)])
def network(request, tensorflow, fovs):
    from senoscope_training.networks.trainable import TrainableNetwork

    return TrainableNetwork(request.param, RANDOM, 5, fovs[0][:8], HeadConfig())


def augmented(network, fovs, copies=1):
    images, labels = fovs
    split = np.arange(24) % 4 == 0
    made = []
    for part in (~split, split):
        plan = plan_copies(labels[part], SIZE, SIZE, AugmentationConfig(copies=copies), seed=int(part[0]))
        made.append(ImageExamples(images[part], labels[part], plan, network.preprocess))
    return made


def pooled(network, examples):
    everything = examples.scaled(np.arange(len(examples)))
    return FeatureExamples(network.features(everything), examples.labels)


def test_phase_1_on_features_equals_phase_1_through_the_network(network, fovs):
    import keras

    from senoscope_training.networks.fitting import FitState, fit
    from senoscope_training.networks.head import (
        Standardization,
        TrainedHead,
        build_head,
        compile_for,
        head_loss,
    )

    network.reset()
    train, held = augmented(network, fovs)
    phase = FrozenPhase(max_epochs=6, batch_size=10)
    keras.utils.set_random_seed(1)
    head = build_head(network.feature_size, HeadConfig())
    start = TrainedHead(head.get_weights(), Standardization.identity(network.feature_size), 1, 0, FitState())
    through, slow = network.fine_tune(start, train, held, phase, seed=2, frozen=True)
    compile_for(head, phase.learning_rate)
    features, held_features = pooled(network, train), pooled(network, held)

    def validation_loss():
        return head_loss(head.get_weights(), held_features.features, held_features.truth, HeadConfig())

    fast = fit(head, features, validation_loss, phase, seed=2)
    assert np.abs(through.w1 - head.get_weights()[0]).max() <= 1e-4
    assert np.abs(through.w2 - head.get_weights()[2].ravel()).max() <= 1e-4
    assert slow.history["val_loss"] == pytest.approx(fast.history["val_loss"], abs=1e-4)


def test_fine_tuning_changes_kernels_but_not_batch_norm_statistics(network, fovs):
    train, held = augmented(network, fovs)
    network.reset()
    head = train_head(pooled(network, train), pooled(network, held), 3, standardize=True)
    before = {w.path: np.array(w) for w in network.backbone.weights}
    tuned, state = network.fine_tune(head, train, held, TunedPhase(max_epochs=2), seed=4)
    after = {w.path: np.array(w) for w in network.backbone.weights}
    changed = {path for path in before if not np.array_equal(before[path], after[path])}
    assert not {path for path in changed if "moving_" in path}
    assert any("conv" in path and path.endswith("kernel") for path in changed)
    assert state.epoch == 2
    network.reset()
    for weight in network.backbone.weights:
        np.testing.assert_array_equal(np.array(weight), before[weight.path])
    again, _ = network.fine_tune(head, train, held, TunedPhase(max_epochs=2), seed=4)
    np.testing.assert_array_equal(again.w1, tuned.w1)
    np.testing.assert_array_equal(
        np.array(network.backbone.weights[0]), after[network.backbone.weights[0].path]
    )


def test_explanations_equal_those_of_keras_and_a_gradient_tape(network, fovs):
    from senoscope_training.export.parity import keras_outputs

    network.reset()
    train, held = augmented(network, fovs)
    trained = train_head(pooled(network, train), pooled(network, held), 3, standardize=True)
    explained = network.explain(fovs[0], trained.head)
    raw = fovs[0].transpose(0, 3, 1, 2).astype(np.float32) + 0.5
    low, high = np.zeros(3, np.float32), np.full(3, 255, np.float32)
    reference = keras_outputs(network.name, network.backbone, trained.head, raw, low, high)
    np.testing.assert_allclose(explained.probability, reference.probability, atol=1e-5)
    np.testing.assert_allclose(explained.gradcam, reference.gradcam, atol=1e-4 * reference.gradcam.max())
    assert explained.gradcam.max() > 0


def test_exported_features_equal_those_of_keras(network, fovs):
    from senoscope_training.experiment.job_network import onnx_extractor

    network.reset()
    expected = network.features(fovs[0][:4])
    exported = onnx_extractor(network.name, network.backbone, threads=1)(fovs[0][:4])
    np.testing.assert_allclose(exported, expected, rtol=1e-4, atol=1e-4 * expected.max())
