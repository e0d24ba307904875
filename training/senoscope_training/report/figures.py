"""The figures of the report: Figures 4, 5 and 6 of the paper, and further ones."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from senoscope_training.experiment.folder import Experiment, Prediction, UnitResult
from senoscope_training.metrics import MetricError, auc, confusion, reliability, roc
from senoscope_training.report.tables import NAMES, Row
from senoscope_training.systems import in_table_order, title_of

# The palette of Okabe and Ito, for colour-blind readers.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
SYNTHETIC = "synthetic data, not for science"
COMPARED = ("fully_trained", "frozen", "hybrid", "scratch")
_STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "senoscope",  # the same figure gives the same file
    "svg.fonttype": "none",
    "pdf.fonttype": 42,  # editable text, which journals require
    "legend.frameon": False,
}
_DPI = 300  # as journals require
_PAGE_DPI = 130  # in the report, which is one file


@dataclass(frozen=True)
class Rendered:
    """A figure in all formats; the same figure gives the same bytes."""

    svg: str
    png: bytes
    """With 300 dots per inch."""
    pdf: bytes
    small: bytes
    """PNG for the report."""


def render(figure: Figure, *, synthetic: bool = False) -> Rendered:
    """Render a figure; if it is ``synthetic``, a label in its corner says so."""
    with mpl.rc_context(_STYLE):
        if synthetic:
            figure.text(
                *(0.995, 0.005), SYNTHETIC, ha="right", va="bottom", fontsize=6, color="#d55e00", zorder=10
            )
        figure.set_dpi(_DPI)
        FigureCanvasAgg(figure).draw()
        figure.set_layout_engine("none")  # the layout is computed, and the same for all formats
        # Not with savefig, which draws each format twice if there was a layout engine.
        svg, png, pdf = io.StringIO(), io.BytesIO(), io.BytesIO()
        FigureCanvasAgg(figure).print_png(png, metadata={"Software": None})
        FigureCanvasPdf(figure).print_pdf(
            pdf, metadata={"CreationDate": None, "Creator": None, "Producer": None}
        )
        FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None, "Creator": None})
    text = svg.getvalue()
    return Rendered(text[text.index("<svg") :], png.getvalue(), pdf.getvalue(), _reduced(png.getvalue()))


def _reduced(png: bytes) -> bytes:
    """Reduce a PNG to the resolution of the report."""
    image = np.asarray(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR))
    scale = _PAGE_DPI / _DPI
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".png", small)[1].tobytes()


@contextmanager
def _figure(
    width: float, height: float, rows: int = 1, columns: int = 1
) -> Iterator[tuple[Figure, list[Axes]]]:
    """Create a figure with axes, to which the style applies inside the context."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.subplots(rows, columns, squeeze=False).ravel().tolist()


def figure_4(rows: Sequence[Row]) -> Figure:
    """Draw bars of the four metrics with their standard deviations over the runs (the paper's Figure 4)."""
    with _figure(max(6.0, 0.75 * len(rows) + 2), 3.6) as (figure, (axis,)):
        places = np.arange(len(rows))
        for k, name in enumerate(("accuracy", "precision", "recall", "f1")):
            cells = [row.cells.get(name) for row in rows]
            axis.bar(
                places + (k - 1.5) * 0.2,
                [0 if cell is None else cell.mean * 100 for cell in cells],
                0.19,
                yerr=[0 if cell is None else cell.sd * 100 for cell in cells],
                label=NAMES[name],
                color=PALETTE[k],
                error_kw={"elinewidth": 0.8, "capsize": 1.5},
            )
        axis.set_xticks(places, [_two_lines(row.title) for row in rows], rotation=35, ha="right")
        axis.set(ylabel="percent (mean, SD over runs)", ylim=(0, 105))
        figure.legend(loc="outside upper center", ncols=4)
    return figure


def _two_lines(title: str) -> str:
    return title.replace(", ", ",\n")


