"""Whether a network's answers tell anything apart."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_SAME = 1e-3  # of a probability: heads that are nearly off differ in its fifth digit
_MOST = 2 / 3
_OF_EACH_CLASS = 1 / 2
_ENOUGH_MAPS = 8  # of a few, all may speak against the positive class, which leaves a map of zero


def all_same(probabilities: npt.ArrayLike) -> bool:
    """Whether the probabilities [N] are the same: their spread is below 0.001."""
    return bool(np.ptp(np.asarray(probabilities, np.float64)) < _SAME)


def blank_answers(
    logits: npt.ArrayLike, map_peaks: npt.ArrayLike, positive: npt.ArrayLike | None = None
) -> str:
    """Why the answers of one network tell nothing apart, or an empty string.

    Parameters
    ----------
    logits : float array [N]
        Of N fields of view; of one alone nothing can be said.
    map_peaks : float array [N]
        The largest value of each Grad-CAM map.
    positive : bool array [N], optional
        Whether each is of the positive class. A network that gives most fields of view of either class the
        same answer is then found too, not only one that gives it to all.
    """
    scores, peaks = np.asarray(logits, np.float64), np.asarray(map_peaks, np.float64)
    values = 1 / (1 + np.exp(-np.clip(scores, -500, 500)))
    count = len(values)
    if count < 2:
        return ""
    if all_same(values):
        return f"gives all {count} fields of view the same probability ({np.median(values):.4f})"
    if count >= _ENOUGH_MAPS and not (peaks > 0).any():
        return f"has a Grad-CAM map of zero for all {count} fields of view"
    if positive is None:
        return ""
    same, truth = _most_alike(scores), np.asarray(positive, np.bool_)
    shares = [float(same[truth == value].mean()) for value in (False, True) if (truth == value).any()]
    if same.mean() >= _MOST and min(shares) >= _OF_EACH_CLASS and len(shares) == 2:
        return (
            f"gives {int(same.sum())} of {count} fields of view, half of either class or more, the same "
            f"probability ({np.median(values[same]):.4f})"
        )
    return ""


def _most_alike(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """The largest group of logits whose probabilities are all the same, as bool [N].

    Of logits, because a network that is sure gives one class probabilities of nearly 0, though it ranks
    them; the probability changes by a quarter of the logit's change at most.
    """
    ascending = np.sort(logits)
    above = np.searchsorted(ascending, ascending + 4 * _SAME, side="left")
    first = int(np.argmax(above - np.arange(len(ascending))))
    lowest, highest = ascending[[first, above[first] - 1]]
    return np.asarray((logits >= lowest) & (logits <= highest), np.bool_)
