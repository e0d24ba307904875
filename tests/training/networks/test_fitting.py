"""Training with early stopping, and its resumption after an interruption."""

from __future__ import annotations

import numpy as np
import pytest

from senoscope_training.networks.images import FeatureExamples
from senoscope_training.networks.settings import FrozenPhase, HeadConfig

CONFIG = HeadConfig(dropout=0.5)


class Killed(Exception):
    pass


@pytest.fixture(autouse=True)
def _keras(tensorflow):
    pass


def examples(count: int = 60, size: int = 30, seed: int = 0):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2 == 1
    return FeatureExamples((rng.normal(0, 1, (count, size)) + labels[:, None]).astype(np.float32), labels)


def train(phase, checkpoint=None, on_epoch=None):
    import keras

    from senoscope_training.networks.fitting import fit
    from senoscope_training.networks.head import build_head, compile_for, head_loss

    data, held = examples(), examples(seed=1)
    keras.utils.set_random_seed(3)
    model = build_head(30, CONFIG)
    compile_for(model, phase.learning_rate)
    state = fit(
        model,
        data,
        lambda: head_loss(model.get_weights(), held.features, held.truth, CONFIG),
        phase,
        seed=7,
        checkpoint=checkpoint,
        on_epoch=on_epoch,
    )
    return model.get_weights(), state


def test_a_resumed_training_gives_the_same_results(tmp_path):
    from senoscope_training.networks.fitting import Checkpoint

    phase = FrozenPhase(max_epochs=12, learning_rate=0.01)
    weights, state = train(phase)
    for stop in (1, 10):
        path = tmp_path / f"{stop}.npz"

        def kill(epoch, metrics, stop=stop):
            if epoch == stop:
                raise Killed

        with pytest.raises(Killed):
            train(phase, Checkpoint(path, every_s=0), kill)
        resumed_weights, resumed_state = train(phase, Checkpoint(path, every_s=0))
        assert resumed_state == state
        for resumed, expected in zip(resumed_weights, weights, strict=True):
            np.testing.assert_array_equal(resumed, expected)


def test_training_stops_after_patience_and_restores_the_best_weights(tmp_path):
    losses = iter([1.0, 0.5, 0.6, 0.7, 0.8, 0.9])
    import keras

    from senoscope_training.networks.fitting import fit
    from senoscope_training.networks.head import build_head, compile_for

    keras.utils.set_random_seed(0)
    model = build_head(30, CONFIG)
    compile_for(model, 0.1)
    kept = []
    state = fit(
        model,
        examples(),
        lambda: next(losses),
        FrozenPhase(patience=3, max_epochs=50),
        seed=0,
        on_epoch=lambda epoch, metrics: kept.append(model.get_weights()),
    )
    assert state.epoch == 5
    assert state.best == 0.5
    np.testing.assert_array_equal(model.get_weights()[0], kept[1][0])


def test_a_decrease_below_min_delta_is_not_an_improvement():
    losses = iter([1.0, 0.999, 0.998, 0.997])
    import keras

    from senoscope_training.networks.fitting import fit
    from senoscope_training.networks.head import build_head, compile_for

    keras.utils.set_random_seed(0)
    model = build_head(30, CONFIG)
    compile_for(model, 0.1)
    state = fit(model, examples(), lambda: next(losses), FrozenPhase(patience=3, min_delta=0.005), seed=0)
    assert state.epoch == 4
    assert state.best == 1.0


def test_a_loss_of_nan_is_an_error():
    import keras

    from senoscope_training.networks.fitting import FitError, fit
    from senoscope_training.networks.head import build_head, compile_for

    keras.utils.set_random_seed(0)
    model = build_head(30, CONFIG)
    compile_for(model, 0.1)
    with pytest.raises(FitError, match=r"epoch 1 .*lower learning_rate"):
        fit(model, examples(), lambda: float("nan"), FrozenPhase(), seed=0)


def test_a_damaged_checkpoint_is_ignored(tmp_path):
    """A killed process leaves no damaged file (it is renamed when complete), but the repair of a disk may."""
    from senoscope_training.networks.fitting import Checkpoint

    path = tmp_path / "c.npz"
    path.write_bytes(b"PK\x03\x04 damaged")
    phase = FrozenPhase(max_epochs=2)
    weights, _ = train(phase)
    again, _ = train(phase, Checkpoint(path, every_s=0))
    np.testing.assert_array_equal(weights[0], again[0])
