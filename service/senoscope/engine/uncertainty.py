"""How sure an ensemble is, from the spread of its networks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def _mean_entropy_bits(p: npt.ArrayLike) -> float:
    p = np.clip(np.asarray(p, np.float64), 1e-12, 1 - 1e-12)
    return float(np.mean(-(p * np.log2(p) + (1 - p) * np.log2(1 - p))))


def uncertainty(probabilities: npt.NDArray[np.floating], threshold: float) -> tuple[float, float, float]:
    """Entropy, mutual information and agreement of one field of view.

    Parameters
    ----------
    probabilities : array [K]
        Of the K networks.

    Returns
    -------
    entropy : float
        Of the mean probability, in bits.
    mutual_information : float
        ``entropy`` less the mean entropy of the networks, in bits, never negative: what disagreement
        adds (the BALD criterion, Houlsby et al. 2011).
    agreement : float
        Fraction of the networks on the ensemble's side of the threshold.
    """
    mean = np.mean(probabilities, dtype=np.float64)
    entropy = _mean_entropy_bits(mean)
    information = max(0.0, entropy - _mean_entropy_bits(probabilities))
    side = (probabilities > threshold) == (mean > threshold)
    return entropy, information, float(side.mean())
