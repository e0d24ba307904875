"""The folder of an experiment: predictions, training curves, weights and provenance.

    <runs_dir>/<name>/
        config.yaml                     with all defaults
        provenance.json                 data, split, software, host
        <fold>/run_01/<unit>.json       one file per finished unit, see `UnitResult`
        <fold>/run_01/<unit>.npz        Grad-CAM maps of its test FOVs, if it has any
        <fold>/run_01/<unit>.weights.npz
        <fold>/<network>.backbone.npz   random backbone of the frozen ensemble
        backbones/<network>.backbone.npz    trained backbone of the frozen ensemble

A unit is one network of one system in one run: ``fully_trained.mobilenet``, ``frozen.mobilenet``,
``hybrid.mobilenet``, ``two_channels_srs_tpef.mobilenet``, or ``scratch``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
import numpy.typing as npt
import yaml
from pydantic import BaseModel

from senoscope_training.config import Config
from senoscope_training.dataset.splits import FoldRecord
from senoscope_training.systems import in_table_order
from senoscope_training.workers.files import write_atomic

CONFIG_NAME = "config.yaml"
PROVENANCE_NAME = "provenance.json"
BACKBONES_NAME = "backbones"
PHASE_2_BEGAN = "where phase 2 began, "  # prefix of a note about the head before fine-tuning


class ExperimentError(Exception):
    """A folder that is not an experiment, or an experiment that cannot be used as requested."""


class Validation(BaseModel, frozen=True, extra="forbid"):
    """Predictions for the validation FOVs of a unit, without copies; the values are as in `UnitResult`.

    Of the hybrid, they are all FOVs of the training side, each predicted in the cross-validation by a machine
    that was not trained on it.
    """

    files: tuple[str, ...]
    truth: tuple[bool, ...]
    score: tuple[float, ...]


class UnitResult(BaseModel, frozen=True, extra="forbid"):
    """The result of a unit for the test FOVs."""

    system: str
    network: str = ""
    """Empty for the CNN from scratch."""
    files: tuple[str, ...]
    truth: tuple[bool, ...]
    """True for the positive class."""
    score: tuple[float, ...]
    """Probability; for the hybrid, its vote (0 or 1)."""
    validation: Validation | None = None
    """Absent in experiments of earlier releases."""
    history: dict[str, list[float]] = {}
    """Metrics per epoch, ``loss``, ``val_loss`` and ``phase``; empty for the hybrid."""
    details: dict[str, Any] = {}
    """Seed, attempts, chosen parameters."""
    note: str = ""
    """A problem, for example a head that is dead after all attempts; empty if there was none."""

    @property
    def unit(self) -> str:
        """Name of the unit and of its files."""
        return f"{self.system}.{self.network}" if self.network else self.system

    @property
    def final_note(self) -> str:
        """The note without the part that was true only before phase 2."""
        return "; ".join(part for part in self.note.split("; ") if not part.startswith(PHASE_2_BEGAN))


@dataclass(frozen=True)
class Prediction:
    """The predictions of a system for the test FOVs in one run."""

    fold: str
    run: int
    system: str
    """A key of `systems.titles()`: a system, or a single network."""
    files: tuple[str, ...]
    truth: npt.NDArray[np.bool_]
    score: npt.NDArray[np.float64]
    """Mean probability of the networks; for the hybrid the fraction of votes."""

    @property
    def predicted(self) -> npt.NDArray[np.bool_]:
        """Whether each FOV is predicted positive, bool [N]."""
        return self.score > 0.5


class DataRecord(TypedDict):
    """The data set of an experiment."""

    path: str
    sha256: str
    fovs: int
    synthetic: NotRequired[bool]
    classes: dict[str, int]


class RangeRecord(TypedDict):
    """The intensity range of a fold, by channel."""

    low: list[float]
    high: list[float]
    saturated_p99: NotRequired[list[float]]


class Provenance(TypedDict):
    """What ``provenance.json`` holds; experiments of earlier releases lack some keys."""

    data: DataRecord
    folds: dict[str, FoldRecord]
    intensity_ranges: dict[str, RangeRecord]
    weights: str
    procedure: NotRequired[int]
    software: dict[str, str]
    host: dict[str, str | int]


@dataclass(frozen=True)
class Experiment:
    """The results of an experiment so far."""

    directory: Path
    config: Config
    provenance: Provenance
    predictions: tuple[Prediction, ...]
    """Predictions of complete systems: an ensemble is complete when all its networks are trained."""
    trained: tuple[UnitResult, ...]
    """Units with a history."""
    missing: tuple[str, ...] = ()
    """``fold/run_01/unit`` of units that are not finished."""
    notes: tuple[tuple[str, str], ...] = ()
    """``fold/run_01/unit`` and the note of units that have one."""

    @property
    def synthetic(self) -> bool:
        """Whether the data set is synthetic."""
        return bool(self.provenance["data"].get("synthetic"))

    def maps(self, fold: str, run: int) -> dict[str, npt.NDArray[np.float32]]:
        """Read the Grad-CAM maps [N, h, w] of the fine-tuned networks for the test FOVs, not normalised.

        The result is empty if the fully trained ensemble was not trained.
        """
        folder = run_folder(self.directory, fold, run)
        found: dict[str, npt.NDArray[np.float32]] = {}
        for network in self.config.networks:
            path = folder / f"fully_trained.{network}.npz"
            if path.is_file():
                with np.load(path) as arrays:
                    found[network] = np.asarray(arrays["gradcam"], np.float32)
        return found


def run_folder(directory: Path, fold: str, run: int) -> Path:
    """Return the folder of one run of one fold."""
    return directory / fold / f"run_{run:02d}"


def frozen_backbone(directory: Path, fold: str, network: str, *, random: bool) -> Path:
    """Return the file with the weights of a frozen backbone.

    All folds share a trained backbone; a random one has the batch-norm statistics of its fold.
    """
    folder = directory / fold if random else directory / BACKBONES_NAME
    return folder / f"{network}.backbone.npz"


def units_of(config: Config) -> tuple[str, ...]:
    """Return the units of each run, in the order of systems and networks."""
    return tuple(
        unit
        for system in config.systems
        for unit in (["scratch"] if system == "scratch" else [f"{system}.{n}" for n in config.networks])
    )


def read_unit(directory: Path, fold: str, run: int, unit: str) -> UnitResult | None:
    """Read a finished unit; return None if it is not finished."""
    path = run_folder(directory, fold, run) / f"{unit}.json"
    if not path.is_file():
        return None
    return UnitResult.model_validate_json(path.read_bytes())


def write_unit(directory: Path, fold: str, run: int, result: UnitResult) -> None:
    """Write the JSON file of a finished unit; the unit's other files must have been written before."""
    path = run_folder(directory, fold, run) / f"{result.unit}.json"
    write_atomic(path, result.model_dump_json(indent=1) + "\n")


