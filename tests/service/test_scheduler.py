"""Who is computed next, with an engine that the test holds back at will."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError
from types import SimpleNamespace

import numpy as np
import pytest

from senoscope.fov import Fov
from senoscope.scheduler import Computed, Scheduler
from senoscope_client.errors import Busy, NotReady
from senoscope_client.result import Source


class HeldEngine:
    """Stands in for the ensemble, because only so can a test stop time inside a computation."""

    model_range = None
    warm_compute_ms = 1000.0

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.may_go = threading.Semaphore(0)
        self.batches: list[list[int]] = []

    def predict(self, pixels: np.ndarray, bounds: object) -> list[object]:
        self.batches.append([int(p.flat[0]) for p in pixels])
        self.entered.release()
        assert self.may_go.acquire(timeout=10)
        if pixels.flat[0] == 99:
            raise RuntimeError("the engine broke on this one")
        return [SimpleNamespace() for _ in pixels]

    def step(self, count: int = 1) -> None:
        for _ in range(count):
            assert self.entered.acquire(timeout=10)
            self.may_go.release()


def fov(value: int) -> Fov:
    return Fov(np.full((1, 1, 1), value), Source(kind="upload"))


@pytest.fixture
def rig():
    engine, delivered = HeldEngine(), []
    done = threading.Semaphore(0)

    def deliver(computed: Computed) -> None:
        delivered.append(computed)
        done.release()

    scheduler = Scheduler(engine, deliver, live_depth=2, batch_depth=6, batch_size=2)
    scheduler.start()
    yield SimpleNamespace(engine=engine, scheduler=scheduler, delivered=delivered, done=done)
    engine.may_go.release(1000)
    scheduler.close()


def test_live_frames_overtake_stacks_between_batches(rig) -> None:
    rig.scheduler.submit_stack([fov(n) for n in (1, 2, 3, 4, 5)])
    assert rig.engine.entered.acquire(timeout=10)
    rig.scheduler.submit_live(fov(50))
    rig.scheduler.submit_live(fov(51))
    rig.engine.may_go.release()
    rig.engine.step(4)
    assert rig.engine.batches == [[1, 2], [50], [51], [3, 4], [5]]


def test_the_oldest_live_frame_is_dropped_for_a_newer_one(rig) -> None:
    rig.scheduler.submit_live(fov(0))
    assert rig.engine.entered.acquire(timeout=10)
    for n in (1, 2, 3, 4):
        rig.scheduler.submit_live(fov(n))
    rig.engine.may_go.release()
    rig.engine.step(2)
    assert rig.engine.batches == [[0], [3], [4]]
    assert rig.scheduler.counts.live_dropped == 2


def test_a_full_batch_lane_is_busy_but_a_large_stack_alone_is_let_in(rig) -> None:
    rig.scheduler.submit_stack([fov(n) for n in range(40)])
    assert rig.engine.entered.acquire(timeout=10)
    with pytest.raises(Busy) as refused:
        rig.scheduler.submit_stack([fov(1)])
    assert refused.value.retry_after_s == pytest.approx(38)
    assert rig.scheduler.depths() == (0, 38)


def test_a_cancelled_stack_is_not_computed_further(rig) -> None:
    first = rig.scheduler.submit_stack([fov(n) for n in (1, 2, 3, 4)])
    second = rig.scheduler.submit_stack([fov(7)])
    assert rig.engine.entered.acquire(timeout=10)
    assert first.done.cancel()
    rig.engine.may_go.release()
    rig.engine.step()
    assert rig.engine.batches == [[1, 2], [7]]
    with pytest.raises(CancelledError):
        first.done.result(0)
    assert not second.done.cancelled()


def test_an_engine_error_fails_its_own_stack_only(rig) -> None:
    broken = rig.scheduler.submit_stack([fov(99), fov(1), fov(2)])
    rig.scheduler.submit_live(fov(99))
    rig.engine.step(2)
    with pytest.raises(RuntimeError, match="broke on this one"):
        broken.done.result(10)
    rig.scheduler.submit_live(fov(5))
    rig.engine.step()
    assert rig.done.acquire(timeout=10)
    assert rig.scheduler.counts.live_failed == 1
    assert rig.scheduler.thread.problem is None
    assert sorted(rig.engine.batches) == [[5], [99], [99, 1]]


def test_closing_tells_those_who_wait(rig) -> None:
    rig.scheduler.submit_stack([fov(1)])
    waiting = rig.scheduler.submit_stack([fov(2)])
    assert rig.engine.entered.acquire(timeout=10)
    threading.Timer(0.1, rig.engine.may_go.release).start()
    rig.scheduler.close()
    with pytest.raises(NotReady):
        waiting.done.result(0)
    with pytest.raises(NotReady):
        rig.scheduler.submit_stack([fov(3)])
