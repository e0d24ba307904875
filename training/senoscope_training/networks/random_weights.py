"""Random weights with which an untrained deep network preserves information about its input."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from senoscope.starter.kernels import Shape, random_kernel
from senoscope_training.networks.architectures import ARCHITECTURES, Architecture, backbone_of

_BETA = 2.0
_BRANCH_GAMMA = 0.2


@dataclass(frozen=True, eq=False)
class KernelSlot:
    """A convolution kernel of a Keras model, and the distribution of a random one."""

    index: int
    """Index of the kernel among those of its model, in Keras' order of layers."""
    weight: Any
    shape: Shape
    depthwise: bool
    """Whether there is one input channel for each output channel."""
    smooth: bool
    """See :func:`senoscope.starter.kernels.random_kernel`, also for ``shape``."""
    amplitude: float
    """Amplitude of the uniform distribution of the taps."""


def kernel_slots(architecture: Architecture, application: Any) -> list[KernelSlot]:
    """List the convolution kernels of a network.

    Independent random taps transmit noise as well as structure, and every stride aliases the noise, so the
    features of a deep random network hardly depend on the brightness and size of cells. Trained networks
    prefer low frequencies; a binomial window gives random kernels the same preference.

    In EfficientNet only ``strided`` kernels are smoothed: otherwise its 32 depthwise convolutions, many of
    them 5x5, would suppress everything but the edges of the image, and lose precision (measured: three times
    the rounding error).
    """
    import keras

    slots: list[KernelSlot] = []
    for layer in application._flatten_layers():
        if hasattr(layer, "layers"):
            continue
        for weight in layer.weights:
            if len(weight.shape) != 4:
                continue
            rows, columns, first, second = (int(size) for size in weight.shape)
            depthwise = isinstance(layer, keras.layers.DepthwiseConv2D) or "depthwise" in weight.name
            smooth = max(rows, columns) > 1 and (
                architecture.smoothed_kernels == "all" or max(getattr(layer, "strides", (1,))) > 1
            )
            # The variance of Keras' initializer; with a window, that of the sum over the window.
            fan = second if architecture.kernel_fan == "out" else first + second
            variance = 2 / (rows * columns * fan)
            taps = rows * columns if smooth else 1
            slots.append(
                KernelSlot(
                    index=len(slots),
                    weight=weight,
                    shape=(first, 1, rows, columns) if depthwise else (second, first, rows, columns),
                    depthwise=depthwise,
                    smooth=smooth,
                    amplitude=math.sqrt(3 * taps * variance),
                )
            )
    return slots


def draw_kernels(name: str, application: Any, seed: int) -> None:
    """Draw all convolution kernels of a model with the function that also rebuilds the starter's recipe."""
    for slot in kernel_slots(ARCHITECTURES[name], application):
        scale = np.full(slot.shape[0], slot.amplitude, np.float32)
        kernel = random_kernel(seed, name, slot.index, slot.shape, scale, smooth=slot.smooth)
        slot.weight.assign(kernel.transpose((2, 3, 0, 1) if slot.depthwise else (2, 3, 1, 0)))


def estimate_batch_norm(name: str, application: Any, preprocessed: npt.NDArray[np.float32]) -> None:
    """Set the batch norms of a deep random network from one batch of preprocessed images [N, H, W, C].

    With the initial statistics (mean 0, variance 1) activations vanish or overflow. One forward pass in
    training mode with momentum 0 sets the statistics to exactly those of the batch. The momentum and the
    rates of dropout stay zero: backbones are otherwise used in inference mode, where they have no effect.

    With the initial shifts (beta 0) the network would be chaotic: a ReLU that is active for half of a
    normalised activation amplifies any difference between two inputs, including rounding errors, by
    sqrt(pi / (pi - 1)) = 1.21 per layer (mean-field theory of batch norm: Yang et al. 2019,
    arXiv:1902.08129). After fifty layers little information about the image is left: InceptionV3's features
    then differed by 7e-4 between two correct float32 implementations. With beta 2, 98 % of the units are
    active and the amplification is 1.01. If no activation follows (EfficientNet's projections), shifts would
    only accumulate along the residual path and reduce the precision, so beta stays 0.
    """
    import keras

    layers = list(application._flatten_layers())
    norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.0
        shift = _BETA if _reaches_activation(layer) else 0.0
        layer.beta.assign(np.full(layer.beta.shape, shift, np.float32))
        if _ends_branch(layer) and not _reaches_activation(layer):
            layer.gamma.assign(np.full(layer.gamma.shape, _BRANCH_GAMMA, np.float32))
    for layer in layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0  # dropped paths would influence the statistics; in inference nothing is dropped
    backbone = backbone_of(name, application)
    if keras.backend.backend() == "tensorflow":
        # As a graph, because eager execution keeps all activations of the batch in memory.
        import tensorflow as tf

        tf.function(lambda images: backbone(images, training=True))(preprocessed)
    else:
        backbone(keras.ops.convert_to_tensor(preprocessed), training=True)


def _reaches_activation(layer: Any) -> bool:
    """Return whether the output of a layer reaches an activation before a convolution."""
    from keras import layers

    transparent = layers.Add | layers.Concatenate | layers.Dropout | layers.ZeroPadding2D
    consumers = [node.operation for node in layer._outbound_nodes]
    return any(
        isinstance(one, layers.Activation | layers.ReLU)
        or (isinstance(one, transparent) and _reaches_activation(one))
        for one in consumers
    )


def _ends_branch(layer: Any) -> bool:
    """Return whether the output of a layer is only added to a residual path."""
    import keras

    consumers = [node.operation for node in layer._outbound_nodes]
    return bool(consumers) and all(isinstance(c, keras.layers.Add | keras.layers.Dropout) for c in consumers)
