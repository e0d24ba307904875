"""Detection of blank networks: those that give the same output for different fields of view."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_MAX_SPREAD = 1e-3  # of equal probabilities; a head with almost no signal varies in the fifth digit
_MIN_SHARE = 2 / 3
_MIN_SHARE_OF_EACH_CLASS = 1 / 2
_MIN_MAPS = 8  # a few maps may all be zero because no field of view is of the positive class


def all_same(probabilities: npt.ArrayLike) -> bool:
    """Return whether the probabilities [N] are equal: their spread is below 0.001."""
    return bool(np.ptp(np.asarray(probabilities, np.float64)) < _MAX_SPREAD)


def blank_reason(
    logits: npt.ArrayLike, map_peaks: npt.ArrayLike, positive: npt.ArrayLike | None = None
) -> str:
    """Return why the outputs of one network do not distinguish fields of view, or an empty string.

    Parameters
    ----------
    logits : float array [N]
        Of N fields of view; a single one is never blank.
    map_peaks : float array [N]
        The largest value of each Grad-CAM map.
    positive : bool array [N], optional
        Whether each field of view is of the positive class. With it, networks are also found that give the
        same output for most fields of view of both classes, not only for all.
    """
    scores, peaks = np.asarray(logits, np.float64), np.asarray(map_peaks, np.float64)
    values = 1 / (1 + np.exp(-np.clip(scores, -500, 500)))
    count = len(values)
    if count < 2:
        return ""
    if all_same(values):
        return f"gives all {count} fields of view the same probability ({np.median(values):.4f})"
    if count >= _MIN_MAPS and not (peaks > 0).any():
        return f"has a Grad-CAM map of zero for all {count} fields of view"
    if positive is None:
        return ""
    same, truth = _largest_equal_group(scores), np.asarray(positive, np.bool_)
    shares = [float(same[truth == value].mean()) for value in (False, True) if (truth == value).any()]
    if same.mean() >= _MIN_SHARE and min(shares) >= _MIN_SHARE_OF_EACH_CLASS and len(shares) == 2:
        return (
            f"gives {int(same.sum())} of {count} fields of view, at least half of each class, the same "
            f"probability ({np.median(values[same]):.4f})"
        )
    return ""


def _largest_equal_group(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Return the largest group of logits with equal probabilities, as bool [N].

    Logits are compared because a confident network gives probabilities of nearly 0 to a whole class although
    their logits differ. A probability changes by at most a quarter of the change of its logit.
    """
    ascending = np.sort(logits)
    above = np.searchsorted(ascending, ascending + 4 * _MAX_SPREAD, side="left")
    first = int(np.argmax(above - np.arange(len(ascending))))
    lowest, highest = ascending[[first, above[first] - 1]]
    return np.asarray((logits >= lowest) & (logits <= highest), np.bool_)
