"""Delivery of results by a service without a server."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic_core import PydanticSerializationError

import senoscope.results.delivery
from senoscope.fov import Fov
from senoscope.results.delivery import Computed, Delivery, DeliveryTimes, ResultSink, SinkStage
from senoscope.results.record import Record
from senoscope.runlog.keeper import LogKeeper
from senoscope.runlog.store import RunLog
from senoscope.service import Service
from senoscope.settings import Settings
from senoscope.watched_thread import WatchedThread
from senoscope_client.models.result import Source
from support import miniature as mini
from support.run_logs import wait_for


@contextmanager
def running(miniature: Path, tmp_path: Path, *sinks: ResultSink) -> Iterator[Service]:
    """Run a service with further sinks, and yield it when it is ready."""
    url = f"sqlite:///{tmp_path / 'log.sqlite3'}"
    settings = Settings(model=str(miniature), device="cpu", stream="", results="", database_url=url)
    service = Service(settings)
    for sink in sinks:
        service.add_sink(sink)
    service.start()
    wait_for(lambda: service.not_ready_reason() is None)
    yield service
    service.close()


@pytest.fixture
def service(miniature: Path, tmp_path: Path) -> Iterator[Service]:
    with running(miniature, tmp_path) as service:
        yield service


def test_a_result_without_json_fails_only_its_stack(service: Service) -> None:
    unfit = service.scheduler.submit_stack(
        [Fov(mini.bright(), Source(kind="upload", file="\ud800"), spec=service.active.spec)]
    )
    fine = service.scheduler.submit_stack(
        [Fov(mini.dark(), Source(kind="upload", file="fine"), spec=service.active.spec)]
    )
    (record,) = fine.done.result(30)
    assert record.result.label == "control"
    with pytest.raises(PydanticSerializationError):
        unfit.done.result(30)
    assert not service.degraded_reasons()
    assert service.status().engine.thread_deaths["delivery"] == 0


class Fatal(BaseException):
    """An exception that ends the thread of a sink."""


class FaultySink(ResultSink):
    """A sink that raises for results whose file has the name of an exception, and records the others."""

    def __init__(self) -> None:
        self.files: list[str | None] = []

    def on_result(self, record: Record, _: DeliveryTimes) -> None:
        name = record.result.source.file
        if name == "error":
            raise ValueError("this sink fails")
        if name == "fatal":
            raise Fatal
        self.files.append(name)


def upload(service: Service, *names: str) -> list[Fov]:
    return [Fov(mini.dark(), Source(kind="upload", file=n), spec=service.active.spec) for n in names]


@pytest.mark.parametrize("fault", ["error", "fatal"])
def test_a_sink_that_fails_still_gets_the_other_results(service: Service, fault: str) -> None:
    sinks = FaultySink(), FaultySink()
    service.assembly.delivery._before_answer[:] = sinks
    first = service.scheduler.submit_stack(upload(service, "a", fault, "b"))
    last = service.scheduler.submit_stack(upload(service, "c", fault))
    assert len(first.done.result(60)) == 3
    assert len(last.done.result(60)) == 2
    wait_for(lambda: sinks[1].files == ["a", "b", "c"])
    assert sinks[0].files == ["a", "b", "c"]
    again = service.scheduler.submit_stack(upload(service, "d"))
    assert len(again.done.result(60)) == 1


class StageSink(ResultSink):
    """A sink that records when its stage is notified."""

    def __init__(self, stage: SinkStage, notified: list[SinkStage]) -> None:
        self.stage = stage
        self._notified = notified

    def on_result(self, record: Record, times: DeliveryTimes) -> None:
        assert times.logged_s <= times.notified_s <= time.perf_counter()
        self._notified.append(self.stage)


def test_sinks_are_notified_in_the_order_of_their_stages(service: Service) -> None:
    notified: list[SinkStage] = []
    sinks = [StageSink(stage, notified) for stage in SinkStage]
    with pytest.raises(ValueError, match=r"StageSink \(OBSERVE\) must come after StageSink \(REMEMBER\)"):
        Delivery([sinks[-1], sinks[0]])
    delivery = service.assembly.delivery
    delivery._before_answer[:], delivery._after_answer[:] = sinks[:-1], sinks[-1:]
    service.scheduler.submit_stack(upload(service, "one")).done.result(30)
    assert notified[:3] == list(SinkStage)[:3]
    wait_for(lambda: notified == list(SinkStage))


class ThreadSink(ResultSink):
    """A sink whose thread ends by itself at the first result."""

    def __init__(self) -> None:
        self.received, self.closed = threading.Event(), threading.Event()
        self.thread = WatchedThread("test sink", self._run)

    def _run(self, _: threading.Event) -> None:
        self.received.wait()

    def on_result(self, record: Record, _: DeliveryTimes) -> None:
        self.received.set()

    def close(self) -> None:
        self.closed.set()


def test_every_sink_is_started_monitored_and_closed(miniature: Path, tmp_path: Path) -> None:
    sink = ThreadSink()
    with running(miniature, tmp_path, sink) as service:
        assert not service.degraded_reasons()
        assert service.status().engine.thread_deaths["test sink"] == 0
        service.scheduler.submit_stack(upload(service, "one")).done.result(30)
        wait_for(service.degraded_reasons)
        (reason,) = service.degraded_reasons()
        assert reason.startswith("the test sink thread died (it ended by itself)")
        assert service.status().engine.thread_deaths["test sink"] == 1
        assert not sink.closed.is_set()
    assert sink.closed.is_set()


def test_results_are_delivered_when_the_run_log_itself_fails(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bool:
        raise RuntimeError("a fault of the program")

    monkeypatch.setattr(service.log, "commit", fail)
    (record,) = service.scheduler.submit_stack(upload(service, "a")).done.result(30)
    assert "not_logged" in [flag.code for flag in record.result.flags]


def test_a_batch_without_a_place_releases_none(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise each wait that times out would add a place."""
    monkeypatch.setattr(senoscope.results.delivery, "_MAX_WAIT_S", 0.0)
    computed: list[Computed] = []
    with monkeypatch.context() as patch:
        patch.setattr(service.assembly.scheduler, "_deliver", computed.append)
        service.scheduler.submit_stack(upload(service, "one"))
        wait_for(lambda: bool(computed))
    delivery = Delivery([sink := FaultySink()])
    live = replace(computed[0], stack=None)
    for _ in range(40):
        delivery.deliver(live)
    delivery.thread.start()
    wait_for(lambda: len(sink.files) == 40)
    assert delivery._places._value == 32
    delivery.close()


