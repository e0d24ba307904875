"""Training with early stopping that goes on after any interruption as if there had been none.

Whatever is random in an epoch follows from the seed and the epoch's number alone, so a checkpoint need
hold no random state, and an epoch that was cut off is the same when it is done again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from senoscope_training.networks.images import Examples
from senoscope_training.networks.seeds import derive_seed
from senoscope_training.networks.settings import PhaseConfig
from senoscope_training.workers.files import atomic_file

Watch = Callable[[int, dict[str, float]], None]
_EVERY_S = 60.0


class FitError(Exception):
    """Training cannot go on; the message says what to change."""


@dataclass
class Progressed:
    """How far a training is.

    Attributes
    ----------
    epoch : int
        Epochs done.
    best : float
        The lowest validation loss so far.
    waited : int
        Epochs since then.
    history : dict of str to list of float
        Per epoch.
    """

    epoch: int = 0
    best: float = float("inf")
    waited: int = 0
    history: dict[str, list[float]] = field(default_factory=dict)


class Checkpoint:
    """A file that holds a training's state: progress, weights, best weights, optimiser.

    Parameters
    ----------
    path : Path
    every_s : float
        Least time between two writes: weights and moments of a large network are 900 MB.
    """

    def __init__(self, path: Path, every_s: float = _EVERY_S) -> None:
        self._path = path
        self._every_s = every_s
        self._last_s = time.monotonic()

    def save(self, progressed: Progressed, model: Any, best: list[npt.NDArray[Any]]) -> None:
        """Write, unless it was written a short while ago."""
        if time.monotonic() - self._last_s < self._every_s:
            return
        arrays = {
            **{f"now_{k}": value for k, value in enumerate(model.get_weights())},
            **{f"best_{k}": value for k, value in enumerate(best)},
            **{f"optimizer_{k}": value for k, value in enumerate(_values(model.optimizer.variables))},
            "progressed": np.frombuffer(json.dumps(asdict(progressed)).encode(), np.uint8),
        }
        with atomic_file(self._path) as file:
            np.savez(file, **arrays)
        self._last_s = time.monotonic()

    def load(self, model: Any) -> tuple[Progressed, list[npt.NDArray[Any]]] | None:
        """Put a model into the state that was written; None if nothing was, or it is damaged."""
        try:
            groups, progressed = self._read()
        except (FileNotFoundError, BadZipFile, EOFError, KeyError, ValueError):
            return None  # to begin anew costs time and changes no number
        model.set_weights(groups["now"])
        for variable, value in zip(model.optimizer.variables, groups["optimizer"], strict=True):
            variable.assign(value)
        return progressed, groups["best"]

    def _read(self) -> tuple[dict[str, list[npt.NDArray[Any]]], Progressed]:
        with np.load(self._path) as arrays:
            groups = {
                name: [
                    arrays[f"{name}_{k}"] for k in range(sum(key.startswith(f"{name}_") for key in arrays))
                ]
                for name in ("now", "best", "optimizer")
            }
            return groups, Progressed(**json.loads(arrays["progressed"].tobytes()))

    def remove(self) -> None:
        """Forget it."""
        self._path.unlink(missing_ok=True)


def fit(
    model: Any,
    train: Examples,
    judge: Callable[[], float],
    phase: PhaseConfig,
    seed: int,
    checkpoint: Checkpoint | None = None,
    watch: Watch | None = None,
) -> Progressed:
    """Train a compiled model until the validation loss stops falling, and restore its best weights.

    The same as Keras' ``fit`` with ``EarlyStopping(restore_best_weights=True)``, but for what Keras'
    ``BackupAndRestore`` would lose: the wait, the best weights and the random state. On the small steps of
    phase 1 it also spends a tenth of the time.

    Parameters
    ----------
    judge : callable
        The validation loss as the model is now.
    seed : int
        Of order and dropout.
    watch : callable, optional
        Told of each epoch's number, from 1, and its columns.

    Raises
    ------
    FitError
        If the loss is no longer a number.
    """
    model.optimizer.build(model.trainable_variables)
    state = checkpoint.load(model) if checkpoint is not None else None
    progressed, best = state or (Progressed(), model.get_weights())
    while progressed.epoch < phase.max_epochs and progressed.waited < phase.patience:
        _reseed(model, derive_seed(seed, "dropout", progressed.epoch))
        loss = _epoch(model, train, phase.batch_size, derive_seed(seed, "order", progressed.epoch))
        columns = {"loss": loss, "val_loss": judge()}
        progressed.epoch += 1
        progressed.waited += 1
        if not np.isfinite(list(columns.values())).all():
            raise FitError(
                f"the loss is no longer a number in epoch {progressed.epoch} "
                f"(learning rate {phase.learning_rate:g}): a lower learning_rate may help"
            )
        if columns["val_loss"] < progressed.best - phase.min_delta:
            progressed.best, progressed.waited, best = columns["val_loss"], 0, model.get_weights()
        for name, value in columns.items():
            progressed.history.setdefault(name, []).append(value)
        if watch is not None:
            watch(progressed.epoch, columns)
        if checkpoint is not None:
            checkpoint.save(progressed, model, best)
    model.set_weights(best)
    return progressed


def reset_optimizer(model: Any, learning_rate: float) -> None:
    """Forget the moments, so that the same compiled model can be trained anew."""
    optimizer = model.optimizer
    optimizer.build(model.trainable_variables)
    for variable in optimizer.variables:
        variable.assign(np.zeros(variable.shape, variable.dtype))
    optimizer.learning_rate.assign(learning_rate)


def _epoch(model: Any, train: Examples, batch_size: int, seed: int) -> float:
    order = np.random.default_rng(seed).permutation(len(train))
    total = 0.0
    for first in range(0, len(order), batch_size):
        batch = order[first : first + batch_size]
        inputs, truth = train.batch(batch)
        total += float(model.train_on_batch(inputs, truth)) * len(batch)
    return total / len(order)


def _reseed(model: Any, seed: int) -> None:
    """Let dropout draw from here on what this seed gives."""
    for layer in model._flatten_layers():
        generator = getattr(layer, "seed_generator", None)
        if generator is not None:
            generator.state.assign(np.array([seed, 0], generator.state.dtype))


def _values(variables: Any) -> list[npt.NDArray[Any]]:
    import keras

    return [np.asarray(keras.ops.convert_to_numpy(variable)) for variable in variables]
