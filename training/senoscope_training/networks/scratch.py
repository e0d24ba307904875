"""The CNN from scratch, the paper's baseline with three small convolutions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from senoscope_training.networks.fitting import Checkpoint, FitState, OnEpoch, fit
from senoscope_training.networks.head import compile_for, penalised_loss
from senoscope_training.networks.images import Float32, ImageExamples, batches
from senoscope_training.networks.settings import ScratchConfig

_PREDICT_BATCH = 64


def scale_to_unit(images: Float32) -> Float32:
    """Scale images of 0..255 to 0..1."""
    return np.asarray(images / np.float32(255), np.float32)


def build_scratch(height: int, width: int, channels: int, config: ScratchConfig) -> Any:
    """Build the network, from images of 0..1 [N, H, W, C] to logits [N, 1]."""
    layers: list[Any] = [keras.layers.Input((height, width, channels))]
    for k, filters in enumerate(config.filters):
        if k:
            layers.append(keras.layers.MaxPooling2D(2, padding=config.pooling))
        layers.append(keras.layers.Conv2D(filters, 3, strides=2, padding="same", activation="relu"))
    layers += [
        keras.layers.GlobalMaxPooling2D(),
        keras.layers.Dropout(config.dropout),
        # The ReLU is a separate layer, because in the authors' code the penalty is on its input.
        keras.layers.Dense(
            config.units,
            kernel_regularizer=keras.regularizers.L1L2(config.kernel_l1, config.kernel_l2),
            bias_regularizer=keras.regularizers.L2(config.bias_l2),
            activity_regularizer=keras.regularizers.L2(config.activity_l2),
            name="hidden",
        ),
        keras.layers.ReLU(),
        keras.layers.Dense(1),
    ]
    return keras.Sequential(layers)


@dataclass(frozen=True)
class ScratchOutcome:
    """Probabilities of the test FOVs and of the validation FOVs, and the training at its end."""

    probability: npt.NDArray[np.float64]
    held: npt.NDArray[np.float64]
    state: FitState


def train_scratch(
    train: ImageExamples,
    held: ImageExamples,
    test: npt.NDArray[np.uint8],
    config: ScratchConfig,
    seed: int,
    checkpoint: Checkpoint | None = None,
    on_epoch: OnEpoch | None = None,
) -> ScratchOutcome:
    """Train the network, and predict the scaled test FOVs and the originals of the validation FOVs."""
    keras.utils.set_random_seed(seed)
    model = build_scratch(test.shape[1], test.shape[2], test.shape[3], config)
    compile_for(
        model,
        keras.optimizers.schedules.ExponentialDecay(config.learning_rate, config.decay_steps, config.decay),
    )
    hidden = keras.Model(model.inputs, model.get_layer("hidden").output)

    def validation_loss() -> float:
        return scratch_loss(model, _hidden(hidden, held.inputs, len(held)), held.labels, config)

    state = fit(model, train, validation_loss, config, seed, checkpoint, on_epoch)
    kernel, bias = (np.asarray(weight, np.float64) for weight in model.layers[-1].get_weights())
    found = [
        1 / (1 + np.exp(-(np.maximum(_hidden(hidden, inputs, count), 0) @ kernel[:, 0] + bias[0])))
        for inputs, count in (
            (lambda part: scale_to_unit(test[part].astype(np.float32)), len(test)),
            (held.inputs, held.originals),
        )
    ]
    return ScratchOutcome(found[0], found[1], state)


def scratch_loss(
    model: Any, units: npt.NDArray[np.float64], labels: npt.NDArray[np.bool_], config: ScratchConfig
) -> float:
    """Compute the loss that Keras reports for the network, including penalties.

    It is computed from the hidden units before the ReLU [N, U].
    """
    w1, b1, w2, b2 = (np.asarray(weight, np.float64) for weight in model.get_weights()[-4:])
    logits = np.maximum(units, 0) @ w2 + b2
    return penalised_loss(logits, labels[:, None], w1, b1, units, config)


def _hidden(
    model: Any, inputs: Callable[[npt.NDArray[np.int64]], Float32], count: int
) -> npt.NDArray[np.float64]:
    found = []
    for part in batches(count, _PREDICT_BATCH):
        padded = np.zeros((_PREDICT_BATCH, *model.inputs[0].shape[1:]), np.float32)
        padded[: len(part)] = inputs(part)
        found.append(np.asarray(model.predict_on_batch(padded))[: len(part)].astype(np.float64))
    return np.concatenate(found)
