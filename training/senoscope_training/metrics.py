"""Metrics of binary classification, also for tied scores and absent classes.

Those that the bootstrap evaluates 2,000 times are computed here, 20 to 100 times as fast as by scikit-learn.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
_THRESHOLD = 0.5
_BINS = 10  # of the calibration curve
_LEVEL = 0.95  # of intervals
RESAMPLES = 2000


class MetricError(ValueError):
    """A metric that is undefined for the data; the message contains the metric and what is missing."""


@dataclass(frozen=True)
class Confusion:
    """Counts of true and false, positive and negative predictions."""

    tp: int
    fp: int
    tn: int
    fn: int

    @property
    def accuracy(self) -> float:
        """Fraction of correct predictions."""
        return (self.tp + self.tn) / (self.tp + self.fp + self.tn + self.fn)

    @property
    def precision(self) -> float:
        """Fraction of positive predictions that are correct; 0 if there is no positive prediction."""
        return self.tp / (self.tp + self.fp) if self.tp + self.fp else 0.0

    @property
    def recall(self) -> float:
        """Fraction of positive FOVs that are predicted positive (sensitivity)."""
        return _share(self.tp, self.tp + self.fn, "recall", "positive")

    @property
    def specificity(self) -> float:
        """Fraction of negative FOVs that are predicted negative."""
        return _share(self.tn, self.tn + self.fp, "specificity", "negative")

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 if both are 0."""
        if self.tp + self.fn == 0:
            _share(0, 0, "F1", "positive")
        return 2 * self.tp / (2 * self.tp + self.fp + self.fn)


def _share(part: int, whole: int, metric: str, missing: str) -> float:
    if whole == 0:
        raise MetricError(f"{metric} needs FOVs of the {missing} class, but there are none")
    return part / whole


def confusion(truth: npt.ArrayLike, score: npt.ArrayLike) -> Confusion:
    """Count predictions; a FOV is predicted positive if its score is greater than 0.5.

    Parameters
    ----------
    truth : bool array [N]
    score : float array [N]

    Raises
    ------
    ValueError
        If the shapes differ, the arrays are empty, or a score is not finite.
    """
    t, s = _checked(truth, score)
    predicted = s > _THRESHOLD
    return Confusion(
        tp=int(np.count_nonzero(predicted & t)),
        fp=int(np.count_nonzero(predicted & ~t)),
        tn=int(np.count_nonzero(~predicted & ~t)),
        fn=int(np.count_nonzero(~predicted & t)),
    )


