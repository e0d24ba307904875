"""Training with early stopping that can be resumed after an interruption, with the same results.

All random numbers of an epoch depend only on the seed and the number of the epoch. Therefore a checkpoint
contains no random state, and an interrupted epoch gives the same results when it is repeated.
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

OnEpoch = Callable[[int, dict[str, float]], None]
"""Called after each epoch with its number, from 1, and its metrics by name."""
_SAVE_EVERY_S = 60.0


class FitError(Exception):
    """Training failed; the message contains a remedy."""


@dataclass
class FitState:
    """The state of a training, except for weights and optimiser."""

    epoch: int = 0
    best: float = float("inf")
    """The lowest validation loss so far."""
    waited: int = 0
    """Epochs since then."""
    history: dict[str, list[float]] = field(default_factory=dict)
    """Metrics per epoch, by name."""


class Checkpoint:
    """A file with the state of a training, its weights, best weights and optimiser.

    It is written at most once in ``every_s``, because weights and moments of a large network take 900 MB.
    """

    def __init__(self, path: Path, every_s: float = _SAVE_EVERY_S) -> None:
        self._path = path
        self._every_s = every_s
        self._last_s = time.monotonic()

    def save(self, state: FitState, model: Any, best: list[npt.NDArray[Any]]) -> None:
        """Write the file, unless it was written less than ``every_s`` ago."""
        if time.monotonic() - self._last_s < self._every_s:
            return
        arrays = {
            **{f"now_{k}": value for k, value in enumerate(model.get_weights())},
            **{f"best_{k}": value for k, value in enumerate(best)},
            **{f"optimizer_{k}": value.numpy() for k, value in enumerate(model.optimizer.variables)},
            "progressed": np.frombuffer(json.dumps(asdict(state)).encode(), np.uint8),
        }
        with atomic_file(self._path) as file:
            np.savez(file, **arrays)
        self._last_s = time.monotonic()

    def load(self, model: Any) -> tuple[FitState, list[npt.NDArray[Any]]] | None:
        """Restore a model; return None if the file does not exist or is damaged."""
        try:
            with np.load(self._path) as file:
                arrays = dict(file)
            state = FitState(**json.loads(arrays["progressed"].tobytes()))
        except (FileNotFoundError, BadZipFile, EOFError, KeyError, ValueError):
            return None  # starting again takes time, but does not change the results
        weights, best, optimizer = (
            [arrays[f"{name}_{k}"] for k in range(sum(key.startswith(f"{name}_") for key in arrays))]
            for name in ("now", "best", "optimizer")
        )
        model.set_weights(weights)
        for variable, value in zip(model.optimizer.variables, optimizer, strict=True):
            variable.assign(value)
        return state, best

    def remove(self) -> None:
        """Delete the file, if it exists."""
        self._path.unlink(missing_ok=True)


def fit(
    model: Any,
    train: Examples,
    validation_loss: Callable[[], float],
    phase: PhaseConfig,
    seed: int,
    checkpoint: Checkpoint | None = None,
    on_epoch: OnEpoch | None = None,
) -> FitState:
    """Train a compiled model until the validation loss stops falling, and restore its best weights.

    Equivalent to Keras' ``fit`` with ``EarlyStopping(restore_best_weights=True)``, but Keras'
    ``BackupAndRestore`` would lose the waiting epochs, the best weights and the random state. It also takes
    a tenth of the time for the small steps of phase 1. The seed is that of the order of examples and of
    dropout.

    Raises
    ------
    FitError
        If the loss is NaN or infinite.
    """
    model.optimizer.build(model.trainable_variables)
    restored = checkpoint.load(model) if checkpoint is not None else None
    state, best = restored or (FitState(), model.get_weights())
    while state.epoch < phase.max_epochs and state.waited < phase.patience:
        _reseed(model, derive_seed(seed, "dropout", state.epoch))
        loss = _epoch(model, train, phase.batch_size, derive_seed(seed, "order", state.epoch))
        metrics = {"loss": loss, "val_loss": validation_loss()}
        state.epoch += 1
        state.waited += 1
        if not np.isfinite(list(metrics.values())).all():
            raise FitError(
                f"the loss is NaN or infinite in epoch {state.epoch} "
                f"(learning rate {phase.learning_rate:g}): a lower learning_rate may help"
            )
        if metrics["val_loss"] < state.best - phase.min_delta:
            state.best, state.waited, best = metrics["val_loss"], 0, model.get_weights()
        for name, value in metrics.items():
            state.history.setdefault(name, []).append(value)
        if on_epoch is not None:
            on_epoch(state.epoch, metrics)
        if checkpoint is not None:
            checkpoint.save(state, model, best)
    model.set_weights(best)
    return state


def reset_optimizer(model: Any, learning_rate: float) -> None:
    """Reset the moments, so that the same compiled model can be trained again."""
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
    """Set the seed of dropout."""
    for layer in model._flatten_layers():
        generator = getattr(layer, "seed_generator", None)
        if generator is not None:
            generator.state.assign(np.array([seed, 0], generator.state.dtype))
