"""The closed loop: the engine and core of pymmcore-plus, demo devices, and a real service.

Real are the runner, the default engine, Micro-Manager's core, and its demo camera, stage and filter wheel
(compiled device adapters). Only what the camera sees is put in: a sample that knows where it is bright.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from senoscope_client.acquisition.closed_loop import ClosedLoop, LoopSummary
from senoscope_client.acquisition.micromanager import MdaFrames
from senoscope_client.errors import SenoscopeError
from senoscope_client.http.client import Client
from senoscope_client.zeromq.frame_publisher import FramePublisher
from support.run_logs import wait_for
from support.servers import Server, free_port, start_server, stop_server

pymmcore_plus = pytest.importorskip("pymmcore_plus")
pytest.importorskip("mm_test_adapters")
useq = pytest.importorskip("useq")

CHANNELS = ("SRS", "TPEF", "Transmission")
PITCH_UM = 100.0
RESCAN = """
dry_run = false
[[rules]]
name = "rescan"
action = "revisit"
when.probability = { above = 0.8 }
"""


class SeeingEngine(pymmcore_plus.mda.MDAEngine):
    """The default engine, with a camera that images bright cells at bright stage positions."""

    bright: frozenset[tuple[int, int]] = frozenset()

    def exec_event(self, event):
        for image, sub_event, meta in super().exec_event(event):
            x, y = self.mmcore.getXYPosition()
            place = round(x / PITCH_UM), round(y / PITCH_UM)
            level = 900 if place in self.bright else 60
            yield np.full_like(image, level), sub_event, meta


class Scope:
    """A microscope of demo devices, with a record of its engine's events."""

    def __init__(self) -> None:
        self.core = pymmcore_plus.CMMCorePlus()
        self.core.loadSystemConfiguration("MMConfig_demo.cfg")
        for gain, name in enumerate(CHANNELS):
            self.core.defineConfig("Detector", name, "Camera", "Gain", str(gain))
        self.core.defineConfig("Detector", "Brightfield", "Camera", "Gain", "3")
        self.core.setROI(0, 0, 300, 250)
        self.engine = SeeingEngine(self.core)
        self.core.mda.set_engine(self.engine)
        self.started: list = []
        self.stood: list[tuple[int, int]] = []
        self.core.mda.events.eventStarted.connect(self.started.append)
        self.core.mda.events.frameReady.connect(self._note_stage)

    def _note_stage(self, _, event) -> None:
        if event.channel.config == CHANNELS[0]:
            x, y = self.core.getXYPosition()
            self.stood.append((round(x / PITCH_UM), round(y / PITCH_UM)))


def plan(rows: int = 4, columns: int = 4, channels=CHANNELS, **more):
    places = [(PITCH_UM * c, PITCH_UM * r, 0) for r in range(rows) for c in range(columns)]
    return useq.MDASequence(
        axis_order="tpc",
        stage_positions=places,
        channels=[useq.Channel(group="Detector", config=name, exposure=1) for name in channels],
        **more,
    )


@pytest.fixture
def scope() -> Scope:
    return Scope()


@pytest.fixture
def serving(miniature: Path, tmp_path: Path) -> Iterator:
    """Return a function that starts a server with rules."""
    running: list[Server] = []

    def start(rules: str | None, **options) -> Server:
        path = tmp_path / "rules.toml"
        path.write_text(rules or "")
        arguments = ["--rules", str(path)] if rules else []
        running.append(start_server(miniature, tmp_path / "log.txt", *arguments, **options))
        return running[-1]

    yield start
    for server in running:
        stop_server(server)


def run(server: Server, scope: Scope, sequence, *, series_id: str = "plate 1", **options) -> LoopSummary:
    with FramePublisher(server.frames, "nlo-7") as publisher:
        assert publisher.wait_for_subscriber(60)
        loop = ClosedLoop(MdaFrames(publisher, series_id), server.url, **options)
        return loop.run(scope.core.mda, sequence)