def read_experiment(directory: Path) -> Experiment:
    """Read the results of an experiment so far.

    Raises
    ------
    ExperimentError
        If the folder is not the folder of an experiment.
    """
    try:
        config = Config.model_validate(yaml.safe_load((directory / CONFIG_NAME).read_text(encoding="utf-8")))
        provenance: Provenance = json.loads((directory / PROVENANCE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ExperimentError(f"{directory} is not the folder of an experiment: {error}") from error
    predictions: list[Prediction] = []
    trained: list[UnitResult] = []
    missing: list[str] = []
    notes: list[tuple[str, str]] = []
    for fold in provenance["folds"]:
        for run in range(1, config.runs + 1):
            units = {unit: read_unit(directory, fold, run, unit) for unit in units_of(config)}
            missing += [f"{fold}/run_{run:02d}/{unit}" for unit, result in units.items() if result is None]
            done = {unit: result for unit, result in units.items() if result is not None}
            notes += [
                (f"{fold}/run_{run:02d}/{unit}", result.note) for unit, result in done.items() if result.note
            ]
            trained += [result for result in done.values() if result.history]
            predictions += _combine(config, fold, run, done)
    return Experiment(
        directory, config, provenance, tuple(predictions), tuple(trained), tuple(missing), tuple(notes)
    )


def _combine(config: Config, fold: str, run: int, done: dict[str, UnitResult]) -> list[Prediction]:
    """Compute the predictions of systems from those of their networks: the mean of probabilities or votes."""
    combined = []
    for system in config.systems:
        names = ["scratch"] if system == "scratch" else [f"{system}.{network}" for network in config.networks]
        members = [done[name] for name in names if name in done]
        if len(members) < len(names):
            continue
        parts: dict[str, list[UnitResult]] = {system: members}
        if system == "fully_trained":
            parts |= {member.network: [member] for member in members}
        for name, some in parts.items():
            score = np.asarray(np.mean([member.score for member in some], axis=0, dtype=np.float64))
            truth = np.array(some[0].truth, np.bool_)
            combined.append(Prediction(fold, run, name, some[0].files, truth, score))
    order = in_table_order({prediction.system for prediction in combined})
    return sorted(combined, key=lambda prediction: order.index(prediction.system))
