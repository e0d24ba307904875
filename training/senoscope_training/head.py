"""The paper's classification head: its definition, and its training on cached pooled features.

Features are standardised with the statistics of the training split before they reach the head, and the
affine map is folded into the first dense layer afterwards, so that the exported head is still exactly the
paper's. Max-pooled features are all positive with means far above their spread; fed as they are, they drive
all four ReLU units the same way, often off for good. Of twelve heads on raw features of random backbones
seven were right on less than 60 % of held-out FOVs; on standardised features all twelve learnt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from senoscope_training.graph import Head

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class HeadConfig:
    """Hyperparameters of the head and of its training; the defaults are the paper's phase 1.

    Attributes
    ----------
    validation_fraction : float
        Of each class of the training FOVs; the paper's 43 of 170.
    attempts : int
        Seeds to try until the head is alive: a unit count of four can be all off by chance.
    """

    units: int = 4
    dropout: float = 0.8
    kernel_l1: float = 0.01
    kernel_l2: float = 0.01
    bias_l2: float = 0.01
    activity_l2: float = 5e-5
    learning_rate: float = 5e-4
    batch_size: int = 20
    max_epochs: int = 200
    patience: int = 20
    min_delta: float = 0.005
    validation_fraction: float = 43 / 170
    attempts: int = 5


@dataclass(frozen=True)
class TrainedHead:
    """A head, and how its training went.

    Attributes
    ----------
    seed : int
        The seed of the attempt that was kept.
    validation : int array
        Indices of the FOVs that were held back for early stopping.
    """

    head: Head
    seed: int
    epochs: int
    attempts: int
    validation: npt.NDArray[np.int64]
    train_accuracy: float
    validation_accuracy: float
    validation_loss: float


class DeadHeadError(Exception):
    """No attempt at training a head gave one that tells the classes apart."""


def build_head(features: int, config: HeadConfig) -> Any:
    """The head as a Keras model: pooled features [N, C] to the logit [N, 1].

    The paper's sigmoid is left to the loss and to the exported graph, since Grad-CAM explains the logit.
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


def stratified_split(
    labels: npt.NDArray[np.bool_], fraction: float, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Indices for training and for validation, drawn at random, the same fraction of either class."""
    rng = np.random.default_rng(seed)
    validation: list[int] = []
    for value in (False, True):
        members = rng.permutation(np.flatnonzero(labels == value))
        validation.extend(members[: max(1, round(fraction * len(members)))])
    held = np.sort(np.array(validation, np.int64))
    return np.setdiff1d(np.arange(len(labels)), held), held


def train_head(
    features: Float32, labels: npt.NDArray[np.bool_], seed: int, config: HeadConfig | None = None
) -> TrainedHead:
    """Train a head on pooled features (phase 1 of the paper's procedure: the backbone is frozen).

    Parameters
    ----------
    features : float32 array [N, C]
        Globally max-pooled.
    labels : bool array [N]
        True for senescent.
    seed : int
        Fixes split, initial weights, dropout and order.

    Raises
    ------
    DeadHeadError
        If no attempt does better on the training FOVs than answering always the same.
    """
    config = config or HeadConfig()
    train, held = stratified_split(labels, config.validation_fraction, seed)
    mean = features[train].mean(axis=0, dtype=np.float64)
    deviation = features[train].std(axis=0, dtype=np.float64)
    # A feature that varies less than most is not blown up to vary as much: that would blow up its rounding
    # errors too, and where it is constant there is nothing else in it.
    scale = 1 / max(float(np.median(deviation)), 1e-6) * np.ones_like(deviation)
    np.divide(1.0, deviation, out=scale, where=deviation * scale > 1)
    standard = ((features - mean) * scale).astype(np.float32)
    truth = labels.astype(np.float32)[:, None]
    majority = max(labels.mean(), 1 - labels.mean())
    for attempt in range(config.attempts):
        attempt_seed = seed + attempt
        keras_head, epochs, loss = _fit(standard, truth, train, held, attempt_seed, config)
        head = _folded(keras_head, mean, scale)
        right = (head.logits(features) > 0) == labels
        if right[train].mean() > majority:
            return TrainedHead(
                head=head,
                seed=attempt_seed,
                epochs=epochs,
                attempts=attempt + 1,
                validation=held,
                train_accuracy=float(right[train].mean()),
                validation_accuracy=float(right[held].mean()),
                validation_loss=loss,
            )
    raise DeadHeadError(
        f"{config.attempts} attempts gave no head that tells the classes apart on its own training data "
        f"(seeds {seed} to {seed + config.attempts - 1}): the features of this backbone carry no signal"
    )


def _fit(
    features: Float32,
    truth: Float32,
    train: npt.NDArray[np.int64],
    held: npt.NDArray[np.int64],
    seed: int,
    config: HeadConfig,
) -> tuple[Any, int, float]:
    """Train until the validation loss stops falling; the model with its best weights, epochs, best loss.

    The same as ``fit`` with ``EarlyStopping``, which spends ten times as long on making and ending epochs
    as on these few small steps.
    """
    import keras

    keras.utils.set_random_seed(seed)
    order = np.random.default_rng(seed)
    model = build_head(features.shape[1], config)
    model.compile(
        optimizer=keras.optimizers.Adam(config.learning_rate),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
    )
    best, best_weights, waited, epoch = float("inf"), model.get_weights(), 0, 0
    while epoch < config.max_epochs and waited < config.patience:
        shuffled = order.permutation(train)
        for first in range(0, len(shuffled), config.batch_size):
            batch = shuffled[first : first + config.batch_size]
            model.train_on_batch(features[batch], truth[batch])
        loss = float(model.test_on_batch(features[held], truth[held]))
        epoch, waited = epoch + 1, waited + 1
        if loss < best - config.min_delta:
            best, best_weights, waited = loss, model.get_weights(), 0
    model.set_weights(best_weights)
    return model, epoch, best


def _folded(keras_head: Any, mean: npt.NDArray[np.float64], scale: npt.NDArray[np.float64]) -> Head:
    import keras

    hidden, logit = keras_head.get_layer("hidden"), keras_head.get_layer("logit")
    w1, b1, w2, b2 = (
        np.asarray(keras.ops.convert_to_numpy(v), np.float64) for v in (*hidden.weights, *logit.weights)
    )
    folded = w1 * scale[:, None]
    return Head(
        w1=folded.astype(np.float32),
        b1=(b1 - mean @ folded).astype(np.float32),
        w2=w2.ravel().astype(np.float32),
        b2=float(np.float32(b2[0])),
    )


def keras_network(backbone: Any, head: Head, config: HeadConfig | None = None) -> Any:
    """The whole network in Keras: preprocessed image to the last activation and the logit."""
    import keras

    model = build_head(head.w1.shape[0], config or HeadConfig(units=head.w1.shape[1]))
    model.get_layer("hidden").set_weights([head.w1, head.b1])
    model.get_layer("logit").set_weights([head.w2[:, None], np.array([head.b2], np.float32)])
    pooled = keras.layers.GlobalMaxPooling2D(name="pooling")(backbone.output)
    return keras.Model(backbone.input, [backbone.output, model(pooled)], name=f"{backbone.name}_network")