@pytest.mark.parametrize("when", ["end", "next"])
def test_two_bright_places_of_sixteen_are_scanned_again(serving, scope: Scope, when: str) -> None:
    server = serving(RESCAN)
    scope.engine.bright = frozenset({(1, 0), (2, 3)})
    summary = run(server, scope, plan(), revisit=when)
    planned = [(n % 4, n // 4) for n in range(16)]
    # The events of the engine: every position in all three channels.
    assert len(scope.started) == 18 * 3
    by_place = [
        (round(e.x_pos / PITCH_UM), round(e.y_pos / PITCH_UM), e.channel.config) for e in scope.started
    ]
    assert all(
        by_place[n : n + 3] == [(*by_place[n][:2], name) for name in CHANNELS] for n in range(0, 54, 3)
    )
    # Where the stage was when the camera took a picture.
    assert sorted(scope.stood) == sorted([*planned, (1, 0), (2, 3)])
    if when == "end":
        assert scope.stood[:16] == planned
        assert set(scope.stood[16:]) == {(1, 0), (2, 3)}
    assert (summary.planned, summary.revisited, summary.unanswered, summary.ignored) == (16, 2, 0, 0)
    with Client(server.url) as client:
        (series,) = client.series()
        assert (series.series_id, series.state, series.received, series.missing) == (
            "plate 1",
            "ended",
            18,
            0,
        )
        assert series.labels == {"senescent": 4, "control": 14}
        decisions = client.decisions(series.series_uid).decisions
        assert {(round(d.position_um.x / 100), round(d.position_um.y / 100)) for d in decisions} == {
            (1, 0),
            (2, 3),
        }
        again = [r for r in client.all_results(series=series.series_uid) if r.label == "senescent"]
        assert {r.source.pixel_size_um for r in again} == {1.0}  # as the core was calibrated
        assert list(reversed(summary.decisions)) == list(decisions)


def test_decisions_of_a_dry_run_are_sent_and_not_carried_out(serving, scope: Scope) -> None:
    server = serving(RESCAN.replace("false", "true"))
    scope.engine.bright = frozenset({(0, 0)})
    summary = run(server, scope, plan(1, 3))
    assert scope.stood == [(0, 0), (1, 0), (2, 0)]
    assert (summary.revisited, summary.ignored, len(summary.decisions)) == (0, 1, 1)


def test_the_client_has_a_separate_limit(serving, scope: Scope) -> None:
    limits = "dry_run = false\n[limits]\nmax_revisits = 100\nmax_revisits_per_place = 100\n"
    server = serving(RESCAN.replace("dry_run = false\n", limits))
    scope.engine.bright = frozenset({(1, 0)})
    summary = run(server, scope, plan(1, 2), max_revisits=3)
    assert scope.stood == [(0, 0), *[(1, 0)] * 4]
    assert (summary.revisited, summary.ignored) == (3, 1)


def test_a_scan_is_stopped_with_the_reason(serving, scope: Scope) -> None:
    server = serving(
        'dry_run = false\n[[rules]]\nname = "enough"\naction = "stop"\nrunning = 2\n'
        "when.probability = { above = 0.8, release = 0.6 }\n"
    )
    scope.engine.bright = frozenset({(n, 0) for n in range(200)})
    summary = run(server, scope, plan(1, 200))
    assert summary.stopped_by == "enough"
    assert 2 <= len(scope.stood) < 200
    assert len(scope.started) == 3 * len(scope.stood)
    assert [d.frame for d in summary.decisions] == [1]
    ended = server.wait(lambda s: s["receiver"]["series"][0]["state"] == "ended")
    assert ended["receiver"]["series"][0]["end_reason"] == "stopped by rule enough"


def test_the_remaining_events_at_a_position_are_skipped(serving, scope: Scope) -> None:
    server = serving(
        'dry_run = false\n[[rules]]\nname = "nothing here"\naction = "skip"\nwhen.label = "control"\n'
    )
    scope.engine.bright = frozenset({(1, 0)})
    waits = useq.TIntervalLoops(interval=1.0, loops=3)
    summary = run(server, scope, plan(1, 3, time_plan=waits))
    assert scope.stood[:3] == [(0, 0), (1, 0), (2, 0)]
    assert scope.stood[3:] == [(1, 0), (1, 0)]
    assert (summary.planned, summary.skipped) == (5, 4)


def test_channels_may_be_in_any_order_and_among_others(serving, scope: Scope) -> None:
    server = serving(RESCAN)
    scope.engine.bright = frozenset({(1, 0)})
    sequence = plan(1, 3, channels=("Brightfield", "Transmission", "SRS", "TPEF"))
    slow = sequence.replace(axis_order="tcp")
    summary = run(server, scope, slow)
    assert (summary.planned, summary.revisited) == (3, 1)
    again = scope.started[-4:]
    assert [e.channel.config for e in again] == ["Brightfield", "Transmission", "SRS", "TPEF"]
    assert {e.x_pos for e in again} == {PITCH_UM}


def test_a_plan_without_the_publishers_channels_is_rejected_before_the_acquisition(
    serving, scope: Scope
) -> None:
    server = serving(RESCAN)
    for name in ("srs", "Srs signal"):
        scope.core.defineConfig("Detector", name, "Camera", "Gain", "1")
    for channels in (("srs",), ("srs", "TPEF", "Transmission"), ("SRS", "TPEF"), ("Brightfield",)):
        with pytest.raises(SenoscopeError) as caught:
            run(server, scope, plan(1, 2, channels=channels))
        assert repr(channels[0]) in str(caught.value)
        assert all(repr(name) in str(caught.value) for name in CHANNELS)
    assert scope.started == []


def test_channels_that_match_nothing_are_reported_at_the_first_image(
    serving, scope: Scope, caplog: pytest.LogCaptureFixture
) -> None:
    """A plan that can be read only once, as from a generator, is checked as it goes."""
    server = serving(RESCAN)
    reported_after: list[int] = []

    def events():
        for n, event in enumerate(plan(1, 3, channels=("Brightfield",))):
            if n == 2:
                wait_for(lambda: "'Brightfield' is not one of" in caplog.text, 60)
                reported_after.append(n)
            yield event

    with pytest.raises(SenoscopeError, match=r"nothing was published.*Brightfield"):
        run(server, scope, events())
    assert reported_after == [2]
    (record,) = [record for record in caplog.records if "is not one of" in record.message]
    assert record.levelname == "ERROR"
    assert all(name in record.message for name in CHANNELS)


def test_the_summary_counts_what_was_published(serving, scope: Scope) -> None:
    server = serving(RESCAN)
    scope.engine.bright = frozenset({(1, 0)})
    summary = run(server, scope, plan(1, 2, channels=("Brightfield", *CHANNELS)))
    assert (summary.published, summary.incomplete, summary.failed) == (3, 0, 0)
    assert summary.foreign == {"Brightfield": 3}


def test_a_plan_of_events_without_an_index_is_accepted(serving, scope: Scope) -> None:
    server = serving(RESCAN)
    scope.engine.bright = frozenset({(1, 0)})
    events = [event.replace(index={}) for event in plan(1, 3)]
    summary = run(server, scope, events)
    assert scope.stood == [(0, 0), (1, 0), (2, 0), (1, 0)]
    assert (summary.planned, summary.revisited) == (3, 1)


def test_cancelling_ends_the_wait_for_the_service(serving, scope: Scope) -> None:
    server = serving(None)

    def cancel_when_all_is_scanned() -> None:
        wait_for(lambda: len(scope.stood) == 2 and scope.core.mda.status.phase == "waiting", 60)
        scope.core.mda.cancel()

    canceling = threading.Thread(target=cancel_when_all_is_scanned)
    canceling.start()
    summary = run(server, scope, plan(1, 2, channels=CHANNELS[::-1]), patience_s=3600)
    canceling.join()
    assert (summary.planned, summary.unanswered) == (2, 0)


def test_the_wait_for_a_service_without_rules_has_a_limit(serving, scope: Scope) -> None:
    server = serving(None)
    summary = run(server, scope, plan(1, 2), patience_s=0.5)
    assert (summary.planned, summary.unanswered) == (2, 2)


def test_the_client_reconnects_to_a_service_that_restarts(serving, scope: Scope) -> None:
    first = serving(RESCAN)
    scope.engine.bright = frozenset({(0, 0), (3, 0)})
    with FramePublisher(first.frames, "nlo-7") as publisher, Client(first.url) as client:
        assert publisher.wait_for_subscriber(60)
        loop = ClosedLoop(MdaFrames(publisher), first.url, patience_s=30)

        def slowly():
            for n, event in enumerate(plan(1, 4)):
                if n == 6:  # two places are done
                    while len(client.results().results) < 2:
                        time.sleep(0.02)
                    assert stop_server(first) == 0
                    again = serving(RESCAN, like=first)
                    assert publisher.wait_for_subscriber(60)
                    again.wait(lambda s: s["receiver"]["series"])
                yield event

        summary = loop.run(scope.core.mda, slowly())
    assert (summary.planned, summary.revisited, summary.unanswered) == (4, 2, 0)
    assert sorted(scope.stood) == [(0, 0), (0, 0), (1, 0), (2, 0), (3, 0), (3, 0)]


def test_frames_are_published_without_a_closed_loop(serving, scope: Scope) -> None:
    server = serving(RESCAN)
    with FramePublisher(server.frames, "nlo-7") as publisher:
        assert publisher.wait_for_subscriber(60)
        frames = MdaFrames(publisher, "plain")
        frames.connect(scope.core.mda)
        with Client(server.url) as client, client.live_decisions(judged=True, timeout_s=30) as live:
            scope.core.mda.run(plan(2, 2, channels=CHANNELS))
            assert [next(live).frame for _ in range(4)] == [0, 1, 2, 3]
            scope.core.mda.run(plan(1, 2, channels=CHANNELS[:2]))
            frames.disconnect()
            scope.core.mda.run(plan(1, 2))
            series = client.series()
        assert [(one.received, one.end_reason) for one in series] == [(0, "completed"), (4, "completed")]
        assert (frames.published, frames.incomplete, frames.failed) == (0, 2, 0)


def test_an_acquisition_that_is_canceled_ends_its_series_so(serving, scope: Scope) -> None:
    server = serving(RESCAN)
    scope.core.mda.events.eventStarted.connect(
        lambda event: scope.core.mda.cancel() if event.index["p"] == 2 else None
    )
    summary = run(server, scope, plan(1, 4))
    assert summary.planned == 3
    ended = server.wait(lambda s: s["receiver"]["series"][0]["state"] == "ended")
    assert ended["receiver"]["series"][0]["end_reason"] == "canceled"


def test_a_camera_of_another_depth_fails_frames_but_not_the_acquisition(serving, scope: Scope) -> None:
    server = serving(RESCAN)
    scope.core.setProperty("Camera", "PixelType", "32bitRGB")
    with FramePublisher(server.frames, "nlo-7") as publisher:
        assert publisher.wait_for_subscriber(60)
        frames = MdaFrames(publisher)
        frames.connect(scope.core.mda)
        scope.core.mda.run(plan(1, 2))
        assert (frames.published, frames.failed) == (0, 2)
        assert len(scope.started) == 6


def test_a_service_that_is_not_running_is_reported_before_the_acquisition(scope: Scope) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with (
        FramePublisher("tcp://127.0.0.1:*", "nlo-7") as publisher,
        pytest.raises(SenoscopeError, match="cannot be reached"),
    ):
        ClosedLoop(MdaFrames(publisher), url).run(scope.core.mda, plan(1, 1))
    assert scope.started == []
