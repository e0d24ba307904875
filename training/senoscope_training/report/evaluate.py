"""An exported ensemble on a labelled data set: what is reported is what will be served."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from senoscope.engine import Ensemble
from senoscope.engine.options import Device
from senoscope_client.tables import csv_rows
from senoscope_training.config import DataConfig, InputConfig
from senoscope_training.dataset.model import DataSet, DataSetError
from senoscope_training.dataset.reading import load_fov, read_data_set
from senoscope_training.dataset.writing import is_synthetic
from senoscope_training.metrics import MetricError, interval, summarize
from senoscope_training.report.tables import RATES
from senoscope_training.workers.progress import Progress, Report, silent

_SYNTHETIC = "these fields of view are synthetic: the figures say nothing about cells"


@dataclass(frozen=True)
class Evaluation:
    """What an ensemble said of a data set.

    Attributes
    ----------
    files : tuple of str
    truth : bool array [N]
    probability : float64 array [N]
    networks : dict of str to float64 array [N]
        Each network alone.
    metrics : dict of str to float
        As fractions; those that need an absent class are left out.
    intervals : dict of str to tuple of float
        95 % intervals over FOVs.
    trained_on : int
        How many of the FOVs the ensemble was trained on, by the contents of their files.
    synthetic : bool
        Whether the data set has drawn FOVs: the figures then say nothing about cells.
    warnings : tuple of str
        What was assumed about files, and what was passed over.
    """

    model: str
    digest: str
    classes: tuple[str, str]
    files: tuple[str, ...]
    truth: npt.NDArray[np.bool_]
    probability: npt.NDArray[np.float64]
    networks: dict[str, npt.NDArray[np.float64]]
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    trained_on: int
    synthetic: bool = False
    warnings: tuple[str, ...] = ()

    def to_csv(self) -> str:
        """One line per FOV; the last column says ``yes`` where the data set is synthetic."""
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
    model: Path,
    data: DataConfig,
    split: str,
    device: Device = "auto",
    report: Report = silent,
) -> Evaluation:
    """Run an exported ensemble on labelled FOVs, through the engine that serves it.

    Parameters
    ----------
    model : Path
        Folder of the ensemble.
    data : DataConfig
        Channels and classes are those of the ensemble, whatever it says.
    split : {"test", "train", "all"}
        Which FOVs; ``test`` and ``train`` are those that dataset.csv names.

    Raises
    ------
    EnsembleError, DataSetError
        If either cannot be used.
    """
    with Ensemble.load(model, device=device) as ensemble:
        spec, classes = ensemble.manifest.input, ensemble.manifest.ensemble.classes
        size = InputConfig(height=spec.height, width=spec.width)
        config = data.model_copy(update={"channels": spec.channel_names, "classes": classes})
        remarks: list[str] = []

        def noting(progress: Progress) -> None:
            if progress.stage == "warning":
                remarks.append(progress.detail)
            else:
                report(progress)

        data_set = read_data_set(config, size, noting)
        chosen = _choose(data_set, split)
        rows = []
        for n, k in enumerate(chosen):
            report(Progress("evaluate", model.name, f"{n}/{len(chosen)}"))
            pixels = load_fov(data_set.root, data_set.entries[k].file, config, size)
            (prediction,) = ensemble.predict(pixels)
            rows.append(prediction.probabilities)
        names, digest = prediction.networks, ensemble.digest
        split_record = ensemble.manifest.training.split
    trained = split_record.get("train")  # the starter ensemble tells of no files
    seen = {entry["sha256"] for entry in trained} if isinstance(trained, list) else set()
    synthetic = is_synthetic(data_set)
    table = np.array(rows, np.float64)
    truth, probability = data_set.labels[chosen], table.mean(axis=1)
    intervals = {}
    for name in RATES:
        try:
            found = interval(truth, probability, name)
        except MetricError:
            continue
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
        trained_on=len(seen.intersection(data_set.entries[k].sha256 for k in chosen)),
        synthetic=synthetic,
        warnings=(*remarks, *([_SYNTHETIC] if synthetic else [])),
    )


def _choose(data_set: DataSet, split: str) -> npt.NDArray[np.int64]:
    if split == "all":
        return np.arange(len(data_set))
    chosen = np.array([k for k, entry in enumerate(data_set.entries) if entry.split == split], np.int64)
    if not len(chosen):
        raise DataSetError(
            f"{data_set.root} names no FOVs for {split}: fill the column `split` of dataset.csv, or take "
            "--split all"
        )
    return chosen