def figure_5(predictions: Sequence[Prediction]) -> Figure:
    """Draw ROC curves, averaged over the runs at equal false positive rates (the paper's Figure 5)."""
    with _figure(4.6, 4.4) as (figure, (axis,)):
        grid = np.linspace(0, 1, 201)
        for k, system in enumerate(COMPARED):
            curves, areas = [], []
            for prediction in predictions:
                if prediction.system != system:
                    continue
                try:
                    fpr, tpr = roc(prediction.truth, prediction.score)
                    areas.append(auc(prediction.truth, prediction.score))
                except MetricError:
                    continue
                curve = np.interp(grid, fpr, tpr)
                curve[0] = 0.0
                curves.append(curve)
            if not curves:
                continue
            mean = np.mean(curves, axis=0)
            sd = np.std(curves, axis=0, ddof=1) if len(curves) > 1 else np.zeros_like(mean)
            label = f"{title_of(system)}: mean AUC {np.mean(areas):.3f}, max {np.max(areas):.3f}"
            axis.plot(grid, mean, color=PALETTE[k], lw=1.6, label=label)
            low, high = np.clip([mean - sd, mean + sd], 0, 1)
            axis.fill_between(grid, low, high, color=PALETTE[k], alpha=0.15, lw=0)
        _add_diagonal(axis)
        axis.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1), ylim=(0, 1.01))
        if axis.get_legend_handles_labels()[0]:
            axis.legend(loc="lower right", fontsize=7.5)
    return figure


def _add_diagonal(axis: Axes) -> None:
    axis.plot([0, 1], [0, 1], color="0.6", lw=0.8, ls="--")
    axis.set_aspect("equal")


def fov_with_map(
    title: str,
    channels: Sequence[str],
    scaled: npt.NDArray[np.float32] | None,
    gradcam: npt.NDArray[np.float32] | None,
) -> Figure:
    """Draw the channels, and below them their intensities weighted with the map (the paper's Figure 6).

    Parameters
    ----------
    scaled : float32 array [C, H, W], optional
        Channels, scaled to 0..1; without them only the map is drawn.
    gradcam : float32 array [H, W], optional
        Map in 0..1.
    """
    if scaled is None:
        with _figure(2.4, 2.2) as (figure, (axis,)):
            if gradcam is not None:
                axis.imshow(gradcam, cmap="inferno", vmin=0, vmax=1)
            axis.set_axis_off()
            figure.suptitle(title, fontsize=8)
        return figure
    rows = 1 if gradcam is None else 2
    with _figure(1.75 * len(channels), 1.6 * rows + 0.35, rows, len(channels)) as (figure, axes):
        for c, channel in enumerate(channels):
            axes[c].imshow(scaled[c], cmap="gray", vmin=0, vmax=1)
            axes[c].set_title(channel, fontsize=8)
            if gradcam is not None:
                axes[len(channels) + c].imshow(scaled[c] * gradcam, cmap="inferno", vmin=0, vmax=1)
        for axis in axes:
            axis.set_axis_off()
        figure.suptitle(title, fontsize=8.5)
    return figure


