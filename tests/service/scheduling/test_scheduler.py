"""The order of computation, with an engine that the test can pause."""

from __future__ import annotations

import threading
import time
from concurrent.futures import CancelledError
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from senoscope.fov import Fov
from senoscope.results.delivery import Computed
from senoscope.scheduling import scheduler as scheduler_module
from senoscope.scheduling.scheduler import Scheduler
from senoscope_client.errors import Busy, NotReady
from senoscope_client.images.axes import FovSpec
from senoscope_client.models.result import Source


class HeldEngine:
    """Stands in for the ensemble, because only so can a test stop time inside a computation."""

    device = "cpu"
    cools_down = False
    on_cpu = False

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.may_go = threading.Semaphore(0)
        self.batches: list[list[int]] = []
        self.warmings = 0
        self.compute_ms = {1: 1000.0, 2: 1000.0}  # two at a time cost no more than one

    def predict(self, pixels: np.ndarray, bounds: object) -> list[object]:
        self.batches.append([int(p.flat[0]) for p in pixels])
        self.entered.release()
        assert self.may_go.acquire(timeout=30)
        if pixels.flat[0] == 99:
            raise RuntimeError("the engine broke on this one")
        return [SimpleNamespace() for _ in pixels]

    def keep_warm(self) -> None:
        self.warmings += 1

    def step(self, count: int = 1) -> None:
        for _ in range(count):
            assert self.entered.acquire(timeout=30)
            self.may_go.release()


def wait_until(condition, timeout_s: float = 10) -> None:
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


SPEC = FovSpec(("SRS",), 1, 1)
OTHER_SPEC = FovSpec(("TPEF",), 1, 1)


def fov(value: int, spec: FovSpec = SPEC) -> Fov:
    return Fov(np.full((1, 1, 1), value), Source(kind="upload"), spec=spec)


def active_of(
    engine: HeldEngine, maker: str | None = None, spec: FovSpec = SPEC, deadline_ms: float | None = None
) -> Any:
    return SimpleNamespace(ensemble=engine, maker=maker, spec=spec, deadline_ms=deadline_ms)


@pytest.fixture
def rig():
    engine, delivered, device_errors = HeldEngine(), [], []
    done = threading.Semaphore(0)

    def deliver(computed: Computed) -> None:
        delivered.append(computed)
        done.release()

    scheduler = Scheduler(
        active_of(engine, deadline_ms=2000),
        lambda active: None,
        deliver,
        device_errors.append,
        largest_batch=8,
        live_depth=2,
        batch_depth=6,
    )
    scheduler.thread.start()
    yield SimpleNamespace(
        engine=engine, scheduler=scheduler, delivered=delivered, device_errors=device_errors, done=done
    )
    engine.may_go.release(1000)
    scheduler.close()


def test_live_frames_overtake_stacks_between_batches(rig) -> None:
    rig.scheduler.submit_stack([fov(n) for n in (1, 2, 3, 4, 5)])
    assert rig.engine.entered.acquire(timeout=30)
    rig.scheduler.submit_live(fov(50))
    rig.scheduler.submit_live(fov(51))
    rig.engine.may_go.release()
    rig.engine.step(4)
    assert rig.engine.batches == [[1, 2], [50], [51], [3, 4], [5]]


