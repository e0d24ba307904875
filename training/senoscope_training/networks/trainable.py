"""One network as Keras trains it: a backbone in inference mode, global max pooling, the paper's head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from senoscope_training.networks.architectures import backbone_of, preprocess
from senoscope_training.networks.fitting import Checkpoint, Progressed, Watch, fit, reset_optimizer
from senoscope_training.networks.head import (
    Head,
    Standardization,
    TrainedHead,
    build_head,
    compile_for,
    folded,
    head_loss,
)
from senoscope_training.networks.images import ImageExamples
from senoscope_training.networks.random_weights import draw_kernels, estimate_batch_norm
from senoscope_training.networks.settings import HeadConfig, PhaseConfig
from senoscope_training.networks.weights import WeightsPlan, describe_weights, load_application

Float32 = npt.NDArray[np.float32]
_PREDICT = 16  # images at a time; one shape, so that nothing is compiled twice


class Standardize(keras.layers.Layer):  # type: ignore[misc]
    """(features - mean) * scale, with constants that can be replaced without compiling anew."""

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Make the two constants."""
        size = (shape[-1],)
        self.mean = self.add_weight(shape=size, initializer="zeros", trainable=False, name="mean")
        self.scale = self.add_weight(shape=size, initializer="ones", trainable=False, name="scale")

    def call(self, features: Any) -> Any:
        """Standardised features."""
        return (features - self.mean) * self.scale


class Classifier(keras.Model):  # type: ignore[misc]
    """Preprocessed images [N, H, W, 3] to logits [N, 1].

    A class and no functional model: there the training mode of the whole would override that of the
    backbone, whose batch norms must never move.
    """

    def __init__(self, backbone: Any, head: Any) -> None:
        super().__init__()
        self.backbone = backbone
        self.standardize = Standardize()
        self.head = head

    def call(self, images: Any, training: bool | None = None) -> Any:
        """Logits."""
        pooled = keras.ops.max(self.backbone(images, training=False), axis=(1, 2))
        return self.head(self.standardize(pooled), training=training)


