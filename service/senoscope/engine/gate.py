"""The gate of lower precisions: how far they deviate from fp32, and how far they may.

A head of global max pooling and four ReLU units amplifies rounding. Whether a precision may be used is
therefore measured, for each network and for the ensemble, on reference fields of view.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from senoscope.engine.executor import AgreementFacts, GateFacts
from senoscope.engine.gradcam import ensemble_map, network_map
from senoscope.engine.manifest_variants import Agreement

Float32 = npt.NDArray[np.float32]
_TOP_DECILE: Final = 0.9


@dataclass(frozen=True)
class GateLimits:
    """How far an ensemble may deviate from fp32.

    A network's probability and the margin at its threshold may deviate by as many times more as the ensemble
    has networks: its share in the mean is then within the limit.

    Attributes
    ----------
    max_abs_probability, p99_abs_probability : float
        Largest absolute deviation of the probability, and its 99th percentile.
    flip_margin : float
        A label may differ where the probability in fp32 is as near to the threshold.
    min_gradcam_iou : float
        Smallest intersection over union of the brightest tenth of the maps.
    max_auc_loss : float
        Largest loss of area under the ROC curve.
    """

    max_abs_probability: float = 0.02
    p99_abs_probability: float = 0.005
    flip_margin: float = 0.02
    min_gradcam_iou: float = 0.9
    max_auc_loss: float = 0.01

    def for_network(self, networks: int) -> GateLimits:
        """Return the limits of one network in an ensemble of so many."""
        return GateLimits(
            min(1.0, self.max_abs_probability * networks),
            min(1.0, self.p99_abs_probability * networks),
            min(1.0, self.flip_margin * networks),
            self.min_gradcam_iou,
            self.max_auc_loss,
        )

    def reasons(self, found: Agreement) -> tuple[str, ...]:
        """Return why an agreement is not sufficient; empty if it is."""
        reasons = []
        if found.max_abs_probability > self.max_abs_probability:
            reasons.append(
                f"a probability deviates by {found.max_abs_probability:.3g} from fp32 "
                f"(at most {self.max_abs_probability:.3g})"
            )
        if found.p99_abs_probability > self.p99_abs_probability:
            reasons.append(
                f"99 % of the probabilities deviate by up to {found.p99_abs_probability:.3g} from fp32 "
                f"(at most {self.p99_abs_probability:.3g})"
            )
        if found.label_flips:
            reasons.append(f"{found.label_flips} of {found.fovs} labels differ from fp32")
        if found.gradcam_iou < self.min_gradcam_iou:
            reasons.append(
                f"Grad-CAM maps overlap by {found.gradcam_iou:.3g} with those of fp32 "
                f"(at least {self.min_gradcam_iou:.3g})"
            )
        if found.auc_loss is not None and found.auc_loss > self.max_auc_loss:
            reasons.append(f"the AUC is lower by {found.auc_loss:.3g} (at most {self.max_auc_loss:.3g})")
        return tuple(reasons)


@dataclass(frozen=True)
class GateOutputs:
    """Outputs of an ensemble for N fields of view that the gate compares.

    Attributes
    ----------
    probabilities : mapping of network name to float32 array [N]
    gradcams : mapping of network name to float32 array [N, h, w]
        On each network's own grid, not normalised.
    """

    probabilities: Mapping[str, Float32]
    gradcams: Mapping[str, Float32]

    @property
    def mean(self) -> Float32:
        """The ensemble's probabilities, float32 [N]."""
        return np.asarray(np.mean(list(self.probabilities.values()), axis=0, dtype=np.float64), np.float32)

    def network_maps(self, name: str, height: int, width: int) -> list[Float32]:
        """Return the maps of a network, N of [H, W]."""
        return [network_map(grid, height, width) for grid in self.gradcams[name]]

    def ensemble_maps(self, height: int, width: int) -> list[Float32]:
        """Return the maps of the ensemble, N of [H, W]."""
        names = list(self.probabilities)
        return [
            ensemble_map(
                [self.gradcams[name][n] for name in names],
                np.array([self.probabilities[name][n] for name in names]),
                height,
                width,
            )
            for n in range(len(self.mean))
        ]


@dataclass(frozen=True)
class GateFigures:
    """The agreement of each network and of the ensemble with fp32."""

    networks: dict[str, Agreement]
    ensemble: Agreement

    def facts(self) -> GateFacts:
        """Return them as plain values."""
        return {
            "networks": {name: _facts(found) for name, found in self.networks.items()},
            "ensemble": _facts(self.ensemble),
        }


def _facts(found: Agreement) -> AgreementFacts:
    return {
        "fovs": found.fovs,
        "max_abs_probability": found.max_abs_probability,
        "p99_abs_probability": found.p99_abs_probability,
        "label_flips": found.label_flips,
        "gradcam_iou": found.gradcam_iou,
        "auc_loss": found.auc_loss,
    }


def compare_with_fp32(
    reference: GateOutputs,
    found: GateOutputs,
    *,
    shape: tuple[int, int],
    threshold: float,
    limits: GateLimits,
    labels: Sequence[bool] | None = None,
) -> GateFigures:
    """Compare outputs with those of fp32 for the same fields of view.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of a field of view.
    threshold : float
        Of the ensemble's labels, applied to networks too.
    limits : GateLimits
        Of the ensemble; only its margin is used here.
    labels : sequence of bool [N], optional
        Whether each field of view is of the positive class.
    """
    own = limits.for_network(len(reference.probabilities))

    def agreement(
        p: Float32, q: Float32, p_maps: list[Float32], q_maps: list[Float32], margin: float
    ) -> Agreement:
        apart = np.abs(q.astype(np.float64) - p)
        flips = ((p > threshold) != (q > threshold)) & (np.abs(p - threshold) > margin)
        overlaps = [top_decile_overlap(a, b) for a, b in zip(p_maps, q_maps, strict=True)]
        loss = None
        if labels is not None and 0 < sum(labels) < len(labels):
            loss = area_under_roc(labels, p) - area_under_roc(labels, q)
        return Agreement(
            fovs=len(p),
            max_abs_probability=float(apart.max()),
            p99_abs_probability=float(np.percentile(apart, 99)),
            label_flips=int(flips.sum()),
            gradcam_iou=float(np.mean(overlaps)),
            auc_loss=loss,
        )

    networks = {
        name: agreement(
            probability,
            found.probabilities[name],
            reference.network_maps(name, *shape),
            found.network_maps(name, *shape),
            own.flip_margin,
        )
        for name, probability in reference.probabilities.items()
    }
    ensemble = agreement(
        reference.mean,
        found.mean,
        reference.ensemble_maps(*shape),
        found.ensemble_maps(*shape),
        limits.flip_margin,
    )
    return GateFigures(networks, ensemble)


def top_decile_overlap(a: Float32, b: Float32) -> float:
    """Return the intersection over union of the brightest tenths of two maps; 1 if both have none."""
    tops = [map_ > np.quantile(map_, _TOP_DECILE) for map_ in (a, b)]
    union = int((tops[0] | tops[1]).sum())
    return float((tops[0] & tops[1]).sum() / union) if union else 1.0


def area_under_roc(labels: Sequence[bool] | npt.NDArray[np.bool_], scores: npt.ArrayLike) -> float:
    """Return the area under the ROC curve; ties count half.

    Parameters
    ----------
    labels : bool array [N]
        Both values must occur.
    scores : array [N]
    """
    truth, values = np.asarray(labels, np.bool_), np.asarray(scores, np.float64)
    positive, negative = values[truth][:, None], values[~truth][None]
    return float((positive > negative).mean() + 0.5 * (positive == negative).mean())
