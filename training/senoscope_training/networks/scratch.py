"""The CNN from scratch, the paper's baseline with three small convolutions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from senoscope_training.networks.fitting import Checkpoint, FitState, OnEpoch, fit
from senoscope_training.networks.head import compile_for
from senoscope_training.networks.images import Float32, ImageExamples
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
    """The predictions of a trained network.

    Attributes
    ----------
    probability : float64 array [N]
        Probabilities of the test FOVs.
    held : float64 array [M]
        Probabilities of the validation FOVs.
    state : FitState
        State of the training at its end.
    """

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
    """Train the network, and predict the test FOVs and the originals of the validation FOVs.

    Parameters
    ----------
    test : uint8 array [N, H, W, C]
        Scaled images.
    """
    keras.utils.set_random_seed(seed)
    model = build_scratch(test.shape[1], test.shape[2], test.shape[3], config)
    compile_for(
        model,
        keras.optimizers.schedules.ExponentialDecay(config.learning_rate, config.decay_steps, config.decay),
    )
    hidden = keras.Model(model.inputs, model.get_layer("hidden").output)

    def logits(units: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        kernel, bias = (np.asarray(weight, np.float64) for weight in model.layers[-1].get_weights())
        return np.asarray(np.maximum(units, 0) @ kernel[:, 0] + bias[0])

    def validation_loss() -> float:
        return scratch_loss(model, _hidden(hidden, held, len(held)), held.labels, config)

    state = fit(model, train, validation_loss, config, seed, checkpoint, on_epoch)
    found = [
        1 / (1 + np.exp(-logits(_hidden(hidden, source, count))))
        for source, count in ((_Unaugmented(test), len(test)), (held, held.originals))
    ]
    return ScratchOutcome(found[0], found[1], state)


def scratch_loss(
    model: Any, units: npt.NDArray[np.float64], labels: npt.NDArray[np.bool_], config: ScratchConfig
) -> float:
    """Compute the loss that Keras reports for the network, including penalties, from its hidden units.

    Parameters
    ----------
    units : float64 array [N, U]
        Hidden units before the ReLU.
    labels : bool array [N]
    """
    w1, b1, w2, b2 = (np.asarray(weight, np.float64) for weight in model.get_weights()[-4:])
    logits = np.maximum(units, 0) @ w2[:, 0] + b2[0]
    entropy = np.maximum(logits, 0) - logits * labels + np.log1p(np.exp(-np.abs(logits)))
    penalty = config.kernel_l1 * np.abs(w1).sum() + config.kernel_l2 * np.square(w1).sum()
    penalty += config.bias_l2 * np.square(b1).sum()
    penalty += config.activity_l2 * np.square(units).sum(axis=1).mean()
    return float(entropy.mean() + penalty)


class _Unaugmented:
    """Scaled images without copies or labels."""

    def __init__(self, images: npt.NDArray[np.uint8]) -> None:
        self._images = images

    def inputs(self, indices: npt.NDArray[np.int64]) -> Float32:
        return scale_to_unit(self._images[indices].astype(np.float32))


def _hidden(model: Any, source: ImageExamples | _Unaugmented, count: int) -> npt.NDArray[np.float64]:
    found = []
    for first in range(0, count, _PREDICT_BATCH):
        part = np.arange(first, min(first + _PREDICT_BATCH, count))
        inputs = source.inputs(part)
        padded = np.zeros((_PREDICT_BATCH, *inputs.shape[1:]), np.float32)
        padded[: len(part)] = inputs
        found.append(np.asarray(model.predict_on_batch(padded))[: len(part)].astype(np.float64))
    return np.concatenate(found)
