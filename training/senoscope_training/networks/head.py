"""The paper's classification head on pooled features, and its training with the backbone frozen.

With random backbones, the features are standardised with the statistics of the training split, and the
affine map is folded into the first dense layer after training, so that the exported head has exactly the
paper's form. Max-pooled features are all positive, and their means are much larger than their spread;
without standardisation all four ReLU units get inputs of the same sign, and are often zero for all images.
Of twelve heads on raw features of random backbones, seven had accuracies below 60 % on held-out FOVs; with
standardised features all twelve heads learned.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from senoscope_training.metrics import auc
from senoscope_training.networks.fitting import FitState, OnEpoch, fit
from senoscope_training.networks.images import FeatureExamples
from senoscope_training.networks.seeds import derive_seed
from senoscope_training.networks.settings import FrozenPhase, HeadConfig, PhaseConfig, ScratchConfig

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
W1, B1, W2, B2 = "head/w1", "head/b1", "head/w2", "head/b2"
VALIDATION_FRACTION = 43 / 170
_ROUNDING = 1e-6


class DeadHeadError(Exception):
    """A head is dead (see `dead_reason`), and the procedure needs one that is not."""


@dataclass(frozen=True)
class Head:
    """The weights of the paper's head with U units after global max pooling.

    logit = w2 . relu(w1' m + b1) + b2, where m are the C pooled features; w1 [C, U], b1 and w2 [U].
    """

    w1: Float32
    b1: Float32
    w2: Float32
    b2: float

    def logits(self, features: Float32) -> npt.NDArray[np.float64]:
        """Compute the logits [N] of pooled features [N, C]."""
        hidden = np.maximum(features.astype(np.float64) @ self.w1 + self.b1, 0)
        return np.asarray(hidden @ self.w2 + self.b2, np.float64)

    def tensors(self) -> dict[str, Float32]:
        """Return the initializers of the exported graph, by name."""
        return {
            W1: np.asarray(self.w1, np.float32),
            B1: np.asarray(self.b1, np.float32),
            W2: np.asarray(self.w2, np.float32).reshape(1, -1),
            B2: np.array([self.b2], np.float32),
        }

    @classmethod
    def random(cls, features: int, seed: int, units: int = 4) -> Head:
        """Draw a head whose units are active for all inputs, to check a graph before its head is trained."""
        rng = np.random.default_rng(seed)
        w1 = rng.normal(0, 1 / np.sqrt(features), (features, units))
        return cls(w1.astype(np.float32), np.ones(units, np.float32), np.ones(units, np.float32), -1.0)


@dataclass(frozen=True)
class Standardization:
    """An affine map of pooled features: (features - mean) * scale."""

    mean: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]

    @classmethod
    def identity(cls, size: int) -> Standardization:
        """Return the identity, as in the paper."""
        return cls(np.zeros(size), np.ones(size))

    @classmethod
    def fitted(cls, features: Float32) -> Standardization:
        """Fit the map to features [N, C], so that they have mean 0 and standard deviation 1.

        Features with a standard deviation below the median are scaled like the median feature: a larger
        scale would amplify their rounding errors, and constant features contain nothing else.
        """
        deviation = features.std(axis=0, dtype=np.float64)
        scale = 1 / max(float(np.median(deviation)), 1e-6) * np.ones_like(deviation)
        np.divide(1.0, deviation, out=scale, where=deviation * scale > 1)
        return cls(features.mean(axis=0, dtype=np.float64), scale)

    def apply(self, features: Float32) -> Float32:
        """Standardise features [N, C]."""
        return np.asarray((features - self.mean) * self.scale, np.float32)


@dataclass(frozen=True)
class TrainedHead:
    """A trained head, and the training of the attempt that was kept."""

    weights: list[Float32]
    """Weights of the Keras head, for standardised features."""
    standardization: Standardization
    seed: int
    attempts: int
    state: FitState
    dead: str = ""
    """The reason why this head is dead, see `dead_reason`; empty if it is not."""

    @property
    def head(self) -> Head:
        """The head for features that are not standardised."""
        return folded(self.weights, self.standardization)


def build_head(features: int, config: HeadConfig) -> Any:
    """Build the head as a Keras model, from pooled features [N, C] to the logit [N, 1].

    The paper's sigmoid is part of the loss and of the exported graph, because Grad-CAM explains the logit.
    """
    import keras

    return keras.Sequential(
        [
            keras.layers.Input((features,), name="pooled"),
            keras.layers.Dropout(config.dropout, name="dropout"),
            keras.layers.Dense(
                config.units,
                activation="relu",
                kernel_regularizer=keras.regularizers.L1L2(config.kernel_l1, config.kernel_l2),
                bias_regularizer=keras.regularizers.L2(config.bias_l2),
                activity_regularizer=keras.regularizers.L2(config.activity_l2),
                name="hidden",
            ),
            keras.layers.Dense(1, name="logit"),
        ],
        name="head",
    )


def compile_for(model: Any, learning_rate: Any) -> None:
    """Compile a model that returns logits, with Adam; the learning rate is a number or a Keras schedule."""
    import keras

    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
        # On a CPU, XLA takes minutes to compile these networks, and they do not run faster.
        jit_compile=keras.backend.backend() == "jax",
    )


def head_loss(weights: list[Float32], features: Float32, truth: Float32, config: HeadConfig) -> float:
    """Compute the loss that Keras reports for a head, including penalties, in NumPy.

    The weights are the hidden kernel [C, U] and bias [U], the output kernel [U, 1] and bias [1].
    """
    w1, b1, w2, b2 = (np.asarray(w, np.float64) for w in weights)
    hidden = np.maximum(features.astype(np.float64) @ w1 + b1, 0)
    return penalised_loss(hidden @ w2 + b2, truth, w1, b1, hidden, config)


def penalised_loss(
    logits: Float64,
    truth: npt.NDArray[Any],
    kernel: Float64,
    bias: Float64,
    activity: Float64,
    config: HeadConfig | ScratchConfig,
) -> float:
    """Compute the cross-entropy of logits [N, 1], and the penalties on a hidden layer with U units.

    The penalties are on its kernel [C, U], its bias [U] and its activity [N, U].
    """
    entropy = np.mean(np.maximum(logits, 0) - logits * truth + np.log1p(np.exp(-np.abs(logits))))
    penalty = config.kernel_l1 * np.abs(kernel).sum() + config.kernel_l2 * np.square(kernel).sum()
    penalty += config.bias_l2 * np.square(bias).sum()
    penalty += config.activity_l2 * np.square(activity).sum(axis=1).mean()
    return float(entropy + penalty)


def stratified_split(
    labels: npt.NDArray[np.bool_], fraction: float, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Draw indices for training and for validation at random, the same fraction of each class."""
    rng = np.random.default_rng(seed)
    validation: list[int] = []
    for value in (False, True):
        members = rng.permutation(np.flatnonzero(labels == value))
        validation.extend(members[: max(1, round(fraction * len(members)))])
    held = np.sort(np.array(validation, np.int64))
    return np.setdiff1d(np.arange(len(labels)), held), held


def train_head(
    train: FeatureExamples,
    held: FeatureExamples,
    seed: int,
    *,
    standardize: bool,
    config: HeadConfig | None = None,
    phase: PhaseConfig | None = None,
    on_epoch: OnEpoch | None = None,
) -> TrainedHead:
    """Train a head on pooled features: phase 1 of the paper's procedure, with the backbone frozen.

    The backbone is deterministic and dropout comes after pooling, so training on features that were
    computed once gives the same result as training through the backbone.

    The result is the first attempt that is not dead. If all are, it is the one with the highest AUC on the
    training examples (of equal ones that with the lowest validation loss), with the reason in ``dead``.
    ``held`` are the validation examples; the seed is that of initial weights, dropout and order.
    """
    import keras

    config, phase = config or HeadConfig(), phase or FrozenPhase()
    size = train.features.shape[1]
    standard = Standardization.fitted(train.features) if standardize else Standardization.identity(size)
    inputs = FeatureExamples(standard.apply(train.features), train.truth[:, 0] > 0)
    held_features = standard.apply(held.features)
    labels = train.truth[:, 0] > 0
    dead: list[tuple[tuple[float, float], TrainedHead]] = []
    for attempt in range(config.attempts):
        attempt_seed = derive_seed(seed, "attempt", attempt)
        keras.utils.set_random_seed(attempt_seed)
        model = build_head(size, config)
        compile_for(model, phase.learning_rate)
        state = fit(
            model,
            inputs,
            lambda: head_loss(model.get_weights(), held_features, held.truth, config),  # noqa: B023 - not kept
            phase,
            attempt_seed,
            on_epoch=on_epoch,
        )
        trained = TrainedHead(model.get_weights(), standard, attempt_seed, attempt + 1, state)
        logits = trained.head.logits(train.features)
        reason = dead_reason(labels, logits)
        if not reason:
            return trained
        rank = (_auc(labels, logits), -state.best)
        dead.append((rank, replace(trained, attempts=config.attempts, dead=reason)))
    return max(dead, key=lambda one: one[0])[1]


def dead_reason(labels: npt.NDArray[np.bool_], logits: npt.NDArray[np.float64]) -> str:
    """Return the reason why a head with these logits [N] of training examples is dead, or an empty string.

    A head is dead if its logits are constant, or if they rank the examples no better than chance. The
    threshold is irrelevant: with one positive in ten, a good head may predict negative for all examples.
    """
    if is_constant(logits):
        return f"the head gives all {len(labels)} training examples the same logit"
    area = _auc(labels, logits)
    if area <= 0.5:
        return f"the head ranks its training examples no better than chance (AUC {area:.2f})"
    return ""


def is_constant(logits: npt.NDArray[Any]) -> bool:
    """Return whether all logits are equal within rounding errors."""
    spread = float(np.ptp(logits))
    return spread <= _ROUNDING * max(1.0, float(np.abs(logits).max()))


def _auc(labels: npt.NDArray[np.bool_], logits: npt.NDArray[np.float64]) -> float:
    """Compute the area under the ROC curve; 0.5 if the logits are constant."""
    return 0.5 if is_constant(logits) else auc(labels, logits)


def folded(weights: list[Float32], standardization: Standardization) -> Head:
    """Convert a head for standardised features to the equivalent head for features that are not."""
    w1, b1, w2, b2 = (np.asarray(w, np.float64) for w in weights)
    kernel = w1 * standardization.scale[:, None]
    return Head(
        w1=kernel.astype(np.float32),
        b1=(b1 - standardization.mean @ kernel).astype(np.float32),
        w2=w2.ravel().astype(np.float32),
        b2=float(np.float32(b2[0])),
    )


def keras_network(backbone: Any, head: Head) -> Any:
    """Build the network in Keras, from the preprocessed image to the last activation and the logit."""
    import keras

    model = build_head(head.w1.shape[0], HeadConfig(units=head.w1.shape[1]))
    model.get_layer("hidden").set_weights([head.w1, head.b1])
    model.get_layer("logit").set_weights([head.w2[:, None], np.array([head.b2], np.float32)])
    pooled = keras.layers.GlobalMaxPooling2D(name="pooling")(backbone.output)
    return keras.Model(backbone.input, [backbone.output, model(pooled)], name=f"{backbone.name}_network")
