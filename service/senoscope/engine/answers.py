"""Whether a network's answers tell anything apart."""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt

_SAME = 1e-5  # of a logit: a head whose units are all off gives its bias, to the last digits
_MOST = 2 / 3
_OF_EACH_CLASS = 1 / 2
_ENOUGH_MAPS = 8  # of a few, all may speak against the positive class, which leaves a map of zero


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
    values, peaks = np.asarray(logits, np.float64), np.asarray(map_peaks, np.float64)
    count = len(values)
    if count < 2:
        return ""
    if np.ptp(values) <= _SAME:
        return f"gives all {count} fields of view the same probability ({_probability(values[0]):.4f})"
    if count >= _ENOUGH_MAPS and not (peaks > 0).any():
        return f"has a Grad-CAM map of zero for all {count} fields of view"
    if positive is None:
        return ""
    rounded = np.round(values / _SAME).astype(np.int64)
    answer, _ = Counter(rounded.tolist()).most_common(1)[0]
    same, truth = rounded == answer, np.asarray(positive, np.bool_)
    shares = [float(same[truth == value].mean()) for value in (False, True) if (truth == value).any()]
    if same.mean() >= _MOST and min(shares) >= _OF_EACH_CLASS and len(shares) == 2:
        return (
            f"gives {int(same.sum())} of {count} fields of view, half of either class or more, the same "
            f"probability ({_probability(float(values[same][0])):.4f})"
        )
    return ""


def _probability(logit: float) -> float:
    return float(1 / (1 + np.exp(-logit)))
