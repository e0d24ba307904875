"""Small Keras networks: one with all constructs of the seven networks, and one that trains quickly."""

from __future__ import annotations

import numpy as np

from senoscope_training.networks.architectures import Architecture

HEIGHT, WIDTH = 45, 61


def tiny_backbone(seed: int = 0, padding: str = "same"):
    """Build a small convolutional network with all constructs of the seven networks."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)

    def norm(x):
        layer = layers.BatchNormalization()
        x = layer(x)
        channels = x.shape[-1]
        layer.set_weights(
            [
                rng.uniform(0.5, 1.5, channels),
                rng.normal(0, 0.2, channels),
                rng.normal(0, 0.2, channels),
                rng.uniform(0.5, 1.5, channels),
            ]
        )
        return x

    image = layers.Input((HEIGHT, WIDTH, 3))
    x = layers.Conv2D(8, 3, strides=2, padding=padding, use_bias=False)(image)
    x = layers.ReLU(6.0)(norm(x))
    # A padding layer, then a depthwise convolution and its batch norm, as in MobileNet.
    x = layers.ZeroPadding2D(((0, 1), (0, 1)))(x)
    x = layers.DepthwiseConv2D(3, strides=2, padding="valid", use_bias=False)(x)
    x = layers.ReLU(6.0)(norm(x))
    # Concatenation, then a batch norm that is not after a convolution, as in DenseNet.
    x = layers.Concatenate()([x, layers.Conv2D(8, 1)(x)])
    x = layers.Activation("relu")(norm(x))
    # Squeeze and excite with swish, as in EfficientNet.
    squeezed = layers.GlobalAveragePooling2D()(x)
    squeezed = layers.Reshape((1, 1, 16))(squeezed)
    squeezed = layers.Conv2D(4, 1, activation="swish")(squeezed)
    x = layers.Multiply()([x, layers.Conv2D(16, 1, activation="sigmoid")(squeezed)])
    # Zero padding before a max pooling, as in ResNet and DenseNet.
    x = layers.Activation("relu")(norm(layers.Conv2D(16, 1, use_bias=False)(x)))
    x = layers.MaxPooling2D(3, strides=2)(layers.ZeroPadding2D(1)(x))
    branch = norm(layers.SeparableConv2D(16, 3, padding="same", use_bias=False)(x))
    x = layers.Activation("relu")(layers.Add()([x, branch]))
    return keras.Model(image, layers.AveragePooling2D(3, strides=1, padding="same")(x), name="tiny")


def build(*, include_top: bool, weights: str | None, input_shape: tuple[int, int, int]):
    """Build a backbone like the builders in ``keras.applications``, with three blocks of MobileNet."""
    import keras
    from keras import layers

    if include_top or weights is not None:
        raise ValueError("this network has no weights and no classifier")
    image = layers.Input(input_shape)
    x = image
    for block, channels in enumerate((8, 16, 24)):
        x = layers.Conv2D(channels, 3, strides=2, padding="same", use_bias=False, name=f"conv_{block}")(x)
        x = layers.ReLU(6.0)(layers.BatchNormalization(name=f"conv_{block}_bn")(x))
        x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name=f"conv_dw_{block}")(x)
        x = layers.ReLU(6.0)(layers.BatchNormalization(name=f"conv_dw_{block}_bn")(x))
    return keras.Model(image, x, name="tiny")


TINY = Architecture("tiny", "Tiny", "support.tiny_backbone:build", "tf", cost=1)
