"""Uncertainty of an ensemble, from the spread of its networks."""

from __future__ import annotations

from math import fsum, log2

import numpy as np
import numpy.typing as npt

# Without NumPy: for the few networks of an ensemble its calls would take longer than the arithmetic.


def _entropy_bits(p: float) -> float:
    p = min(max(p, 1e-12), 1 - 1e-12)
    return -(p * log2(p) + (1 - p) * log2(1 - p))


def uncertainty(probabilities: npt.NDArray[np.floating], threshold: float) -> tuple[float, float, float]:
    """Return entropy, mutual information and agreement of one field of view.

    Parameters
    ----------
    probabilities : array [K]
        Of the K networks.

    Returns
    -------
    entropy : float
        Of the mean probability, in bits.
    mutual_information : float
        ``entropy`` minus the mean entropy of the networks, in bits, never negative: the part due to
        disagreement (the BALD criterion, Houlsby et al. 2011).
    agreement : float
        Fraction of the networks on the same side of the threshold as the ensemble.
    """
    values = [float(p) for p in probabilities]
    mean = fsum(values) / len(values)
    entropy = _entropy_bits(mean)
    information = max(0.0, entropy - fsum(map(_entropy_bits, values)) / len(values))
    agreeing = sum((p > threshold) == (mean > threshold) for p in values)
    return entropy, information, agreeing / len(values)
