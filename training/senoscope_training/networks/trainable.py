"""A network for training in Keras: a backbone in inference mode, global max pooling, the paper's head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from senoscope_training.networks.architectures import backbone_of, preprocess
from senoscope_training.networks.fitting import Checkpoint, FitState, OnEpoch, fit, reset_optimizer
from senoscope_training.networks.head import Head, TrainedHead, build_head, compile_for, folded, head_loss
from senoscope_training.networks.images import ImageExamples, batches
from senoscope_training.networks.random_weights import draw_kernels, estimate_batch_norm
from senoscope_training.networks.settings import HeadConfig, PhaseConfig
from senoscope_training.networks.weights import WeightsPlan, describe_weights, load_application

Float32 = npt.NDArray[np.float32]
_PREDICT_BATCH = 16  # images; always the same number, so that nothing is compiled twice


class Standardize(keras.layers.Layer):  # type: ignore[misc]
    """(features - mean) * scale, with constants that can be replaced without a new compilation."""

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Create the two constants."""
        size = (shape[-1],)
        self.mean = self.add_weight(shape=size, initializer="zeros", trainable=False, name="mean")
        self.scale = self.add_weight(shape=size, initializer="ones", trainable=False, name="scale")

    def call(self, features: Any) -> Any:
        """Standardise features [N, C]."""
        return (features - self.mean) * self.scale


class Classifier(keras.Model):  # type: ignore[misc]
    """A model from preprocessed images [N, H, W, C] to logits [N, 1].

    It is a subclass because in a functional model the training mode would also apply to the backbone, whose
    batch norms must stay in inference mode.
    """

    def __init__(self, backbone: Any, head: Any) -> None:
        super().__init__()
        self.backbone = backbone
        self.standardize = Standardize()
        self.head = head

    def call(self, images: Any, training: bool | None = None) -> Any:
        """Compute the logits."""
        pooled = keras.ops.max(self.backbone(images, training=False), axis=(1, 2))
        return self.head(self.standardize(pooled), training=training)


@dataclass(frozen=True)
class Explanation:
    """Probabilities [N] of images, and the Grad-CAM maps [N, h, w] that explain them, not normalised."""

    probability: npt.NDArray[np.float64]
    gradcam: Float32


class TrainableNetwork:
    """A network that is compiled once, and can be trained repeatedly from the same backbone.

    The seed is that of random backbone weights, whose batch-norm statistics are those of the sample, scaled
    images [N, H, W, C] of uint8; see `set_statistics`.
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
        pooled = keras.layers.GlobalMaxPooling2D()(self.backbone.output)
        self._activation_model = keras.Model(self.backbone.input, [self.backbone.output, pooled])
        self._classifier: Any = None
        if plan.random:
            self.set_statistics(sample)
        self.weights = describe_weights(name, application, plan)

    def set_statistics(self, sample: npt.NDArray[np.uint8]) -> None:
        """Set the batch-norm statistics of a random backbone to those of scaled images [N, H, W, C].

        The kernels are reset first. Afterwards `reset` restores this state.
        """
        self.reset()
        if not self.backbone.trainable:  # the statistics of a frozen batch norm would not change
            self.backbone.trainable, self._classifier = True, None
        estimate_batch_norm(self.name, self._application, self.preprocess(sample.astype(np.float32)))
        self._original = self.backbone.get_weights()

    def preprocess(self, images: Float32) -> Float32:
        """Convert images of 0..255 to the input of the backbone."""
        return preprocess(self.name, images)

    def features(self, images: npt.NDArray[np.uint8]) -> Float32:
        """Compute pooled features [N, C] with the current weights of the backbone."""
        return np.concatenate([pooled for _, pooled in self._activations(images)])

    def explain(self, images: npt.NDArray[np.uint8], head: Head) -> Explanation:
        """Compute probabilities and Grad-CAM maps of scaled images [N, H, W, C]."""
        probability, maps = [], []
        for activation, pooled in self._activations(images):
            hidden = pooled.astype(np.float64) @ head.w1 + head.b1
            probability.append(1 / (1 + np.exp(-(np.maximum(hidden, 0) @ head.w2 + head.b2))))
            # The gradient of the logit with respect to the pooled features; see the exported graph.
            gradient = ((hidden > 0) * head.w2) @ head.w1.T.astype(np.float64)
            cells = activation.shape[1] * activation.shape[2]
            maps.append(np.maximum(np.einsum("nhwc,nc->nhw", activation, gradient) / cells, 0))
        return Explanation(np.concatenate(probability), np.concatenate(maps).astype(np.float32))

    def reset(self) -> None:
        """Restore the original weights of the backbone."""
        self.backbone.set_weights(self._original)

    def fine_tune(
        self,
        start: TrainedHead,
        train: ImageExamples,
        held: ImageExamples,
        phase: PhaseConfig,
        seed: int,
        checkpoint: Checkpoint | None = None,
        on_epoch: OnEpoch | None = None,
        *,
        frozen: bool = False,
    ) -> tuple[Head, FitState]:
        """Train backbone and head together (phase 2), from the original backbone and a trained head.

        The backbone keeps its new weights until `reset`. If it is ``frozen``, only the head is trained,
        through the network: phase 1 as Keras does it, for comparison.
        """
        classifier = self._classifier_for(phase.learning_rate, frozen)
        self.reset()
        classifier.head.set_weights(start.weights)
        standard = start.standardization
        classifier.standardize.set_weights([standard.mean, standard.scale])
        reset_optimizer(classifier, phase.learning_rate)
        truth = held.labels.astype(np.float32)[:, None]

        def validation_loss() -> float:
            pooled = np.concatenate(
                [self.features(held.scaled(part)) for part in batches(len(held), _PREDICT_BATCH * 8)]
            )
            return head_loss(classifier.head.get_weights(), standard.apply(pooled), truth, self._config)

        state = fit(classifier, train, validation_loss, phase, seed, checkpoint, on_epoch)
        return folded(classifier.head.get_weights(), standard), state

    def _classifier_for(self, learning_rate: float, frozen: bool) -> Any:
        if self._classifier is None or self.backbone.trainable is frozen:
            self.backbone.trainable = not frozen
            head = build_head(self.feature_size, self._config)
            self._classifier = Classifier(self.backbone, head)
            self._classifier(keras.Input(self.backbone.input.shape[1:]))  # creates the weights
            compile_for(self._classifier, learning_rate)
        return self._classifier

    def _activations(self, images: npt.NDArray[np.uint8]) -> Any:
        for part in batches(len(images), _PREDICT_BATCH):
            batch = np.zeros((_PREDICT_BATCH, *images.shape[1:]), np.float32)
            batch[: len(part)] = images[part]
            activation, pooled = self._activation_model.predict_on_batch(self.preprocess(batch))
            yield np.asarray(activation)[: len(part)], np.asarray(pooled)[: len(part)]