def auc(truth: npt.ArrayLike, score: npt.ArrayLike) -> float:
    """Compute the area under the ROC curve from midranks (Mann and Whitney 1947).

    It is the fraction of pairs in which the positive FOV has the higher score; ties count one half.

    Raises
    ------
    MetricError
        If one of the classes is absent.
    """
    t, s = _checked(truth, score)
    positives, negatives = _both(t, "AUC")
    _, place, count = np.unique(s, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    midrank = last - (count - 1) / 2
    rank_sum = midrank[place][t].sum()
    return float((rank_sum - positives * (positives + 1) / 2) / (positives * negatives))


def roc(truth: npt.ArrayLike, score: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Compute the ROC curve, from (0, 0) to (1, 1), with one point per distinct score.

    Returns
    -------
    false_positive_rate, true_positive_rate : float64 arrays [K]

    Raises
    ------
    MetricError
        If one of the classes is absent.
    """
    from sklearn.metrics import roc_curve

    t, s = _checked(truth, score)
    _both(t, "the ROC curve")
    fpr, tpr, _ = roc_curve(t, s, drop_intermediate=False)
    return fpr, tpr


def brier(truth: npt.ArrayLike, probability: npt.ArrayLike) -> float:
    """Compute the mean squared error of probabilities (Brier 1950)."""
    t, p = _checked(truth, probability)
    return float(np.square(p - t).mean())


@dataclass(frozen=True)
class Reliability:
    """A calibration curve over equal bins of probability, without empty bins."""

    predicted: Floats
    observed: Floats
    """[K], mean probability and fraction of positive FOVs in each bin."""
    count: npt.NDArray[np.int64]

    @property
    def ece(self) -> float:
        """Expected calibration error: mean distance between the two, weighted with the bins' counts."""
        return float((np.abs(self.predicted - self.observed) * self.count).sum() / self.count.sum())


def reliability(truth: npt.ArrayLike, probability: npt.ArrayLike) -> Reliability:
    """Compute the calibration curve of the positive class's probability (Guo et al. 2017, binary form)."""
    t, p = _checked(truth, probability)
    if p.min() < 0 or p.max() > 1:
        raise ValueError(f"probabilities must be in 0..1; these range from {p.min():g} to {p.max():g}")
    place = np.minimum((p * _BINS).astype(np.int64), _BINS - 1)
    count = np.bincount(place, minlength=_BINS)
    occupied = count > 0
    predicted = np.bincount(place, p, _BINS)[occupied] / count[occupied]
    observed = np.bincount(place, t, _BINS)[occupied] / count[occupied]
    return Reliability(predicted, observed, count[occupied])


def bootstrap(
    truth: npt.ArrayLike,
    scores: npt.ArrayLike,
    metric: Callable[[Bools, Floats], float],
    *,
    resamples: int = RESAMPLES,
) -> tuple[float, float]:
    """Compute the percentile bootstrap interval of a metric's mean over runs, whose scores are [N] or [R, N].

    FOVs are resampled within each class, so that every resample contains both classes. All runs are
    evaluated on the same resampled FOVs.
    """
    t = np.asarray(truth, np.bool_)
    runs = np.atleast_2d(np.asarray(scores, np.float64))
    rng = np.random.default_rng(0)
    members = [np.flatnonzero(t == value) for value in (False, True) if (t == value).any()]
    found = np.empty(resamples)
    for k in range(resamples):
        drawn = np.concatenate([group[rng.integers(len(group), size=len(group))] for group in members])
        found[k] = np.mean([metric(t[drawn], run[drawn]) for run in runs])
    low, high = np.quantile(found, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(low), float(high)


def exact_interval(successes: int, count: int, level: float = _LEVEL) -> tuple[float, float]:
    """Compute the interval of Clopper and Pearson (1934) of a fraction, exact for any number of FOVs.

    Raises
    ------
    MetricError
        If ``count`` is 0.
    """
    from scipy.stats import binomtest

    if count < 1:
        raise MetricError("an interval needs at least one FOV")
    low, high = binomtest(successes, count).proportion_ci(level, method="exact")
    return float(low), float(high)


@dataclass(frozen=True)
class Interval:
    """A 95 % interval."""

    low: float
    high: float
    exact: bool = False
    """Whether a bound is that of Clopper and Pearson, because it is wider than that of the bootstrap."""


def interval(
    truth: npt.ArrayLike, scores: npt.ArrayLike, name: str, *, resamples: int = RESAMPLES
) -> Interval:
    """Compute the interval of a metric's mean over runs: the bootstrap's, or the exact one if it is wider.

    With no wrong predictions every resample gives the same value, and with few wrong predictions nearly the
    same: the bootstrap interval is then too narrow, whether there are 14 FOVs or 14,000. The exact interval
    is that of a fraction of the FOVs, independent of the number of runs: of all FOVs for the accuracy, of
    the positive ones for the recall, of those predicted positive for the precision. F1 follows from the
    fraction of true positives among the FOVs that are positive or predicted positive. The AUC is taken as a
    fraction of disjoint pairs of a positive and a negative FOV, of which there are as many as FOVs of the
    rarer class. Each bound is the mean over the runs, so that one more wrong prediction in a run raises
    neither bound.

    Parameters
    ----------
    scores : float array [N] or [R, N]
        Scores of N FOVs in one run or in R runs.
    name : str
        A key of `METRICS`.

    Raises
    ------
    MetricError
        If the metric is undefined for the data.
    """
    low, high = bootstrap(truth, scores, METRICS[name], resamples=resamples)
    if name not in _COUNTED:
        return Interval(low, high)
    t = np.asarray(truth, np.bool_)
    counts = [_count(name, t, run) for run in np.atleast_2d(np.asarray(scores, np.float64))]
    bounds = np.array([exact_interval(*count) if count[1] else (0.0, 1.0) for count in counts])
    if name == "f1":
        bounds = 2 * bounds / (1 + bounds)
    exact_low, exact_high = (float(bound) for bound in bounds.mean(axis=0))
    return Interval(min(low, exact_low), max(high, exact_high), exact_low < low or exact_high > high)


def _count(name: str, truth: Bools, score: Floats) -> tuple[int, int]:
    """Return the number of successes, and the number of FOVs or pairs of which they are a fraction."""
    if name == "auc":
        pairs = min(_both(truth, "AUC"))
        return round(auc(truth, score) * pairs), pairs
    c = confusion(truth, score)
    if name == "accuracy":
        return c.tp + c.tn, len(truth)
    counted = {"precision": c.tp + c.fp, "recall": c.tp + c.fn, "f1": c.tp + c.fp + c.fn}
    return c.tp, counted[name]


def mean_sd(values: npt.ArrayLike) -> tuple[float, float]:
    """Compute mean and sample standard deviation (n - 1) over runs; the deviation of a single run is 0."""
    v = np.asarray(values, np.float64)
    return float(v.mean()), float(v.std(ddof=1)) if len(v) > 1 else 0.0


def summarize(truth: npt.ArrayLike, score: npt.ArrayLike) -> dict[str, float]:
    """Compute every metric that is defined for the data, by name."""
    found = {"fovs": float(np.size(truth))}
    for name, compute in METRICS.items():
        with suppress(MetricError):
            found[name] = compute(*_checked(truth, score))
    return found


def _both(truth: Bools, metric: str) -> tuple[int, int]:
    positives = int(truth.sum())
    negatives = len(truth) - positives
    if not positives or not negatives:
        absent = "negative" if positives else "positive"
        raise MetricError(f"{metric} needs FOVs of both classes, but there are none of the {absent} class")
    return positives, negatives


def _checked(truth: npt.ArrayLike, score: npt.ArrayLike) -> tuple[Bools, Floats]:
    t: npt.NDArray[Any] = np.asarray(truth)
    s: Floats = np.asarray(score, np.float64)
    if t.ndim != 1 or t.shape != s.shape or not len(t):
        raise ValueError(f"truth and score must be 1-D and of equal length, not {t.shape} and {s.shape}")
    if t.dtype != np.bool_ and not np.isin(t, (0, 1)).all():
        raise ValueError("truth must be False or True for each FOV")
    if not np.isfinite(s).all():
        raise ValueError(f"{int((~np.isfinite(s)).sum())} scores are not finite")
    return t.astype(np.bool_, copy=False), s


METRICS: dict[str, Callable[[Bools, Floats], float]] = {
    "accuracy": lambda t, s: confusion(t, s).accuracy,
    "precision": lambda t, s: confusion(t, s).precision,
    "recall": lambda t, s: confusion(t, s).recall,
    "specificity": lambda t, s: confusion(t, s).specificity,
    "f1": lambda t, s: confusion(t, s).f1,
    "auc": auc,
    "brier": brier,
    "ece": lambda t, s: reliability(t, s).ece,
}
_COUNTED = ("accuracy", "precision", "recall", "f1", "auc")
