"""A figure of a data set: histograms of its channels, and some of its fields of view."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from senoscope_training.dataset.model import DataSet
from senoscope_training.dataset.ranges import measured_pixels, measured_range
from senoscope_training.dataset.writing import is_synthetic

_SHOWN = 8  # fields of view of each class
_SYNTHETIC = "synthetic data, not for science"
_COLOURS = ("#0072b2", "#d55e00")


def draw(data_set: DataSet, pixels: npt.NDArray[Any], path: Path, *, padded: bool = False) -> None:
    """Write the figure of fields of view [N, C, H, W]; the suffix of the path determines png, svg or pdf.

    If small images are ``padded`` with zeros, these are excluded from the histograms.

    Raises
    ------
    OSError
        If the file cannot be written.
    ValueError
        If matplotlib does not support the format.
    """
    # Dollar signs in names of files and classes do not begin a formula.
    with mpl.rc_context({"text.parse_math": False}):
        figure = _figure(data_set, pixels, padded)
        if is_synthetic(data_set):
            figure.text(0.995, 0.002, _SYNTHETIC, ha="right", va="bottom", fontsize=8, color="#d55e00")
        figure.savefig(path, dpi=150)


def _figure(data_set: DataSet, pixels: npt.NDArray[Any], padded: bool) -> Figure:
    labels = data_set.labels
    channels = len(data_set.channels)
    low, high = measured_range(pixels, 3.5, padded=padded)
    figure = Figure(figsize=(2 + _SHOWN * 1.5, 3 + 2 * channels * 1.4), layout="constrained")
    parts = figure.subfigures(2, 1, squeeze=False, height_ratios=(2.2, 2 * channels * 1.1))
    above, below = parts.flat
    for c, axes in enumerate(np.atleast_1d(above.subplots(1, channels))):
        # A few pixels outside of the range would compress all others into one bin.
        edges = np.linspace(low[c], high[c], 65)
        for positive, colour in enumerate(_COLOURS):
            values = measured_pixels(pixels[labels == bool(positive)], padded=padded)[:, c].ravel()
            if not len(values):
                continue
            counts, _ = np.histogram(values, edges)
            axes.stairs(counts / len(values), edges, color=colour, label=data_set.classes[positive])
        axes.set(title=data_set.channels[c], xlabel="raw units", ylabel="fraction of pixels")
        axes.legend(fontsize="small")
    for positive, axes in enumerate(below.subplots(2, 1)):
        members = np.flatnonzero(labels == bool(positive))
        # Evenly distributed over the files, so that they are not all from one plate.
        places = np.linspace(0, len(members) - 1, _SHOWN).astype(int)
        chosen = members[np.unique(places)] if len(members) else []
        axes.set_axis_off()
        sheet = _contact_sheet(pixels[chosen], low, high)
        axes.imshow(sheet, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        gap = _gap(pixels)
        height, width = (edge + gap for edge in pixels.shape[2:])
        for column, index in enumerate(chosen):
            file = data_set.entries[index].file
            file = file if len(file) <= 32 else f"...{file[-29:]}"
            axes.text(column * width, -1, file, ha="left", va="bottom", fontsize=5)
        for c, channel in enumerate(data_set.channels):
            title = f"{data_set.classes[positive]}\n{channel}"
            axes.text(-gap, (c + 0.5) * height, title, ha="right", va="center", fontsize=7)
    return figure


def _gap(images: npt.NDArray[Any]) -> int:
    """Return the number of pixels between images, in proportion to their size."""
    height: int = images.shape[2]
    return max(1, height // 24)


def _contact_sheet(
    images: npt.NDArray[Any], low: npt.NDArray[Any], high: npt.NDArray[Any]
) -> npt.NDArray[np.float32]:
    """Arrange at most `_SHOWN` images [N, C, H, W] side by side, with their channels below each other.

    One matplotlib axes per image would take seconds to draw. The result is [C * (H + gap), _SHOWN * (W +
    gap)], ``low`` and ``high`` [C] mapped to 0 and 1, with NaN in the gaps, which are not drawn.
    """
    _, channels, height, width = images.shape
    gap = _gap(images)
    tiles = np.full((channels, height + gap, _SHOWN, width + gap), np.nan, np.float32)
    span = np.maximum(high - low, np.finfo(np.float32).tiny)[:, None, None]
    tiles[:, :height, : len(images), :width] = ((images - low[:, None, None]) / span).transpose(1, 2, 0, 3)
    return tiles.reshape(channels * (height + gap), -1)
