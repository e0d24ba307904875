"""Fast reports of experiments, with few resamples, and one small image for all figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest import mock

from matplotlib.figure import Figure

from senoscope_training import metrics
from senoscope_training.report import write
from senoscope_training.report.figures import Rendered, render

_RESAMPLES = 100


@cache
def _placeholder() -> Rendered:
    return render(Figure(figsize=(1, 1)))


@contextmanager
def quick_reports(*, figures: bool = False) -> Iterator[None]:
    """Write reports quickly.

    Parameters
    ----------
    figures : bool
        Whether figures are drawn nevertheless.
    """
    original = metrics.bootstrap

    def bootstrap(truth: Any, scores: Any, metric: Callable[..., float], *, resamples: int) -> Any:
        return original(truth, scores, metric, resamples=min(resamples, _RESAMPLES))

    def render_quickly(figure: Figure, *, synthetic: bool = False) -> Rendered:
        return render(figure, synthetic=synthetic) if figures else _placeholder()

    with (
        mock.patch.object(metrics, "bootstrap", bootstrap),
        mock.patch.object(write, "render", render_quickly),
    ):
        yield
