"""The CNN from scratch: three small convolutions, as the paper's baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from senoscope_training.config import ScratchConfig
from senoscope_training.head import compile_for
from senoscope_training.learning.fitting import Checkpoint, Progressed, Watch, fit
from senoscope_training.learning.images import Float32, ImageExamples

_PREDICT = 64


def scale_to_unit(images: Float32) -> Float32:
    """Images of 0..255 to 0..1."""
    return np.asarray(images / np.float32(255), np.float32)


def build_scratch(height: int, width: int, channels: int, config: ScratchConfig) -> Any:
    """The network: images of 0..1 [N, H, W, C] to logits [N, 1]."""
    layers: list[Any] = [keras.layers.Input((height, width, channels))]
    for k, filters in enumerate(config.filters):
        if k:
            layers.append(keras.layers.MaxPooling2D(2, padding="same"))
        layers.append(keras.layers.Conv2D(filters, 3, strides=2, padding="same", activation="relu"))
    layers += [
        keras.layers.GlobalMaxPooling2D(),
        keras.layers.Dropout(config.dropout),
        keras.layers.Dense(
            config.units,
            activation="relu",
            kernel_regularizer=keras.regularizers.L1L2(config.kernel_l1, config.kernel_l2),
        ),
        keras.layers.Dense(1),
    ]
    return keras.Sequential(layers)


@dataclass(frozen=True)
class ScratchOutcome:
    """Probabilities of the test FOVs, float64 [N], and how training went."""

    probability: npt.NDArray[np.float64]
    progressed: Progressed


def train_scratch(
    train: ImageExamples,
    held: ImageExamples,
    test: npt.NDArray[np.uint8],
    config: ScratchConfig,
    seed: int,
    checkpoint: Checkpoint | None = None,
    watch: Watch | None = None,
) -> ScratchOutcome:
    """Train from scratch and judge the test FOVs.

    Parameters
    ----------
    test : uint8 array [N, H, W, C]
        Scaled images.
    """
    keras.utils.set_random_seed(seed)
    model = build_scratch(test.shape[1], test.shape[2], test.shape[3], config)
    compile_for(model, config.learning_rate)
    penalized = model.layers[-2]
    truth = held.labels.astype(np.float64)

    def judge() -> float:
        logits = _logits(model, held, len(held))
        entropy = np.maximum(logits, 0) - logits * truth + np.log1p(np.exp(-np.abs(logits)))
        kernel = penalized.get_weights()[0].astype(np.float64)
        penalty = config.kernel_l1 * np.abs(kernel).sum() + config.kernel_l2 * np.square(kernel).sum()
        return float(entropy.mean() + penalty)

    progressed = fit(model, train, judge, config, seed, checkpoint, watch)
    return ScratchOutcome(1 / (1 + np.exp(-_logits(model, _Plain(test), len(test)))), progressed)


class _Plain:
    """Scaled images without copies or labels."""

    def __init__(self, images: npt.NDArray[np.uint8]) -> None:
        self._images = images

    def inputs(self, indices: npt.NDArray[np.int64]) -> Float32:
        return scale_to_unit(self._images[indices].astype(np.float32))


def _logits(model: Any, source: ImageExamples | _Plain, count: int) -> npt.NDArray[np.float64]:
    found = []
    for first in range(0, count, _PREDICT):
        part = np.arange(first, min(first + _PREDICT, count))
        inputs = source.inputs(part)
        padded = np.zeros((_PREDICT, *inputs.shape[1:]), np.float32)
        padded[: len(part)] = inputs
        found.append(np.asarray(model.predict_on_batch(padded))[: len(part), 0].astype(np.float64))
    return np.concatenate(found)
