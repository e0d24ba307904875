"""Writing of the report of an experiment."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from senoscope.engine.gradcam import ensemble_map
from senoscope.results.pictures import scale_channel
from senoscope_training.dataset.model import DataSetError
from senoscope_training.dataset.reading import load_fov
from senoscope_training.experiment.folder import Experiment, Prediction, read_experiment
from senoscope_training.report.figures import Rendered, all_figures, fov_with_map, render
from senoscope_training.report.misclassified import (
    FovResult,
    fov_results,
    headline_system,
    misclassified_csv,
)
from senoscope_training.report.page import CaptionedFigure, make_page
from senoscope_training.report.tables import make_tables, per_run_csv, to_csv, to_markdown
from senoscope_training.workers.files import write_atomic

REPORT_NAME = "report.html"
_GALLERY_SIZE = 24


def write_report(directory: Path, out: Path | None = None) -> Path:
    """Write ``report.html``, its tables, and its figures as SVG, PNG (300 dots per inch) and PDF.

    They are written to ``out``, by default the folder ``report`` in the folder of the experiment. If a FOV of
    the data set can no longer be read, only its map is shown.

    Raises
    ------
    ExperimentError
        If the folder is not the folder of an experiment.
    """
    experiment = read_experiment(directory)
    config = experiment.config
    out = out or directory / "report"
    figures = _FovFigures(experiment)
    tables = make_tables(experiment)
    system = headline_system(experiment)
    results = () if system is None else fov_results(experiment, system)
    synthetic = experiment.synthetic
    svg = {}
    for name, figure in all_figures(experiment, tables.overall).items():
        rendered = render(figure, synthetic=synthetic)
        svg[name] = rendered.svg
        _write_figure(out, name, rendered)
    cases = figures.cases()
    for k, case in enumerate(cases):
        if case.rendered is not None:
            _write_figure(out, f"figure_6{'abcd'[k]}", case.rendered)
    wrong = [result for result in results if result.wrong][:_GALLERY_SIZE]
    gallery = [figures.misclassified(result) for result in wrong]
    write_atomic(out / "table2.csv", to_csv(tables, synthetic=synthetic))
    write_atomic(out / "table2.md", to_markdown(tables.overall, synthetic=synthetic))
    write_atomic(out / "metrics_per_run.csv", per_run_csv(experiment))
    write_atomic(
        out / "misclassified.csv", misclassified_csv(results, config.data.classes, synthetic=synthetic)
    )
    page = make_page(experiment, tables, system, results, svg, cases, gallery)
    write_atomic(out / REPORT_NAME, page)
    return out / REPORT_NAME


def _write_figure(out: Path, name: str, rendered: Rendered) -> None:
    for suffix, content in (("svg", rendered.svg), ("png", rendered.png), ("pdf", rendered.pdf)):
        write_atomic(out / "figures" / f"{name}.{suffix}", content)


class _FovFigures:
    """Draws FOVs with their maps."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._maps = cache(experiment.maps)
        self._by_key = {(p.fold, p.run, p.system): p for p in experiment.predictions}
        negative, positive = experiment.config.data.classes
        self._kinds = (
            (f"(A) {negative}, predicted {negative}", False, False),
            (f"(B) {positive}, predicted {positive}", True, True),
            (f"(C) {negative}, predicted {positive}", False, True),
            (f"(D) {positive}, predicted {negative}", True, False),
        )

    def cases(self) -> list[CaptionedFigure]:
        """Draw Figure 6: the most confident prediction of each kind, in the first run of the first fold."""
        first = next((p for p in self._experiment.predictions if p.system == "fully_trained"), None)
        if first is None:
            reason = "the fully trained ensemble was not trained"
            return [CaptionedFigure(title, reason=reason) for title, _, _ in self._kinds]
        return [self._case(first, *kind) for kind in self._kinds]

    def _case(self, prediction: Prediction, title: str, truth: bool, predicted: bool) -> CaptionedFigure:
        fitting = np.flatnonzero((prediction.truth == truth) & (prediction.predicted == predicted))
        if not len(fitting):
            return CaptionedFigure(title, reason="there is none")
        k = fitting[np.argmax(np.abs(prediction.score[fitting] - 0.5))]
        file, score = prediction.files[k], prediction.score[k]
        return self._figure(prediction.fold, prediction.run, file, title, f"{title}: {file}, {score:.3f}")

    def misclassified(self, result: FovResult) -> CaptionedFigure:
        """Draw a misclassified FOV with the map of the first run."""
        negative, positive = self._experiment.config.data.classes
        truth = positive if result.positive else negative
        title = f"{truth}, mean score {result.score:.2f}"
        return self._figure(result.fold, 1, result.file, title, f"{result.file}: {title}")

    def _map(self, fold: str, run: int, file: str) -> npt.NDArray[np.float32] | None:
        """Return the ensemble's map [H, W] in 0..1; None if the fully trained ensemble was not trained."""
        config = self._experiment.config
        maps = self._maps(fold, run)
        if len(maps) < len(config.networks) or "fully_trained" not in config.systems:
            return None
        members = [self._by_key[fold, run, network] for network in config.networks]
        k = members[0].files.index(file)
        return ensemble_map(
            [maps[network][k] for network in config.networks],
            np.array([member.score[k] for member in members]),
            config.input.height,
            config.input.width,
        )

    def _figure(self, fold: str, run: int, file: str, title: str, caption: str) -> CaptionedFigure:
        config = self._experiment.config
        gradcam = self._map(fold, run, file)
        bounds = self._experiment.provenance["intensity_ranges"][fold]
        try:
            pixels = load_fov(file, config.data, config.input)
            channels = zip(pixels, bounds["low"], bounds["high"], strict=True)
            scaled = np.stack([scale_channel(plane, low, high) for plane, low, high in channels])
        except (OSError, DataSetError):
            if gradcam is None:
                return CaptionedFigure(caption, reason="the file can no longer be read")
            scaled = None
        figure = fov_with_map(title, config.data.channels, scaled, gradcam)
        return CaptionedFigure(caption, render(figure, synthetic=self._experiment.synthetic))
