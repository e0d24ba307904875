"""The FOVs that the best system misclassifies, and their Grad-CAM maps."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from senoscope_client.tables import csv_rows
from senoscope_training.experiment.folder import Experiment
from senoscope_training.systems import in_table_order

_HEADLINE = ("fully_trained", "frozen", "hybrid", "scratch")


@dataclass(frozen=True)
class FovResult:
    """The predictions of one system for a test FOV in all runs."""

    fold: str
    file: str
    positive: bool
    wrong: int
    runs: int
    """Number of runs in which the FOV is misclassified, and of all runs."""
    score: float
    """Mean score over the runs."""


def headline_system(experiment: Experiment) -> str | None:
    """Return the system to report first: the fully trained ensemble if it was trained, or the next best."""
    trained = {prediction.system for prediction in experiment.predictions}
    return next((system for system in (*_HEADLINE, *in_table_order(trained)) if system in trained), None)


def fov_results(experiment: Experiment, system: str) -> tuple[FovResult, ...]:
    """Collect the results of one system for all test FOVs, the most often misclassified first."""
    scores: dict[tuple[str, str, bool], list[float]] = defaultdict(list)
    for prediction in experiment.predictions:
        if prediction.system == system:
            for file, truth, score in zip(prediction.files, prediction.truth, prediction.score, strict=True):
                scores[prediction.fold, file, bool(truth)].append(float(score))
    results = []
    for (fold, file, positive), some in scores.items():
        wrong = sum((score > 0.5) != positive for score in some)
        results.append(FovResult(fold, file, positive, wrong, len(some), float(np.mean(some))))
    return tuple(sorted(results, key=lambda r: (-r.wrong, -abs(r.score - r.positive), r.file)))


def misclassified_counts(experiment: Experiment) -> dict[str, int]:
    """Count the test FOVs that each system misclassifies in at least one run, in the order of tables."""
    wrong: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for prediction in experiment.predictions:
        is_wrong = prediction.predicted != prediction.truth
        wrong[prediction.system].update((prediction.fold, prediction.files[k]) for k in is_wrong.nonzero()[0])
    return {system: len(wrong[system]) for system in in_table_order(wrong)}


def misclassified_csv(
    results: tuple[FovResult, ...], classes: tuple[str, ...], *, synthetic: bool = False
) -> str:
    """Return the FOVs that are misclassified in at least one run, as CSV."""
    heading = ["fold", "file", "truth", "wrong_in_runs", "runs", "mean_score", "data"]
    data = "synthetic" if synthetic else ""
    wrong = [
        [r.fold, r.file, classes[r.positive], r.wrong, r.runs, round(r.score, 6), data]
        for r in results
        if r.wrong
    ]
    return "".join(csv_rows([heading, *wrong]))
