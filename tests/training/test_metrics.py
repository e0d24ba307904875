"""Metrics compared with scikit-learn, and their errors where they are undefined."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from senoscope_training.metrics import (
    MetricError,
    auc,
    bootstrap,
    brier,
    confusion,
    mean_sd,
    reliability,
    roc,
    summarize,
)


def draw(seed: int, count: int, levels: int | None):
    rng = np.random.default_rng(seed)
    truth = rng.random(count) < 0.4
    truth[:2] = [False, True]
    score = rng.random(count)
    return truth, score if levels is None else np.round(score * levels) / levels


@given(st.integers(0, 2**31), st.integers(2, 200), st.sampled_from([None, 1, 2, 7]))
@settings(max_examples=200, deadline=None)
def test_equal_to_scikit_learn(seed, count, levels):
    from sklearn import metrics as sk  # its import takes seconds, which would slow down the collection

    truth, score = draw(seed, count, levels)
    predicted = score > 0.5
    counts = confusion(truth, score)
    assert [[counts.tn, counts.fp], [counts.fn, counts.tp]] == sk.confusion_matrix(truth, predicted).tolist()
    for ours, theirs in (
        (counts.accuracy, sk.accuracy_score(truth, predicted)),
        (counts.precision, sk.precision_score(truth, predicted, zero_division=0)),
        (counts.recall, sk.recall_score(truth, predicted)),
        (counts.specificity, sk.recall_score(~truth, ~predicted)),
        (counts.f1, sk.f1_score(truth, predicted, zero_division=0)),
        (auc(truth, score), sk.roc_auc_score(truth, score)),
        (brier(truth, score), sk.brier_score_loss(truth, score)),
    ):
        assert abs(ours - theirs) <= 1e-12
    ours, theirs = roc(truth, score), sk.roc_curve(truth, score, drop_intermediate=False)[:2]
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)
    assert abs(np.trapezoid(ours[1], ours[0]) - auc(truth, score)) <= 1e-12


def test_ties_count_half():
    assert auc([0, 1], [0.5, 0.5]) == 0.5
    assert auc([0, 0, 1, 1], [0.1, 0.5, 0.5, 0.9]) == 0.875


@pytest.mark.parametrize(
    ("metric", "truth", "message"),
    [
        (auc, [1, 1], "AUC .* none of the negative class"),
        (auc, [0, 0], "AUC .* none of the positive class"),
        (roc, [0, 0], "ROC curve .* positive"),
        (lambda t, s: confusion(t, s).recall, [0, 0], "recall .* positive"),
        (lambda t, s: confusion(t, s).f1, [0, 0], "F1 .* positive"),
        (lambda t, s: confusion(t, s).specificity, [1, 1], "specificity .* negative"),
    ],
)
def test_an_absent_class_is_an_error(metric, truth, message):
    with pytest.raises(MetricError, match=message):
        metric(truth, [0.2, 0.8])
    assert "auc" not in summarize(truth, [0.2, 0.8])


@pytest.mark.parametrize(
    ("truth", "score", "message"),
    [
        ([0, 1], [0.1], "equal length"),
        ([], [], "equal length"),
        ([0, 1], [0.1, np.nan], "1 scores are not finite"),
        ([0, 2], [0.1, 0.2], "False or True"),
    ],
)
def test_invalid_input_is_refused(truth, score, message):
    with pytest.raises(ValueError, match=message):
        confusion(truth, score)


def test_calibration():
    perfect = reliability([0, 0, 0, 1, 1, 1, 1, 0], [0.25] * 4 + [0.75] * 4)
    assert perfect.ece == 0
    assert perfect.count.tolist() == [4, 4]
    wrong = reliability([0, 0, 1, 1], [1.0, 1.0, 0.0, 0.0])
    assert wrong.ece == 1
    with pytest.raises(ValueError, match=r"0\.\.1"):
        reliability([0, 1], [0.5, 1.5])


def test_bootstrap_interval_contains_the_metric_and_narrows_with_more_fovs():
    def accuracy(t, s):
        return confusion(t, s).accuracy

    rng = np.random.default_rng(0)
    widths = []
    for count in (40, 640):
        truth = np.arange(count) % 2 == 1
        score = np.where(rng.random(count) < 0.8, truth, ~truth).astype(float)
        low, high = bootstrap(truth, score, accuracy, resamples=400)
        assert low < confusion(truth, score).accuracy < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2
    assert bootstrap(truth, score, accuracy, resamples=50) == bootstrap(truth, score, accuracy, resamples=50)


def test_deviation_is_that_of_a_sample():
    assert mean_sd([1.0, 3.0]) == (2.0, pytest.approx(np.sqrt(2)))
    assert mean_sd([5.0]) == (5.0, 0.0)
