"""The backbones of ensembles: everything that training, export and reports must know about each of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

PreprocessMode = Literal["tf", "torch", "caffe"]

IMAGENET_CHANNELS = 3
"""Channels of the networks of ``keras.applications``: red, green and blue."""
_IMAGENET_MEAN_RGB = (0.485, 0.456, 0.406)
_IMAGENET_STD_RGB = (0.229, 0.224, 0.225)
_CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)


@dataclass(frozen=True)
class Preprocessing:
    """The preprocessing of an image of 0..255: y[c] = x[order[c]] * scale[c] + offset[c]."""

    order: tuple[int, ...]
    scale: npt.NDArray[np.float64]
    offset: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Architecture:
    """The specification of a backbone for training, export and reports."""

    name: str
    """Name in configurations, in the manifest and in file names."""
    title: str
    """Name in tables and figures."""
    builder: str
    """``module:function`` that takes the keyword arguments of the builders in ``keras.applications``
    (``include_top``, ``weights``, ``input_shape``) and returns a Keras model without classifier."""
    preprocess: PreprocessMode
    """The mode of Keras' ``preprocess_input``; with a `first_layer`, that which is equivalent to the layers
    before it."""
    cost: float
    """Measured relative time of the export; of networks that are processed in parallel, the slowest start
    first."""
    smallest_edge: int = 32
    """Smallest number of rows and columns of the input."""
    channels: int = IMAGENET_CHANNELS
    """Number of channels of the input; others than `IMAGENET_CHANNELS` require the mode ``tf``."""
    first_layer: str = ""
    """The first layer that is exported, if Keras' model begins with preprocessing; see `backbone_of`."""
    kernel_fan: Literal["average", "out"] = "average"
    """The fan by which Keras' initializer scales random kernels."""
    smoothed_kernels: Literal["all", "strided"] = "all"
    """Which random kernels are smoothed; see `kernel_slots` in `networks.random_weights`."""
    notop_file: str = ""
    """Keras' published weight file without the classifier."""
    notop_md5: str = ""
    """The MD5 that Keras publishes with it, if there is one."""

    @property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing of its input."""
        return preprocessing(self.preprocess, self.channels)

    def build(self, height: int, width: int, weights: str | None = None) -> Any:
        """Build the Keras model without classifier."""
        module, _, function = self.builder.partition(":")
        builder: Callable[..., Any] = getattr(import_module(module), function)
        return builder(include_top=False, weights=weights, input_shape=(height, width, self.channels))


def _keras(
    name: str, title: str, mode: PreprocessMode, cost: float, notop_md5: str = "", **others: Any
) -> Architecture:
    """Return an architecture of ``keras.applications``, whose function has the name ``title``."""
    files = {"notop_file": f"{name}_weights_tf_dim_ordering_tf_kernels_notop.h5", "notop_md5": notop_md5}
    return Architecture(name, title, f"keras.applications:{title}", mode, cost, **(files | others))


PAPER_ARCHITECTURES: tuple[Architecture, ...] = (
    _keras("inception_v3", "InceptionV3", "tf", 11, "bcbd6486424b2319ff4ef7d526e38f63", smallest_edge=75),
    _keras(
        *("efficientnet_b4", "EfficientNetB4", "torch", 24, "ebc24e6d6c33eaebbd558eafbeedf1ba"),
        first_layer="stem_conv_pad",
        kernel_fan="out",
        smoothed_kernels="strided",
        notop_file="efficientnetb4_notop.h5",
    ),
    _keras("densenet121", "DenseNet121", "torch", 13, "30ee3e1110167f948a6b9946edeeb738"),
    _keras("resnet50", "ResNet50", "caffe", 11, "4d473c1dd8becc155b73f8504c6f6626"),
    _keras("mobilenet", "MobileNet", "tf", 4, notop_file="mobilenet_1_0_224_tf_no_top.h5"),
    _keras("xception", "Xception", "tf", 11, "b0042744bf5b25fce3cb969f33bebb97", smallest_edge=75),
    _keras(
        *("inception_resnet_v2", "InceptionResNetV2", "tf", 38, "d19885ff4a710c122648d3b5c3b684e4"),
        smallest_edge=75,
    ),
)
"""The seven architectures of the paper, in the order in which an ensemble lists them."""

ARCHITECTURES: dict[str, Architecture] = {one.name: one for one in PAPER_ARCHITECTURES}
"""All architectures that a configuration may use, by name; see :func:`register`."""


def register(architecture: Architecture) -> None:
    """Add an architecture to this process, and to its worker processes (see `with_architectures`)."""
    known = ARCHITECTURES.setdefault(architecture.name, architecture)
    if known != architecture:
        raise ValueError(f"another architecture has the name {architecture.name}: {known.builder}")


def with_architectures(start: Callable[[], None]) -> Callable[[], None]:
    """Return a function that starts a worker process with the architectures of this process."""
    return partial(_start_with, tuple(ARCHITECTURES.values()), start)


def _start_with(architectures: tuple[Architecture, ...], start: Callable[[], None]) -> None:
    for architecture in architectures:
        register(architecture)
    start()


def preprocessing(mode: PreprocessMode, channels: int = IMAGENET_CHANNELS) -> Preprocessing:
    """Return the affine map of a preprocessing mode, as ``keras.applications.imagenet_utils`` defines it."""
    order, ones = tuple(range(channels)), np.ones(channels)
    if mode == "tf":
        return Preprocessing(order, ones / 127.5, -ones)
    if channels != IMAGENET_CHANNELS:
        raise ValueError(
            f"the preprocessing {mode!r} is defined for {IMAGENET_CHANNELS} channels, not {channels}"
        )
    if mode == "torch":
        std = np.array(_IMAGENET_STD_RGB)
        return Preprocessing(order, 1 / (255 * std), -np.array(_IMAGENET_MEAN_RGB) / std)
    return Preprocessing(order[::-1], ones, -np.array(_CAFFE_MEAN_BGR))


def build_application(name: str, height: int = 250, width: int = 300) -> Any:
    """Build the model of ``keras.applications`` without weights and without a classifier.

    It has the same weights as Keras' ``notop`` files, so it is the model that is loaded and saved. It
    includes layers that preprocess; :func:`backbone_of` removes them.
    """
    model = ARCHITECTURES[name].build(height, width)
    if ARCHITECTURES[name].first_layer:
        # The values in Keras' file, so that files of random and of trained weights are equivalent. Keras
        # stores the standard deviation as the variance; see the comment in its efficientnet module.
        normalization = _normalization(model)
        normalization.adapt_mean.assign(np.array(_IMAGENET_MEAN_RGB, np.float32))
        normalization.adapt_variance.assign(np.array(_IMAGENET_STD_RGB, np.float32))
        normalization.finalize_state()
    return model


def backbone_of(name: str, application: Any) -> Any:
    """Return the backbone, from the preprocessed image [N, H, W, C] to the last activation [N, h, w, F].

    EfficientNetB4 divides by the standard deviation in two steps, and Keras adds the second step (a
    Rescaling layer) only with ``weights="imagenet"``: a model that is built with ``weights=None`` and loads
    the same file computes different values, without an error. Therefore the layers before ``first_layer``
    are removed, and replaced by the equivalent ``torch`` preprocessing for all weights.

    Raises
    ------
    ValueError
        If the normalisation in the weights differs from that of Keras' published weights.
    """
    import keras

    first_layer = ARCHITECTURES[name].first_layer
    if not first_layer:
        return application
    normalization = _normalization(application)
    mean, variance = (
        np.asarray(part).ravel() for part in (normalization.adapt_mean, normalization.adapt_variance)
    )
    expected = (_IMAGENET_MEAN_RGB, _IMAGENET_STD_RGB)
    if not np.allclose((mean, variance), expected, atol=1e-4):
        raise ValueError(
            f"{name}: the normalisation in these weights has mean {mean} and 'variance' {variance}; "
            f"expected {_IMAGENET_MEAN_RGB} and {_IMAGENET_STD_RGB} as in Keras' weights"
        )
    return keras.Model(application.get_layer(first_layer).input, application.output, name=name)


def _normalization(application: Any) -> Any:
    import keras

    return next(layer for layer in application.layers if isinstance(layer, keras.layers.Normalization))


def preprocess(name: str, scaled: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Convert images [N, H, W, C] of integers in 0..255 to the input of the backbone, in NumPy."""
    how = ARCHITECTURES[name].preprocessing
    return np.asarray(scaled[..., list(how.order)] * how.scale + how.offset, np.float32)
