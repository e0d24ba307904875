"""Evaluation of an exported ensemble on a labelled data set, with the engine of the service."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from senoscope.engine import Ensemble
from senoscope.engine.devices import Device
from senoscope_client.tables import csv_rows
from senoscope_training.config import DataConfig, InputConfig
from senoscope_training.dataset.model import DataSet, DataSetError
from senoscope_training.dataset.reading import read_data_set
from senoscope_training.dataset.writing import is_synthetic
from senoscope_training.metrics import MetricError, interval, summarize
from senoscope_training.report.tables import RATES
from senoscope_training.workers.progress import Progress, Report, silent

_SYNTHETIC = "these fields of view are synthetic: the metrics are meaningless for real cells"


@dataclass(frozen=True)
class Evaluation:
    """The predictions of an ensemble for a data set, and their metrics."""

    model: str
    digest: str
    classes: tuple[str, ...]
    files: tuple[str, ...]
    truth: npt.NDArray[np.bool_]
    probability: npt.NDArray[np.float64]
    networks: dict[str, npt.NDArray[np.float64]]
    """Probabilities by each network, [N] as ``truth`` and ``probability``."""
    metrics: dict[str, float]
    """As fractions, without metrics that need an absent class."""
    intervals: dict[str, tuple[float, float]]
    """95 % intervals over FOVs."""
    trained_on: int
    """Number of FOVs that the ensemble was trained on, by the contents of their files."""
    synthetic: bool = False
    """Whether the data set has synthetic FOVs; the metrics are then meaningless for real cells."""
    warnings: tuple[str, ...] = ()
    """Assumptions about files, and skipped files."""

    def to_csv(self) -> str:
        """Return one line per FOV; the last column is ``yes`` if the data set is synthetic."""
        heading = ["file", "truth", "answer", "probability", *self.networks, "synthetic"]
        rows = (
            [
                file,
                self.classes[bool(self.truth[k])],
                self.classes[bool(self.probability[k] > 0.5)],
                round(float(self.probability[k]), 6),
                *(round(float(values[k]), 6) for values in self.networks.values()),
                "yes" if self.synthetic else "",
            ]
            for k, file in enumerate(self.files)
        )
        return "".join(csv_rows([heading, *rows]))


def evaluate(
    model: Path, data: DataConfig, split: str, device: Device = "auto", report: Report = silent
) -> Evaluation:
    """Evaluate an exported ensemble on labelled FOVs, with the engine of the service.

    Parameters
    ----------
    model : Path
        Folder of the ensemble.
    data : DataConfig
        Configuration of the data set; its channels and classes are replaced by those of the ensemble.
    split : {"test", "train", "all"}
        FOVs to evaluate on; ``test`` and ``train`` are those in the column ``split`` of dataset.csv.

    Raises
    ------
    EnsembleError
        If the ensemble cannot be loaded.
    DataSetError
        If the data set has faults, or no FOVs for ``split``.
    """
    with Ensemble.load(model, device=device, precision="fp32") as ensemble:
        spec, classes = ensemble.manifest.input, ensemble.manifest.ensemble.classes
        size = InputConfig(height=spec.height, width=spec.width)
        config = data.model_copy(update={"channels": spec.channel_names, "classes": classes})
        remarks: list[str] = []

        def collect_warnings(progress: Progress) -> None:
            if progress.stage == "warning":
                remarks.append(progress.detail)
            else:
                report(progress)

        inspection = read_data_set(config, size, collect_warnings)
        data_set = inspection.data_set
        chosen = _choose(data_set, split)
        rows = []
        for n, k in enumerate(chosen):
            report(Progress("evaluate", model.name, f"{n}/{len(chosen)}"))
            (prediction,) = ensemble.predict(inspection.pixels[k])
            rows.append(prediction.probabilities)
        names, digest = prediction.networks, ensemble.digest
        split_record = ensemble.manifest.training.split
    trained = split_record.get("train")  # the starter ensemble lists no files
    training_files = {entry["sha256"] for entry in trained} if isinstance(trained, list) else set()
    synthetic = is_synthetic(data_set)
    table = np.array(rows, np.float64)
    truth, probability = data_set.labels[chosen], table.mean(axis=1)
    intervals = {}
    for name in RATES:
        with suppress(MetricError):
            found = interval(truth, probability, name)
            intervals[name] = (found.low, found.high)
    return Evaluation(
        model=model.name,
        digest=digest,
        classes=classes,
        files=tuple(data_set.entries[k].file for k in chosen),
        truth=truth,
        probability=probability,
        networks={name: table[:, k] for k, name in enumerate(names)},
        metrics=summarize(truth, probability),
        intervals=intervals,
        trained_on=len(training_files.intersection(data_set.entries[k].sha256 for k in chosen)),
        synthetic=synthetic,
        warnings=(*remarks, *([_SYNTHETIC] if synthetic else [])),
    )


def _choose(data_set: DataSet, split: str) -> npt.NDArray[np.int64]:
    if split == "all":
        return np.arange(len(data_set))
    chosen = np.array([k for k, entry in enumerate(data_set.entries) if entry.split == split], np.int64)
    if not len(chosen):
        raise DataSetError(
            f"{data_set.root} has no FOVs for {split}: fill the column `split` of dataset.csv, or pass "
            "--split all"
        )
    return chosen
