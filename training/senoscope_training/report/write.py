"""The report of an experiment, written beside its results."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from senoscope.results.pictures import scale_channel
from senoscope_training.config import DataConfig, InputConfig
from senoscope_training.dataset.model import DataSetError
from senoscope_training.dataset.reading import load_fov
from senoscope_training.experiment.folder import Experiment, Prediction, read_experiment
from senoscope_training.report.figures import Rendered, all_figures, fov_with_map, render
from senoscope_training.report.mistakes import (
    Judged,
    Load,
    Maps,
    headline_system,
    judge,
    mistakes_csv,
)
from senoscope_training.report.page import Picture, make_page
from senoscope_training.report.tables import make_tables, per_run_csv, to_csv, to_markdown
from senoscope_training.workers.files import atomic_file

REPORT_NAME = "report.html"
_PICTURES = 24


def write_report(directory: Path, out: Path | None = None, load: Load | None = None) -> Path:
    """Write ``report.html`` with its tables and figures, as SVG, as PNG of 300 dots per inch and as PDF.

    Parameters
    ----------
    directory : Path
        Of the experiment.
    out : Path, optional
        Folder for the report; default: ``report`` in the experiment's.
    load : callable, optional
        Reads a FOV [C, H, W] by its name in the data set; default: from where the experiment read it.
        A FOV that cannot be read any more is shown by its map alone.

    Raises
    ------
    ExperimentError
        If the folder is none of an experiment.
    """
    experiment = read_experiment(directory)
    config = experiment.config
    out = out or directory / "report"
    pictures = _Pictures(experiment, load or partial(_load, config.data, config.input))
    tables = make_tables(experiment)
    system = headline_system(experiment)
    judged = () if system is None else judge(experiment, system)
    synthetic = experiment.synthetic
    svg = {}
    for name, figure in all_figures(experiment, tables.overall).items():
        rendered = render(figure, synthetic=synthetic)
        svg[name] = rendered.svg
        _write_figure(out, name, rendered)
    cases = pictures.cases()
    for k, case in enumerate(cases):
        if case.rendered is not None:
            _write_figure(out, f"figure_6{'abcd'[k]}", case.rendered)
    wrong = [j for j in judged if j.wrong][:_PICTURES]
    gallery = [pictures.mistake(j) for j in wrong]
    _write(out / "table2.csv", to_csv(tables, synthetic=synthetic))
    _write(out / "table2.md", to_markdown(tables.overall, synthetic=synthetic))
    _write(out / "metrics_per_run.csv", per_run_csv(experiment))
    _write(out / "misclassified.csv", mistakes_csv(judged, config.data.classes, synthetic=synthetic))
    page = make_page(experiment, tables, system, judged, svg, cases, gallery)
    _write(out / REPORT_NAME, page)
    return out / REPORT_NAME


def _write_figure(out: Path, name: str, rendered: Rendered) -> None:
    for suffix, content in (("svg", rendered.svg), ("png", rendered.png), ("pdf", rendered.pdf)):
        _write(out / "figures" / f"{name}.{suffix}", content)


def _write(path: Path, content: str | bytes) -> None:
    with atomic_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def _load(data: DataConfig, size: InputConfig, file: str) -> npt.NDArray[Any]:
    return load_fov(data.path, file, data, size)


class _Pictures:
    """FOVs with their maps."""

    def __init__(self, experiment: Experiment, load: Load) -> None:
        self._experiment = experiment
        self._load = load
        self._maps = Maps(experiment)
        negative, positive = experiment.config.data.classes
        self._kinds = (
            (f"(A) {negative}, called {negative}", False, False),
            (f"(B) {positive}, called {positive}", True, True),
            (f"(C) {negative}, called {positive}", False, True),
            (f"(D) {positive}, called {negative}", True, False),
        )

    def cases(self) -> list[Picture]:
        """Figure 6: of each kind of answer the most confident, in the first run of the first fold."""
        first = next((p for p in self._experiment.predictions if p.system == "fully_trained"), None)
        if first is None:
            why = "the fully trained ensemble was not trained"
            return [Picture(title, why=why) for title, _, _ in self._kinds]
        return [self._case(first, *kind) for kind in self._kinds]

    def _case(self, prediction: Prediction, title: str, truth: bool, answer: bool) -> Picture:
        fitting = np.flatnonzero((prediction.truth == truth) & (prediction.answer == answer))
        if not len(fitting):
            return Picture(title, why="there is none")
        k = fitting[np.argmax(np.abs(prediction.score[fitting] - 0.5))]
        file, score = prediction.files[k], prediction.score[k]
        return self._picture(prediction.fold, prediction.run, file, title, f"{title}: {file}, {score:.3f}")

    def mistake(self, judged: Judged) -> Picture:
        """A misclassified FOV, with the map of the first run."""
        negative, positive = self._experiment.config.data.classes
        truth = positive if judged.positive else negative
        title = f"{truth}, mean score {judged.score:.2f}"
        return self._picture(judged.fold, 1, judged.file, title, f"{judged.file}: {title}")

    def _picture(self, fold: str, run: int, file: str, title: str, caption: str) -> Picture:
        config = self._experiment.config
        gradcam = self._maps.ensemble(fold, run, file)
        bounds = self._experiment.provenance["intensity_ranges"][fold]
        try:
            pixels = self._load(file)
        except (OSError, DataSetError):
            if gradcam is None:
                return Picture(caption, why="the file cannot be read any more")
            return Picture(caption, self._rendered(fov_with_map(title, (), None, gradcam)))
        scaled = np.stack(
            [
                scale_channel(plane, low, high)
                for plane, low, high in zip(pixels, bounds["low"], bounds["high"], strict=True)
            ]
        )
        return Picture(caption, self._rendered(fov_with_map(title, config.data.channels, scaled, gradcam)))

    def _rendered(self, figure: Figure) -> Rendered:
        return render(figure, synthetic=self._experiment.synthetic)