def test_batches_shrink_while_a_stream_is_open_and_grow_when_it_ends(
    rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = HeldEngine()
    engine.compute_ms = {1: 1000.0, 2: 1000.0, 4: 1000.0, 8: 1000.0}
    rig.scheduler.swap(active_of(engine)).result(10)
    rig.scheduler.submit_stack([fov(n) for n in range(16)])
    assert engine.entered.acquire(timeout=30)
    rig.scheduler.submit_live(fov(50))
    assert rig.scheduler.streaming
    engine.may_go.release()
    engine.step(3)
    assert engine.batches == [[*range(8)], [50], [8], [9]], "without a deadline, of single FOVs"
    assert engine.entered.acquire(timeout=30)
    monkeypatch.setattr(scheduler_module, "_SCAN_PAUSE_S", 0)
    assert not rig.scheduler.streaming
    engine.may_go.release()
    engine.step(2)
    assert engine.batches[4:] == [[10], [11, 12, 13, 14], [15]]


def test_the_oldest_live_frame_is_dropped_for_a_newer_one(rig) -> None:
    rig.scheduler.submit_live(fov(0))
    assert rig.engine.entered.acquire(timeout=30)
    for n in (1, 2, 3, 4):
        rig.scheduler.submit_live(fov(n))
    rig.engine.may_go.release()
    rig.engine.step(2)
    assert rig.engine.batches == [[0], [3], [4]]
    assert rig.scheduler.live_dropped["lane_full"] == 2


def test_a_full_batch_lane_is_busy_but_accepts_a_single_large_stack(rig) -> None:
    rig.scheduler.submit_stack([fov(n) for n in range(40)])
    assert rig.engine.entered.acquire(timeout=30)
    with pytest.raises(Busy) as refused:
        rig.scheduler.submit_stack([fov(1)])
    assert refused.value.retry_after_s == pytest.approx(19)
    assert rig.scheduler.depths() == (0, 38)


def test_a_cancelled_stack_is_not_computed_further(rig) -> None:
    first = rig.scheduler.submit_stack([fov(n) for n in (1, 2, 3, 4)])
    second = rig.scheduler.submit_stack([fov(7)])
    assert rig.engine.entered.acquire(timeout=30)
    assert first.done.cancel()
    rig.engine.may_go.release()
    rig.engine.step()
    assert rig.engine.batches == [[1, 2], [7]]
    with pytest.raises(CancelledError):
        first.done.result(0)
    assert not second.done.cancelled()


def test_an_engine_error_fails_only_its_stack_after_a_second_attempt(rig) -> None:
    broken = rig.scheduler.submit_stack([fov(99), fov(1), fov(2)])
    rig.scheduler.submit_live(fov(99))
    rig.engine.step(4)
    with pytest.raises(RuntimeError, match="broke on this one"):
        broken.done.result(10)
    rig.scheduler.submit_live(fov(5))
    rig.engine.step()
    assert rig.done.acquire(timeout=30)
    assert rig.scheduler.counts.live_failed == 1
    assert rig.scheduler.counts.retried == 2
    assert rig.scheduler.thread.problem is None
    assert sorted(rig.engine.batches) == [[5], [99], [99], [99, 1], [99, 1]]


def test_an_engine_that_keeps_failing_is_a_problem_until_it_succeeds(rig) -> None:
    rig.engine.may_go.release(1000)
    for n in range(3):
        assert rig.scheduler.problem is None
        rig.scheduler.submit_live(fov(99))
        wait_until(lambda n=n: rig.scheduler.counts.live_failed == n + 1)
    assert "last 3 batches: the engine broke" in rig.scheduler.problem
    rig.scheduler.submit_live(fov(1))
    assert rig.done.acquire(timeout=30)
    assert rig.scheduler.problem is None
    assert rig.device_errors == []


def test_a_gpu_that_fails_twice_on_the_same_frame_is_reported(rig) -> None:
    rig.engine.device = "cuda"
    rig.engine.may_go.release(1000)
    rig.scheduler.submit_live(fov(99))
    wait_until(lambda: rig.device_errors)
    assert str(rig.device_errors[0]) == "the engine broke on this one"


def test_another_ensemble_takes_over_between_two_batches(rig) -> None:
    begun = rig.scheduler.submit_stack([fov(n) for n in (1, 2, 3)])
    taken = rig.scheduler.submit_stack([fov(4)])
    assert rig.engine.entered.acquire(timeout=30)
    other = HeldEngine()
    swapped = rig.scheduler.swap(active_of(other, "other"))
    with pytest.raises(NotReady):
        rig.scheduler.swap(SimpleNamespace())
    rig.engine.may_go.release()
    assert swapped.result(10).ensemble is rig.engine
    other.step()
    for _ in range(2):
        assert rig.done.acquire(timeout=30)
    assert (rig.engine.batches, other.batches) == ([[1, 2]], [[4]])
    assert [computed.maker for computed in rig.delivered] == [None, "other"]
    assert not taken.done.done()
    with pytest.raises(NotReady, match="another ensemble or precision took over"):
        begun.done.result(10)
    assert rig.scheduler.depths() == (0, 0)


def test_a_stack_in_computation_is_completed_by_the_previous_ensemble(rig) -> None:
    stack = rig.scheduler.submit_stack([fov(1), fov(2)])
    assert rig.engine.entered.acquire(timeout=30)
    swapped = rig.scheduler.swap(active_of(HeldEngine(), "other"))
    rig.engine.may_go.release()
    swapped.result(10)
    assert rig.done.acquire(timeout=30)
    assert not stack.done.done(), "its records are still to be made"


def test_an_ensemble_that_is_withdrawn_never_takes_over(rig) -> None:
    rig.scheduler.submit_live(fov(1))
    assert rig.engine.entered.acquire(timeout=30)
    other = HeldEngine()
    taking_over = rig.scheduler.swap(active_of(other, "other"))
    assert rig.scheduler.cancel_swap(taking_over)
    assert not rig.scheduler.cancel_swap(taking_over)
    rig.engine.may_go.release()
    rig.scheduler.submit_live(fov(2))
    rig.engine.step()
    assert (rig.engine.batches, other.batches) == ([[1], [2]], [])
    assert not taking_over.done()


def test_closing_fails_an_ensemble_that_waits_to_take_over(rig) -> None:
    rig.scheduler.submit_live(fov(1))
    assert rig.engine.entered.acquire(timeout=30)
    taking_over = rig.scheduler.swap(active_of(HeldEngine()))
    threading.Timer(0.1, rig.engine.may_go.release).start()
    rig.scheduler.close()
    with pytest.raises(NotReady):
        taking_over.result(30)


def test_fovs_that_wait_for_an_ensemble_of_another_specification_are_dropped(rig) -> None:
    rig.scheduler.submit_live(fov(0))
    assert rig.engine.entered.acquire(timeout=30)
    stack = rig.scheduler.submit_stack([fov(1)])
    rig.scheduler.submit_live(fov(2))
    swapped = rig.scheduler.swap(active_of(HeldEngine(), None, OTHER_SPEC))
    rig.engine.may_go.release()
    swapped.result(10)
    with pytest.raises(NotReady, match="other channels"):
        stack.done.result(10)
    assert rig.scheduler.live_dropped == {"lane_full": 0, "ensemble_changed": 1, "stopping": 0}
    assert rig.scheduler.depths() == (0, 0)


def test_fovs_arranged_for_another_specification_are_refused(rig) -> None:
    with pytest.raises(NotReady, match="send it again"):
        rig.scheduler.submit_stack([fov(1), fov(2, OTHER_SPEC)])
    assert not rig.scheduler.submit_live(fov(3, OTHER_SPEC))
    assert rig.scheduler.live_dropped["ensemble_changed"] == 1
    with pytest.raises(NotReady):
        rig.scheduler.require_spec(OTHER_SPEC)
    assert rig.scheduler.submit_live(fov(4))
    rig.engine.step()
    assert rig.engine.batches == [[4]]


def test_draining_computes_waiting_fovs_and_accepts_no_more(rig) -> None:
    rig.scheduler.submit_stack([fov(1), fov(2), fov(3)])
    rig.scheduler.submit_live(fov(50))
    threading.Timer(0.2, rig.engine.may_go.release, [10]).start()
    assert rig.scheduler.drain(10)
    assert sorted(rig.engine.batches) == [[1, 2], [3], [50]]
    with pytest.raises(NotReady):
        rig.scheduler.submit_stack([fov(4)])


def test_draining_has_a_time_limit(rig) -> None:
    rig.scheduler.submit_stack([fov(1), fov(2), fov(3)])
    assert not rig.scheduler.drain(0.1)


def test_a_gpu_is_kept_warm_while_frames_come(rig) -> None:
    rig.engine.cools_down = True
    rig.engine.may_go.release(1000)
    rig.scheduler.submit_live(fov(1))
    wait_until(lambda: rig.engine.warmings > 2)


def test_closing_fails_waiting_stacks(rig) -> None:
    rig.scheduler.submit_stack([fov(1)])
    waiting = rig.scheduler.submit_stack([fov(2)])
    assert rig.engine.entered.acquire(timeout=30)
    threading.Timer(0.1, rig.engine.may_go.release).start()
    rig.scheduler.close()
    with pytest.raises(NotReady):
        waiting.done.result(0)
    with pytest.raises(NotReady):
        rig.scheduler.submit_stack([fov(3)])
