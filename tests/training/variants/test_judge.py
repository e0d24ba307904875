"""Variants are accepted or rejected by their figures, alone and as an ensemble."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from senoscope.engine.executor import NetworkOutput
from senoscope.engine.gate import GateLimits
from senoscope.engine.manifest import Manifest, read_manifest
from senoscope_training.variants.judge import Judgement, judge
from senoscope_training.variants.network_job import MadeVariant, VariantResult
from support.small_networks import FEATURES, GRID, build

COUNT = 40
LABELS = np.arange(COUNT) % 2 == 1
RNG = np.random.default_rng(0)
P = np.where(LABELS, 0.8, 0.2).astype(np.float32) + RNG.normal(0, 0.05, COUNT).astype(np.float32)
MAPS = RNG.uniform(0, 1, (COUNT, *GRID)).astype(np.float32)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return read_manifest(build(tmp_path_factory.mktemp("models") / "small"))[0]


def output(probability: np.ndarray, maps: np.ndarray = MAPS) -> NetworkOutput:
    p = np.asarray(probability, np.float32)
    logit = np.log(p / (1 - p)).astype(np.float32)
    return NetworkOutput(logit, p, maps, np.zeros((COUNT, FEATURES), np.float32))


def judged(manifest: Manifest, labels=LABELS, **lower: NetworkOutput | str) -> Judgement:
    results = {}
    for name, made in lower.items():
        if isinstance(made, str):
            results[name] = VariantResult(output(P), problems={"fp16": made})
        else:
            variant = MadeVariant(Path("unused"), made, corrections=())
            results[name] = VariantResult(output(P), made={"fp16": variant})
    return judge(manifest, results, "fp16", labels, GateLimits())


def test_equal_outputs_are_accepted_and_loss_of_auc_is_zero(manifest: Manifest) -> None:
    found = judged(manifest, mobilenet=output(P), resnet50=output(P))
    assert found.rejected == {}
    parity = found.accepted["mobilenet"]
    assert (parity.max_abs_logit, parity.max_abs_gradcam) == (0, 0)
    assert parity.agreement is not None
    assert parity.agreement.auc_loss_interval == (0, 0)
    assert found.ensemble is not None
    assert found.ensemble.fovs == COUNT


def test_a_network_that_fails_alone_stays_in_fp32(manifest: Manifest) -> None:
    far = P.copy()
    far[0] += 0.1
    found = judged(manifest, mobilenet=output(P), resnet50=output(far))
    assert list(found.accepted) == ["mobilenet"]
    assert "a probability deviates by 0.1 from fp32 (at most 0.04)" in found.rejected["resnet50"].reasons
    assert found.ensemble is not None
    assert found.ensemble.max_abs_probability == 0, "the rejected network counts in fp32"


def test_if_the_ensemble_fails_all_are_rejected(manifest: Manifest) -> None:
    found = judged(manifest, mobilenet=output(P + 0.009), resnet50=output(P + 0.009))
    assert found.accepted == {}
    for one in found.rejected.values():
        (reason,) = one.reasons
        assert reason.startswith("the ensemble with it: 99 % of the probabilities deviate by up to 0.009")
        assert one.agreement is not None
    assert found.ensemble is not None


def test_other_maps_are_rejected(manifest: Manifest) -> None:
    found = judged(manifest, mobilenet=output(P, MAPS[:, ::-1].copy()), resnet50=output(P))
    assert "Grad-CAM maps overlap" in found.rejected["mobilenet"].reasons[0]


def test_a_variant_that_could_not_be_made_is_rejected_without_figures(manifest: Manifest) -> None:
    found = judged(manifest, mobilenet="it cannot be made", resnet50="it cannot be made")
    assert [one.reasons for one in found.rejected.values()] == [("it cannot be made",)] * 2
    assert found.rejected["mobilenet"].agreement is None
    assert found.ensemble is None


def test_the_interval_of_the_loss_of_auc_contains_it_and_is_reproducible(manifest: Manifest) -> None:
    worse = np.where(np.arange(COUNT) % 8 < 2, 0.5, P).astype(np.float32)
    first, second = (
        judged(manifest, mobilenet=output(worse), resnet50=output(P)).rejected["mobilenet"].agreement
        for _ in range(2)
    )
    assert first == second
    assert first is not None
    assert first.auc_loss_interval is not None
    low, high = first.auc_loss_interval
    assert low < first.auc_loss < high
    unlabelled = judged(manifest, None, mobilenet=output(P), resnet50=output(P)).ensemble
    assert unlabelled is not None
    assert (unlabelled.auc_loss, unlabelled.auc_loss_interval) == (None, None)


def test_a_map_that_is_zero_in_fp32_has_a_finite_deviation(manifest: Manifest) -> None:
    fp32, lower = MAPS.copy(), MAPS.copy()
    fp32[3], lower[3] = 0, 0.01
    results = {
        name: VariantResult(output(P, fp32), {"fp16": MadeVariant(Path("unused"), output(P, lower), False)})
        for name in ("mobilenet", "resnet50")
    }
    found = judge(manifest, results, "fp16", LABELS, GateLimits(min_gradcam_iou=0.5))
    assert found.accepted["mobilenet"].max_abs_gradcam == pytest.approx(0.01, rel=0.01)