def confusion_matrices(predictions: Sequence[Prediction], classes: tuple[str, ...]) -> Figure:
    """Draw one confusion matrix per system, with mean counts over the runs."""
    systems = in_table_order({p.system for p in predictions})
    columns = min(4, max(1, len(systems)))
    rows = -(-len(systems) // columns) or 1
    with _figure(2.1 * columns, 2.2 * rows, rows, columns) as (figure, axes):
        for axis in axes:
            axis.set_axis_off()
        for axis, system in zip(axes, systems, strict=False):
            counts = [confusion(p.truth, p.score) for p in predictions if p.system == system]
            folds = len({p.fold for p in predictions if p.system == system})
            table = np.array([[[c.tn, c.fp], [c.fn, c.tp]] for c in counts]).sum(axis=0) * folds / len(counts)
            shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
            axis.set_axis_on()
            axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
            for i in range(2):
                for j in range(2):
                    colour = "white" if shares[i, j] > 0.6 else "black"
                    axis.text(j, i, f"{table[i, j]:.1f}", ha="center", va="center", color=colour)
            axis.set_xticks([0, 1], classes, fontsize=7)
            axis.set_yticks([0, 1], classes, fontsize=7, rotation=90, va="center")
            axis.set_xlabel("predicted", fontsize=7)
            axis.set_ylabel("truth", fontsize=7)
            axis.set_title(_two_lines(title_of(system)), fontsize=8)
    return figure


def calibration(predictions: Sequence[Prediction]) -> Figure:
    """Draw the observed fraction of positive FOVs over the predicted probability, for all runs together."""
    with _figure(4.2, 4.0) as (figure, (axis,)):
        for k, system in enumerate(COMPARED):
            mine = [p for p in predictions if p.system == system]
            if not mine or system == "hybrid":
                continue
            curve = reliability(
                np.concatenate([p.truth for p in mine]), np.concatenate([p.score for p in mine])
            )
            label = f"{title_of(system)}: ECE {curve.ece:.3f}"
            axis.plot(curve.predicted, curve.observed, marker="o", ms=4, color=PALETTE[k], label=label)
        _add_diagonal(axis)
        axis.set(xlabel="predicted probability", ylabel="fraction of positive FOVs", xlim=(0, 1), ylim=(0, 1))
        if axis.get_legend_handles_labels()[0]:
            figure.legend(loc="outside upper center", fontsize=7.5)
    return figure


def learning_curves(units: Sequence[UnitResult], system: str) -> Figure | None:
    """Draw the training and validation loss per epoch, with one panel per network and one line per run."""
    mine = [unit for unit in units if unit.system == system]
    if not mine:
        return None
    networks = sorted({unit.network for unit in mine})
    columns = min(4, len(networks))
    rows = -(-len(networks) // columns)
    with _figure(2.3 * columns, 1.9 * rows + 0.4, rows, columns) as (figure, axes):
        for axis in axes[len(networks) :]:
            axis.set_axis_off()
        for axis, network in zip(axes, networks, strict=False):
            for history in (unit.history for unit in mine if unit.network == network):
                epochs = np.arange(1, len(history["loss"]) + 1)
                for name, colour in (("loss", PALETTE[0]), ("val_loss", PALETTE[1])):
                    axis.plot(epochs, history[name], color=colour, lw=0.7, alpha=0.7)
                phases = history.get("phase", [])
                change = next((k for k, phase in enumerate(phases) if phase > 1), None)
                if change:
                    axis.axvline(change + 0.5, color="0.6", lw=0.7, ls=":")
            axis.set_title(title_of(network or system), fontsize=8)
            axis.tick_params(labelsize=7)
        figure.supxlabel("epoch (dotted line: beginning of phase 2)", fontsize=8)
        figure.supylabel("loss", fontsize=8)
        handles = [
            mpl.lines.Line2D([], [], color=PALETTE[0], label="training"),
            mpl.lines.Line2D([], [], color=PALETTE[1], label="validation"),
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=2, fontsize=8)
    return figure


def all_figures(experiment: Experiment, rows: Sequence[Row]) -> dict[str, Figure]:
    """Draw the figures that need no pixels, by file name, in the order of the report."""
    predictions = experiment.predictions
    figures = {
        "figure_4": figure_4(rows),
        "figure_5": figure_5(predictions),
        "confusion": confusion_matrices(predictions, experiment.config.data.classes),
        "calibration": calibration(predictions),
    }
    for system in ("fully_trained", "frozen", "scratch"):
        curves = learning_curves(experiment.trained, system)
        if curves is not None:
            figures[f"learning_{system}"] = curves
    return figures
