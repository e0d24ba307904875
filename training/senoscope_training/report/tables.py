"""Table 2: metrics of all systems over the runs, with intervals, and those of the paper."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from senoscope_client.tables import csv_rows
from senoscope_training.experiment.folder import Experiment, Prediction
from senoscope_training.metrics import METRICS, MetricError, interval, mean_sd
from senoscope_training.report.paper import TABLE_2, PaperRow
from senoscope_training.systems import in_table_order, title_of

RATES = ("accuracy", "precision", "recall", "f1", "auc")
CALIBRATION = ("brier", "ece")
_METRICS = (*RATES, *CALIBRATION)
NAMES = {
    "accuracy": "Accuracy",
    "precision": "Precision",
    "recall": "Recall",
    "f1": "F1-score",
    "auc": "AUC",
    "brier": "Brier score",
    "ece": "ECE",
}


@dataclass(frozen=True)
class Cell:
    """One metric of one system, as fractions, with the 95 % interval of its mean over FOVs."""

    mean: float
    sd: float
    low: float
    high: float
    largest: float
    runs: int
    exact: bool = False


@dataclass(frozen=True)
class Row:
    """The metrics of one system."""

    system: str
    runs: int
    fovs: int
    cells: dict[str, Cell]
    """By metric, without metrics that are undefined for the test FOVs; ``notes`` contains the reasons."""
    paper: PaperRow
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Title of the system."""
        return title_of(self.system)


@dataclass(frozen=True)
class Tables:
    """The rows of all folds together, and, if there are several folds, of each fold."""

    overall: tuple[Row, ...]
    folds: dict[str, tuple[Row, ...]] = field(default_factory=dict)


def make_tables(experiment: Experiment) -> Tables:
    """Compute all rows; with several folds, the overall rows pool the test FOVs of the folds in each run."""
    folds = list(experiment.provenance["folds"])
    single = {fold: _rows([p for p in experiment.predictions if p.fold == fold]) for fold in folds}
    if len(folds) == 1:
        return Tables(single[folds[0]])
    return Tables(_rows(_pooled(experiment.predictions, folds)), single)


def _pooled(predictions: Sequence[Prediction], folds: Sequence[str]) -> list[Prediction]:
    groups: dict[tuple[str, int], list[Prediction]] = defaultdict(list)
    for prediction in predictions:
        groups[prediction.system, prediction.run].append(prediction)
    pooled = []
    for (system, run), parts in groups.items():
        if len(parts) == len(folds):
            files = tuple(file for part in parts for file in part.files)
            truth = np.concatenate([part.truth for part in parts])
            score = np.concatenate([part.score for part in parts])
            pooled.append(Prediction("all", run, system, files, truth, score))
    return pooled


def _rows(predictions: Sequence[Prediction]) -> tuple[Row, ...]:
    by_system: dict[str, list[Prediction]] = defaultdict(list)
    for prediction in predictions:
        by_system[prediction.system].append(prediction)
    return tuple(_row(system, by_system[system]) for system in in_table_order(by_system))


def _row(system: str, runs: list[Prediction]) -> Row:
    truth = runs[0].truth
    scores = np.stack([run.score for run in runs])
    cells, notes = {}, []
    for name in _metrics_of(system):
        try:
            values = [METRICS[name](truth, score) for score in scores]
        except MetricError as error:
            notes.append(str(error))
            continue
        mean, sd = mean_sd(values)
        spread = interval(truth, scores, name)
        cells[name] = Cell(mean, sd, spread.low, spread.high, max(values), len(values), spread.exact)
    return Row(system, len(runs), len(truth), cells, TABLE_2.get(system, PaperRow()), tuple(notes))


def to_csv(tables: Tables, *, synthetic: bool = False) -> str:
    """Return all rows of all folds as CSV, in percent as in the paper; Brier score and ECE as fractions."""
    head: list[Any] = ["fold", "system", "runs", "test_fovs"]
    for name in _METRICS:
        head += [f"{name}_mean", f"{name}_sd", f"{name}_ci95_low", f"{name}_ci95_high"]
    head += ["auc_max", "paper_accuracy", "paper_precision", "paper_recall", "paper_f1", "paper_auc_max"]
    head += ["exact_intervals", "data"]
    lines = [head]
    groups = [("all" if tables.folds else "test", tables.overall), *tables.folds.items()]
    for fold, row in ((fold, row) for fold, rows in groups for row in rows):
        line: list[Any] = [fold, row.title, row.runs, row.fovs]
        for name in _METRICS:
            cell = row.cells.get(name)
            values = (cell.mean, cell.sd, cell.low, cell.high) if cell else (None,) * 4
            line += [_scaled(name, value) for value in values]
        line.append(_scaled("auc", row.cells["auc"].largest if "auc" in row.cells else None))
        line += [pair and pair[0] for pair in row.paper[:4]]
        line.append(row.paper.max_auc)
        line.append(" ".join(name for name, cell in row.cells.items() if cell.exact))
        line.append("synthetic" if synthetic else "")
        lines.append(line)
    return "".join(csv_rows(lines))


def _scaled(name: str, value: float | None) -> float | None:
    """Return rates in percent, and Brier score and ECE as fractions."""
    return None if value is None else round(value * (100 if name in RATES else 1), 4)


def to_markdown(rows: Sequence[Row], *, synthetic: bool = False) -> str:
    """Return rows as a Markdown table, in percent: mean +- SD."""
    lines = [
        *(["**Synthetic data, not for science.**", ""] if synthetic else []),
        "| system | accuracy | precision | recall | F1-score | mean AUC | max AUC |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        largest = row.cells.get("auc")
        cells = " | ".join(format_cell(row.cells.get(name)) for name in RATES)
        lines.append(f"| {row.title} | {cells} | {'-' if largest is None else f'{largest.largest:.1%}'} |")
    return "\n".join(lines) + "\n"


def format_cell(cell: Cell | None) -> str:
    """Format a cell as in the paper, in percent; a single run has no deviation."""
    if cell is None:
        return "-"
    return f"{cell.mean * 100:.1f}" + (f" ± {cell.sd * 100:.1f}" if cell.runs > 1 else "")


def per_run_csv(experiment: Experiment) -> str:
    """Return all metrics of all runs as CSV, in percent; Brier score and ECE as fractions."""
    lines: list[list[Any]] = [["fold", "run", "system", *_METRICS, "data"]]
    for prediction in experiment.predictions:
        values: dict[str, float] = {}
        for name in _metrics_of(prediction.system):
            with suppress(MetricError):
                values[name] = METRICS[name](prediction.truth, prediction.score)
        line = [prediction.fold, prediction.run, title_of(prediction.system)]
        data = "synthetic" if experiment.synthetic else ""
        lines.append([*line, *(_scaled(name, values.get(name)) for name in _METRICS), data])
    return "".join(csv_rows(lines))


def _metrics_of(system: str) -> tuple[str, ...]:
    """Return the metrics of a system; the hybrid's fraction of votes is not a probability."""
    return RATES if system == "hybrid" else _METRICS
