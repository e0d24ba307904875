"""Comparison of an exported network with Keras, and of its Grad-CAM maps with a gradient tape."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from senoscope_training.networks.architectures import ARCHITECTURES
from senoscope_training.networks.head import Head, keras_network
from senoscope_training.networks.images import scale_to_images

Float32 = npt.NDArray[np.float32]

LOGIT_TOLERANCE = 1e-4
GRADCAM_TOLERANCE = 1e-4
# For logits below one the absolute error is used, because a logit of zero has no relative error; the error of
# the probability is then at most a quarter of the tolerance. The absolute error is recorded separately.
_MIN_RELATIVE_LOGIT = 1.0


class ParityError(Exception):
    """An exported network deviates from Keras by more than the tolerance."""


@dataclass(frozen=True)
class ParityReport:
    """Largest deviations of an exported network from Keras for some fields of view."""

    logit_relative: float
    """Relative to logits greater than one, absolute for others."""
    logit_absolute: float
    gradcam: float
    """As a fraction of the maximum of each FOV's map."""

    def require(self, network: str) -> None:
        """Raise :class:`ParityError` if a tolerance is exceeded, or if a deviation is NaN."""
        if not (self.logit_relative <= LOGIT_TOLERANCE and self.gradcam <= GRADCAM_TOLERANCE):
            raise ParityError(
                f"{network}: the exported graph deviates from Keras by {self.logit_relative:.2g} of the "
                f"logit (allowed {LOGIT_TOLERANCE:g}) and {self.gradcam:.2g} of the Grad-CAM maximum "
                f"(allowed {GRADCAM_TOLERANCE:g})"
            )


@dataclass(frozen=True)
class Outputs:
    """The outputs of a network for N fields of view: logit [N], probability [N], gradcam [N, h, w]."""

    logit: Float32
    probability: Float32
    gradcam: Float32


def keras_input(name: str, image: npt.NDArray[Any], low: Float32, high: Float32) -> Float32:
    """Convert raw counts [N, C, H, W] to the backbone's input [N, H, W, C] with Keras' preprocessing."""
    from keras.applications import imagenet_utils

    scaled = scale_to_images(image, low, high).astype(np.float32)
    mode = ARCHITECTURES[name].preprocess
    return np.asarray(
        imagenet_utils.preprocess_input(scaled, data_format="channels_last", mode=mode), np.float32
    )


def keras_outputs(
    name: str, backbone: Any, head: Head, image: npt.NDArray[Any], low: Float32, high: Float32
) -> Outputs:
    """Compute logits with Keras, and Grad-CAM with a gradient tape at the last activation, FOV by FOV."""
    import keras
    import tensorflow as tf

    network = keras_network(backbone, head)
    tail = keras.Sequential(
        [
            keras.layers.Input(backbone.output.shape[1:]),
            network.get_layer("pooling"),
            network.get_layer("head"),
        ]
    )
    logits, maps = [], []
    for fov in image:
        activation, logit = network(keras_input(name, fov[None], low, high), training=False)
        with tf.GradientTape() as tape:
            tape.watch(activation)
            explained = tail(activation, training=False)
        weights = tf.reduce_mean(tape.gradient(explained, activation), axis=(1, 2), keepdims=True)
        logits.append(np.asarray(logit).reshape(-1))
        maps.append(tf.nn.relu(tf.reduce_sum(activation * weights, axis=-1)).numpy())
    logit_all = np.concatenate(logits).astype(np.float32)
    probability = 1 / (1 + np.exp(-logit_all.astype(np.float64)))
    return Outputs(logit_all, probability.astype(np.float32), np.concatenate(maps))


def onnx_outputs(
    path: Path, image: npt.NDArray[Any], low: Float32, high: Float32, threads: int = 1
) -> Outputs:
    """Compute the outputs of an exported file with ONNX Runtime on the CPU."""
    return Outputs(*run_network(path, ["logit", "probability", "gradcam"], image, low, high, threads))


def run_network(
    model: Path | bytes,
    outputs: list[str],
    fovs: Iterable[npt.NDArray[Any]],
    low: Float32,
    high: Float32,
    threads: int,
) -> list[Float32]:
    """Compute outputs for FOVs [C, H, W], one at a time: on a CPU, larger batches are not faster."""
    session = open_session(model, threads)
    feeds = {"low": np.asarray(low, np.float32), "high": np.asarray(high, np.float32)}
    rows = [session.run(outputs, {"image": np.asarray(fov[None], np.float32), **feeds}) for fov in fovs]
    return [np.concatenate(part) for part in zip(*rows, strict=True)]


def open_session(model: Path | bytes, threads: int) -> Any:
    """Open a CPU session of a file or of a serialised model, without the engine's settings."""
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    return ort.InferenceSession(
        str(model) if isinstance(model, Path) else model, settings, providers=["CPUExecutionProvider"]
    )


def compare(actual: Outputs, reference: Outputs) -> ParityReport:
    """Compute the largest deviations of ``actual`` from ``reference``."""
    difference = np.abs(actual.logit.astype(np.float64) - reference.logit)
    relative = difference / np.maximum(np.abs(reference.logit), _MIN_RELATIVE_LOGIT)
    deviation = np.abs(actual.gradcam - reference.gradcam).max(axis=(1, 2)).astype(np.float64)
    peak = reference.gradcam.max(axis=(1, 2)).astype(np.float64)
    ratio = np.divide(deviation, peak, out=np.where(deviation == 0, 0.0, np.inf), where=peak > 0)
    return ParityReport(float(relative.max()), float(difference.max()), float(ratio.max()))
