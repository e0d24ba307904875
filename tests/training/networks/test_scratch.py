"""The CNN from scratch, as in the authors' code."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from senoscope_training.config import Config
from senoscope_training.networks.settings import AugmentationConfig, ScratchConfig

SIZE = 32


@pytest.fixture(autouse=True)
def _keras(tensorflow):
    pass


def test_layers_and_penalties_are_those_of_the_authors():
    from senoscope_training.networks.scratch import build_scratch

    model = build_scratch(250, 300, 3, ScratchConfig())
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds == [
        *("Conv2D", "MaxPooling2D", "Conv2D", "MaxPooling2D", "Conv2D"),
        *("GlobalMaxPooling2D", "Dropout", "Dense", "ReLU", "Dense"),
    ]
    convolutions = [layer for layer in model.layers if type(layer).__name__ == "Conv2D"]
    assert [(c.filters, c.strides, c.padding) for c in convolutions] == [
        (6, (2, 2), "same"),
        (12, (2, 2), "same"),
        (24, (2, 2), "same"),
    ]
    assert {layer.padding for layer in model.layers if type(layer).__name__ == "MaxPooling2D"} == {"valid"}
    hidden = model.get_layer("hidden")
    assert hidden.activation.__name__ == "linear"
    assert hidden.kernel_regularizer.get_config() == {"l1": pytest.approx(1e-4), "l2": pytest.approx(1e-4)}
    assert hidden.bias_regularizer.get_config() == {"l2": pytest.approx(1e-4)}
    assert hidden.activity_regularizer.get_config() == {"l2": pytest.approx(5e-5)}


def examples(seed: int, count: int = 20):
    from senoscope_training.networks.augmentation import plan_copies
    from senoscope_training.networks.images import ImageExamples
    from senoscope_training.networks.scratch import scale_to_unit

    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2 == 1
    images = (rng.integers(0, 120, (count, SIZE, SIZE, 3)) + 100 * labels[:, None, None, None]).astype(
        np.uint8
    )
    copies = plan_copies(labels, SIZE, SIZE, AugmentationConfig(copies=1), seed)
    return ImageExamples(images, labels, copies, scale_to_unit)


def test_the_learning_rate_decays_as_in_the_authors_code(monkeypatch):
    from senoscope_training.networks import scratch

    rates = []

    def fit(model, *rest):
        for step in (0, 500, 1000, 3000):
            model.optimizer.iterations.assign(step)
            rates.append(float(model.optimizer.learning_rate))
        raise StopIteration

    monkeypatch.setattr(scratch, "fit", fit)
    with pytest.raises(StopIteration):
        scratch.train_scratch(
            examples(0), examples(1), np.zeros((1, SIZE, SIZE, 3), np.uint8), ScratchConfig(), 0
        )
    assert rates == pytest.approx([5e-4, 5e-4 * 0.9**0.5, 5e-4 * 0.9, 5e-4 * 0.9**3], rel=1e-5)


def test_numpy_and_keras_agree_on_the_loss():
    import keras

    from senoscope_training.networks.head import compile_for
    from senoscope_training.networks.scratch import build_scratch, scratch_loss

    config = ScratchConfig(activity_l2=0.05, bias_l2=0.3, dropout=0.5)
    keras.utils.set_random_seed(0)
    model = build_scratch(SIZE, SIZE, 3, config)
    model.get_layer("hidden").bias.assign([0.5, -0.4, 0.3, -0.2])
    compile_for(model, 1e-3)
    held = examples(2)
    inputs, truth = held.batch(np.arange(len(held)))
    hidden = keras.Model(model.inputs, model.get_layer("hidden").output)
    units = np.asarray(hidden.predict_on_batch(inputs), np.float64)
    assert (units < 0).any(), "the test includes the penalty on negative units"
    ours = scratch_loss(model, units, held.labels, config)
    assert ours == pytest.approx(float(model.test_on_batch(inputs, truth)), rel=1e-5)


def test_validation_fovs_are_predicted_without_their_copies():
    from senoscope_training.networks.scratch import train_scratch

    held = examples(1, count=12)
    test = held.scaled(np.arange(12))
    config = ScratchConfig(max_epochs=2)
    outcome = train_scratch(examples(0), held, test, config, seed=3)
    np.testing.assert_allclose(outcome.held, outcome.probability, rtol=1e-6)


@pytest.mark.parametrize(
    ("layers", "pooling", "edge"),
    [(1, "valid", 1), (2, "valid", 3), (3, "valid", 11), (4, "valid", 43), (5, "same", 1)],
)
def test_the_network_can_be_built_for_the_smallest_image(layers, pooling, edge):
    from senoscope_training.networks.scratch import build_scratch

    config = ScratchConfig(filters=(2,) * layers, pooling=pooling)
    assert config.smallest_edge() == edge
    logits = build_scratch(edge, edge, 3, config)(np.zeros((2, edge, edge, 3), np.float32))
    assert logits.shape == (2, 1)
    if edge > 1:
        with pytest.raises(ValueError, match="zero or negative"):
            build_scratch(edge - 1, edge - 1, 3, config)


def test_too_many_convolutions_for_the_image_are_refused(tmp_path):
    with pytest.raises(ValidationError, match="CNN from scratch with 4 convolutions needs 43"):
        Config.model_validate(
            {
                "name": "deep",
                "data": {"path": tmp_path},
                "input": {"height": 40, "width": 200},
                "systems": ["scratch"],
                "scratch": {"filters": [2, 2, 2, 2]},
            }
        )
