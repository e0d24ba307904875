"""Comparison of variants with fp32, and which of them an ensemble gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from senoscope.engine.executor import NetworkOutput
from senoscope.engine.gate import GateLimits, GateOutputs, area_under_roc, compare_with_fp32
from senoscope.engine.manifest import Manifest, Parity
from senoscope.engine.manifest_variants import Agreement, RejectedVariant
from senoscope.engine.precision import FilePrecision
from senoscope_training.variants.network_job import VariantResult

Float32 = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
_RESAMPLES = 1000
_LEVEL = 0.95


@dataclass(frozen=True)
class Judgement:
    """The figures of one precision.

    Attributes
    ----------
    accepted : dict of network name to Parity
    rejected : dict of network name to RejectedVariant
    ensemble : Agreement, optional
        Of the ensemble with the accepted networks in this precision and the others in fp32; None if none
        passes alone.
    """

    precision: FilePrecision
    accepted: dict[str, Parity]
    rejected: dict[str, RejectedVariant]
    ensemble: Agreement | None


def judge(
    manifest: Manifest,
    results: Mapping[str, VariantResult],
    precision: FilePrecision,
    labels: Bools | None,
    limits: GateLimits,
) -> Judgement:
    """Compare a precision with fp32: a network that fails is rejected, or all if the ensemble fails."""
    fp32 = {name: result.fp32 for name, result in results.items()}
    made = {
        name: result.made[precision].outputs for name, result in results.items() if precision in result.made
    }
    found, _ = _compare(manifest, fp32, made, labels, limits)
    own = limits.for_network(len(results))
    rejected, accepted = {}, {}
    for name, result in results.items():
        if name not in made:
            reasons: tuple[str, ...] = (result.problems[precision],)
            rejected[name] = RejectedVariant(precision=precision, reasons=reasons)
        elif reasons := own.reasons(found[name]):
            rejected[name] = RejectedVariant(precision=precision, agreement=found[name], reasons=reasons)
        else:
            accepted[name] = _parity(fp32[name], made[name], found[name])
    if not accepted:
        return Judgement(precision, {}, rejected, None)
    _, ensemble = _compare(manifest, fp32, {name: made[name] for name in accepted}, labels, limits)
    if reasons := limits.reasons(ensemble):
        whole = tuple(f"the ensemble with it: {reason}" for reason in reasons)
        for name in accepted:
            rejected[name] = RejectedVariant(precision=precision, agreement=found[name], reasons=whole)
        accepted = {}
    return Judgement(precision, accepted, rejected, ensemble)


def _compare(
    manifest: Manifest,
    fp32: Mapping[str, NetworkOutput],
    lower: Mapping[str, NetworkOutput],
    labels: Bools | None,
    limits: GateLimits,
) -> tuple[dict[str, Agreement], Agreement]:
    """Return the agreement of each network, and of the ensemble with some networks in lower precision."""
    outputs = {**fp32, **lower}
    reference, found = (
        GateOutputs(
            {name: o.probability for name, o in some.items()}, {name: o.gradcam for name, o in some.items()}
        )
        for some in (fp32, outputs)
    )
    figures = compare_with_fp32(
        reference,
        found,
        shape=(manifest.input.height, manifest.input.width),
        threshold=manifest.ensemble.threshold,
        limits=limits,
        labels=None if labels is None else labels.tolist(),
    )
    networks = {
        name: _with_interval(
            figures.networks[name], labels, reference.probabilities[name], output.probability
        )
        for name, output in lower.items()
    }
    return networks, _with_interval(figures.ensemble, labels, reference.mean, found.mean)


def _with_interval(agreement: Agreement, labels: Bools | None, fp32: Float32, found: Float32) -> Agreement:
    """Add the interval of the loss of AUC by paired bootstrap: FOVs are resampled within each class."""
    if agreement.auc_loss is None or labels is None:
        return agreement
    rng = np.random.default_rng(0)
    groups = [np.flatnonzero(labels == value) for value in (False, True)]
    losses = []
    for _ in range(_RESAMPLES):
        drawn = np.concatenate([rng.choice(group, len(group)) for group in groups])
        losses.append(
            area_under_roc(labels[drawn], fp32[drawn]) - area_under_roc(labels[drawn], found[drawn])
        )
    low, high = np.quantile(losses, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return agreement.model_copy(update={"auc_loss_interval": (float(low), float(high))})


def _parity(fp32: NetworkOutput, found: NetworkOutput, agreement: Agreement) -> Parity:
    """Return the largest deviations; of a map that is zero in fp32, relative to the largest of the others."""
    peaks = fp32.gradcam.max(axis=(1, 2)).astype(np.float64)
    scale = np.where(peaks > 0, peaks, max(float(peaks.max()), float(np.finfo(np.float32).tiny)))
    apart = np.abs(found.gradcam.astype(np.float64) - fp32.gradcam).max(axis=(1, 2))
    return Parity(
        max_abs_logit=float(np.abs(found.logit.astype(np.float64) - fp32.logit).max()),
        max_abs_gradcam=float((apart / scale).max()),
        agreement=agreement,
    )