class Eye(keras.Model):  # type: ignore[misc]
    """Preprocessed images to the last activation [N, h, w, C] and the pooled features [N, C]."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.backbone = backbone

    def call(self, images: Any) -> Any:
        """Activation and features."""
        activation = self.backbone(images, training=False)
        return activation, keras.ops.max(activation, axis=(1, 2))


@dataclass(frozen=True)
class Seen:
    """What a network says of N images.

    Attributes
    ----------
    probability : float64 array [N]
    gradcam : float32 array [N, h, w]
        Not normalised.
    """

    probability: npt.NDArray[np.float64]
    gradcam: Float32


class TrainableNetwork:
    """A network that can be trained again and again from the same backbone, compiled once.

    Parameters
    ----------
    name : str
        Of the architecture.
    plan : WeightsPlan
    seed : int
        Of random backbone weights.
    sample : uint8 array [N, H, W, 3]
        Scaled images that random backbones take their batch-norm statistics from; see `take_statistics`.
    """

    def __init__(
        self, name: str, plan: WeightsPlan, seed: int, sample: npt.NDArray[np.uint8], config: HeadConfig
    ) -> None:
        self.name = name
        self._config = config
        height, width = sample.shape[1:3]
        application = load_application(name, plan, seed, height, width)
        if plan.random:
            draw_kernels(name, application, seed)
        self.backbone = backbone_of(name, application)
        self.feature_size = int(self.backbone.output.shape[-1])
        self._application = application
        self._original = self.backbone.get_weights()
        self._eye = Eye(self.backbone)
        self._classifier: Any = None
        if plan.random:
            self.take_statistics(sample)
        self.weights = describe_weights(name, application, plan)

    def take_statistics(self, sample: npt.NDArray[np.uint8]) -> None:
        """Give a random backbone the batch-norm statistics of scaled images [N, H, W, 3].

        It has its original kernels then, and nothing of the statistics that it had before: `reset` leads
        back to here.
        """
        self.reset()
        if not self.backbone.trainable:  # a frozen batch norm would keep the statistics that it has
            self.backbone.trainable, self._classifier = True, None
        estimate_batch_norm(self.name, self._application, self.preprocess(sample.astype(np.float32)))
        self._original = self.backbone.get_weights()

    def preprocess(self, images: Float32) -> Float32:
        """Images of 0..255 to what the backbone takes."""
        return preprocess(self.name, images)

    def features(self, images: npt.NDArray[np.uint8]) -> Float32:
        """Pooled features [N, C] by the backbone as it is now."""
        return np.concatenate([pooled for _, pooled in self._look(images)])

    def see(self, images: npt.NDArray[np.uint8], head: Head) -> Seen:
        """Probabilities and Grad-CAM maps of scaled images [N, H, W, 3]."""
        probability, maps = [], []
        for activation, pooled in self._look(images):
            hidden = pooled.astype(np.float64) @ head.w1 + head.b1
            probability.append(1 / (1 + np.exp(-(np.maximum(hidden, 0) @ head.w2 + head.b2))))
            # The gradient of the logit with respect to the pooled features; see the exported graph.
            gradient = ((hidden > 0) * head.w2) @ head.w1.T.astype(np.float64)
            cells = activation.shape[1] * activation.shape[2]
            maps.append(np.maximum(np.einsum("nhwc,nc->nhw", activation, gradient) / cells, 0))
        return Seen(np.concatenate(probability), np.concatenate(maps).astype(np.float32))

    def reset(self) -> None:
        """Give the backbone its original weights back."""
        self.backbone.set_weights(self._original)

    def weights_now(self) -> list[npt.NDArray[Any]]:
        """Weights of the backbone as it is now."""
        return list(self.backbone.get_weights())

    def set_weights(self, weights: list[npt.NDArray[Any]]) -> None:
        """Give the backbone other weights."""
        self.backbone.set_weights(weights)

    def fine_tune(
        self,
        start: TrainedHead,
        train: ImageExamples,
        held: ImageExamples,
        phase: PhaseConfig,
        seed: int,
        checkpoint: Checkpoint | None = None,
        watch: Watch | None = None,
        *,
        frozen: bool = False,
    ) -> tuple[Head, Progressed]:
        """Phase 2: train backbone and head together, from the original backbone and a trained head.

        Parameters
        ----------
        frozen : bool
            Train the head alone, through the network: phase 1 as Keras does it, for comparison.

        Returns
        -------
        head : Head
            The backbone keeps its new weights until `reset`.
        progressed : Progressed
        """
        classifier = self._classifier_for(phase.learning_rate, frozen)
        self.reset()
        classifier.head.set_weights(start.weights)
        standard = start.standardization
        classifier.standardize.set_weights(
            [standard.mean.astype(np.float32), standard.scale.astype(np.float32)]
        )
        reset_optimizer(classifier, phase.learning_rate)
        truth = held.labels.astype(np.float32)[:, None]

        def judge() -> float:
            pooled = np.concatenate(
                [self.features(held.scaled(part)) for part in _parts(len(held), _PREDICT * 8)]
            )
            return head_loss(classifier.head.get_weights(), standard.apply(pooled), truth, self._config)

        progressed = fit(classifier, train, judge, phase, seed, checkpoint, watch)
        return folded(classifier.head.get_weights(), standard), progressed

    def _classifier_for(self, learning_rate: float, frozen: bool) -> Any:
        if self._classifier is None or self.backbone.trainable is frozen:
            self.backbone.trainable = not frozen
            head = build_head(self.feature_size, self._config)
            self._classifier = Classifier(self.backbone, head)
            self._classifier(keras.Input(self.backbone.input.shape[1:]))  # makes the weights
            compile_for(self._classifier, learning_rate)
        return self._classifier

    def _look(self, images: npt.NDArray[np.uint8]) -> Any:
        for part in _parts(len(images), _PREDICT):
            batch = np.zeros((_PREDICT, *images.shape[1:]), np.float32)
            batch[: len(part)] = images[part]
            activation, pooled = self._eye.predict_on_batch(self.preprocess(batch))
            yield np.asarray(activation)[: len(part)], np.asarray(pooled)[: len(part)]


def untrained_head(size: int, config: HeadConfig, seed: int) -> TrainedHead:
    """A head as it is initialised: where phase 1 through the network begins."""
    keras.utils.set_random_seed(seed)
    head = build_head(size, config)
    return TrainedHead(head.get_weights(), Standardization.identity(size), seed, 0, Progressed())


def _parts(count: int, size: int) -> list[npt.NDArray[np.int64]]:
    return [np.arange(first, min(first + size, count)) for first in range(0, count, size)]
