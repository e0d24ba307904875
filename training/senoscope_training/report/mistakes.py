"""Which FOVs the best system gets wrong, and what its networks looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from senoscope.engine.gradcam import ensemble_map
from senoscope_client.tables import csv_rows
from senoscope_training.experiment.folder import Experiment, Prediction
from senoscope_training.systems import in_table_order

Load = Callable[[str], npt.NDArray[Any]]
_HEADLINE = ("fully_trained", "frozen", "hybrid", "scratch")


@dataclass(frozen=True)
class Judged:
    """One test FOV over all runs.

    Attributes
    ----------
    wrong, runs : int
        How often it was called wrong, and of how many.
    score : float
        Mean over the runs.
    """

    fold: str
    file: str
    positive: bool
    wrong: int
    runs: int
    score: float


def headline_system(experiment: Experiment) -> str | None:
    """The product where it was trained, else the next best that was."""
    there = {prediction.system for prediction in experiment.predictions}
    return next((system for system in (*_HEADLINE, *in_table_order(there)) if system in there), None)


def judge(experiment: Experiment, system: str) -> tuple[Judged, ...]:
    """All test FOVs under one system, the most often wrong first."""
    found: dict[tuple[str, str], list[tuple[bool, float]]] = {}
    for prediction in experiment.predictions:
        if prediction.system == system:
            for file, truth, score in zip(prediction.files, prediction.truth, prediction.score, strict=True):
                found.setdefault((prediction.fold, file), []).append((bool(truth), float(score)))
    judged = [
        Judged(
            fold,
            file,
            answers[0][0],
            sum((score > 0.5) != truth for truth, score in answers),
            len(answers),
            float(np.mean([score for _, score in answers])),
        )
        for (fold, file), answers in found.items()
    ]
    return tuple(sorted(judged, key=lambda j: (-j.wrong, -abs(j.score - j.positive), j.file)))


def erring(experiment: Experiment) -> dict[str, int]:
    """How many test FOVs each system calls wrong in at least one run, in the order of tables."""
    wrong: dict[str, set[tuple[str, str]]] = {}
    for prediction in experiment.predictions:
        found = wrong.setdefault(prediction.system, set())
        mistaken = prediction.answer != prediction.truth
        found |= {
            (prediction.fold, file)
            for file, is_wrong in zip(prediction.files, mistaken, strict=True)
            if is_wrong
        }
    return {system: len(wrong[system]) for system in in_table_order(wrong)}


def mistakes_csv(judged: tuple[Judged, ...], classes: tuple[str, str], *, synthetic: bool = False) -> str:
    """Those that were wrong at least once."""
    heading = ["fold", "file", "truth", "wrong_in_runs", "runs", "mean_score", "data"]
    data = "synthetic" if synthetic else ""
    wrong = [
        [j.fold, j.file, classes[j.positive], j.wrong, j.runs, round(j.score, 6), data]
        for j in judged
        if j.wrong
    ]
    return "".join(csv_rows([heading, *wrong]))


class Maps:
    """Grad-CAM maps of the fully trained ensemble for test FOVs.

    Parameters
    ----------
    experiment : Experiment
    """

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._read: dict[tuple[str, int], dict[str, npt.NDArray[np.float32]]] = {}
        self._by_key: dict[tuple[str, int, str], Prediction] = {
            (p.fold, p.run, p.system): p for p in experiment.predictions
        }

    def ensemble(self, fold: str, run: int, file: str) -> npt.NDArray[np.float32] | None:
        """The ensemble's map [H, W] in 0..1, or None where the fully trained ensemble was not trained."""
        config = self._experiment.config
        if (fold, run) not in self._read:
            self._read[fold, run] = self._experiment.maps(fold, run)
        maps = self._read[fold, run]
        if len(maps) < len(config.networks) or ("fully_trained" not in config.systems):
            return None
        members = [self._by_key[fold, run, network] for network in config.networks]
        k = members[0].files.index(file)
        return ensemble_map(
            [maps[network][k] for network in config.networks],
            np.array([member.score[k] for member in members]),
            config.input.height,
            config.input.width,
        )
