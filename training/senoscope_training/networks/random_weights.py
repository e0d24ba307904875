"""Random backbones that see: what it takes for an untrained deep network to pass on its input."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from senoscope.starter.kernels import Shape, random_kernel
from senoscope_training.networks.architectures import backbone_of

_BETA = 2.0
_BRANCH_GAMMA = 0.2


@dataclass(frozen=True)
class KernelSlot:
    """A convolution kernel of a Keras model, and how a random one is drawn.

    Attributes
    ----------
    index : int
        Of the kernel among those of its model, in Keras' order of layers.
    weight : keras.Variable
    shape : tuple of int
        Output channels, input channels, rows, columns, as in ONNX.
    depthwise : bool
        One input channel for each output channel.
    smooth : bool
        See :func:`senoscope.starter.kernels.random_kernel`.
    amplitude : float
        Of the uniform distribution that the taps are drawn from.
    """

    index: int
    weight: Any
    shape: Shape
    depthwise: bool
    smooth: bool
    amplitude: float

    def assign(self, kernel: npt.NDArray[np.float32]) -> None:
        """Set the weight to a kernel of ONNX's layout."""
        self.weight.assign(kernel.transpose((2, 3, 0, 1) if self.depthwise else (2, 3, 1, 0)))


def kernel_slots(name: str, application: Any) -> list[KernelSlot]:
    """The convolution kernels of a ``keras.applications`` model.

    Independent random taps pass noise as well as structure, and every stride folds the noise into what is
    left, so that a deep random network hardly sees how bright or how large a cell is. Trained networks
    prefer low frequencies; a binomial window gives random ones the same preference.

    In EfficientNet only kernels with a stride are smoothed: its 32 depthwise convolutions, many of them
    5x5, would otherwise leave little but the edges of the image, with few digits (measured: three times the
    rounding error).
    """
    slots: list[KernelSlot] = []
    for layer in application._flatten_layers():
        if hasattr(layer, "layers"):
            continue
        for weight in layer.weights:
            if len(weight.shape) != 4:
                continue
            rows, columns, first, second = (int(size) for size in weight.shape)
            depthwise = "depthwise" in weight.path.rpartition("/")[2] or _is_depthwise(layer)
            smooth = max(rows, columns) > 1 and not (name == "efficientnet_b4" and _stride(layer) == 1)
            # The variance of what Keras would draw, of the sum over the window where that is drawn.
            variance = 2 / (rows * columns * (second if name == "efficientnet_b4" else first + second))
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
    """Draw every convolution kernel of a model, by the function that the starter's recipe is rebuilt with."""
    for slot in kernel_slots(name, application):
        scale = np.full(slot.shape[0], slot.amplitude, np.float32)
        slot.assign(random_kernel(seed, name, slot.index, slot.shape, scale, smooth=slot.smooth))


def _is_depthwise(layer: Any) -> bool:
    import keras

    return isinstance(layer, keras.layers.DepthwiseConv2D)


def _stride(layer: Any) -> int:
    return int(max(getattr(layer, "strides", (1,))))


def estimate_batch_norm(name: str, application: Any, preprocessed: npt.NDArray[np.float32]) -> None:
    """Make a deep random network pass on its input: set its batch norms from one batch of images.

    With initial statistics (mean 0, variance 1) activations vanish or overflow. One forward pass in
    training mode with momentum 0 leaves exactly this batch's statistics.

    With initial shifts (beta 0) the network would be chaotic: a ReLU that passes half of a normalised
    activation makes any difference between two inputs, rounding errors included, grow by
    sqrt(pi / (pi - 1)) = 1.21 per layer (mean-field theory of batch norm: Yang et al. 2019,
    arXiv:1902.08129), so that after fifty layers little of the image is left: InceptionV3's features then
    differed by 7e-4 between two exact float32 implementations. With beta 2, 98 % of the units are on and the
    growth is 1.01. Where no activation follows (EfficientNet's projections), a shift would only pile up
    along the residual path and cost digits, so it stays 0.

    Parameters
    ----------
    preprocessed : float32 array [N, H, W, 3]
        What the backbone takes.
    """
    import keras

    layers = list(application._flatten_layers())
    norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    # Dropped paths would enter the statistics, though nothing is dropped in inference.
    drops = [layer for layer in layers if isinstance(layer, keras.layers.Dropout)]
    momenta = [layer.momentum for layer in norms]
    rates = [layer.rate for layer in drops]
    for layer in norms:
        layer.momentum = 0.0
        shift = _BETA if _reaches_activation(layer) else 0.0
        layer.beta.assign(np.full(layer.beta.shape, shift, np.float32))
        if _ends_branch(layer) and not _reaches_activation(layer):
            layer.gamma.assign(np.full(layer.gamma.shape, _BRANCH_GAMMA, np.float32))
    for layer in drops:
        layer.rate = 0.0
    try:
        backbone = backbone_of(name, application)
        if keras.backend.backend() == "tensorflow":
            # As a graph, because eager execution keeps every activation of the batch until the end.
            import tensorflow as tf

            tf.function(lambda images: backbone(images, training=True))(preprocessed)
        else:
            backbone(keras.ops.convert_to_tensor(preprocessed), training=True)
    finally:
        for layer, momentum in zip(norms, momenta, strict=True):
            layer.momentum = momentum
        for layer, rate in zip(drops, rates, strict=True):
            layer.rate = rate


def _reaches_activation(layer: Any) -> bool:
    """Whether an activation takes what a layer makes before any convolution does."""
    import keras

    for node in layer._outbound_nodes:
        taker = node.operation
        if isinstance(taker, keras.layers.Activation | keras.layers.ReLU):
            return True
        passes = (
            keras.layers.Add | keras.layers.Concatenate | keras.layers.Dropout | keras.layers.ZeroPadding2D
        )
        if isinstance(taker, passes) and _reaches_activation(taker):
            return True
    return False


def _ends_branch(layer: Any) -> bool:
    """Whether what a layer makes is only added to a residual path."""
    import keras

    takers = [node.operation for node in layer._outbound_nodes]
    return bool(takers) and all(isinstance(t, keras.layers.Add | keras.layers.Dropout) for t in takers)