def test_the_number_of_results_that_wait_for_the_log_is_limited(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They hold their pixels; further frames wait in their lane, which is limited and counts drops."""
    computed: list[Computed] = []
    with monkeypatch.context() as patch:
        patch.setattr(service.assembly.scheduler, "_deliver", computed.append)
        service.scheduler.submit_stack(
            [Fov(mini.bright(), Source(kind="upload", file="one"), spec=service.active.spec)]
        )
        wait_for(lambda: bool(computed))
    path = tmp_path / "other.sqlite3"
    keeper = LogKeeper(RunLog(f"sqlite:///{path}"))
    delivery = Delivery([], keeper)
    handed: list[int] = []
    keeper.start()
    wait_for(lambda: keeper.state == "ok")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        delivery.thread.start()
        for n in range(100):
            live = replace(computed[0], stack=None)
            threading.Thread(
                target=lambda n=n, live=live: (delivery.deliver(live), handed.append(n)), daemon=True
            ).start()
        wait_for(lambda: len(handed) >= 32)
        time.sleep(0.1)  # far less than the log is waited for
        assert len(handed) < 70  # 32, and those that are being logged
        other.execute("ROLLBACK")
    wait_for(lambda: keeper.status().written == 100)
    assert len(handed) == 100
    delivery.close()
    keeper.close()
