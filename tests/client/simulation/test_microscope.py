"""The simulated microscope: its scan, the frames that it sends, and how it stops."""

from __future__ import annotations

import json
import threading
from itertools import islice

import numpy as np
import pytest
import zmq

from senoscope_client.simulation.microscope import Acquired, MosaicScan, run
from senoscope_client.simulation.synthetic import synthesize
from senoscope_client.wire.messages import EndHeader, ImageHeader, Index, decode
from senoscope_client.zeromq.frame_publisher import FramePublisher

ANYWHERE = "tcp://127.0.0.1:*"


class Frames:
    """A source of ``frames`` small FOVs, after which ``fault`` is raised."""

    mosaic = None

    def __init__(self, frames: int | None, fault: Exception | None = None) -> None:
        self.planned_frames = frames
        self.fault = fault

    def __iter__(self):
        n = 0
        while self.planned_frames is None or n < self.planned_frames:
            yield Acquired(np.full((3, 2, 2), n % 256, np.uint8), None, Index(p=n))
            n += 1
        if self.fault:
            raise self.fault


def collect(publisher: FramePublisher, into: list) -> threading.Thread:
    """Start a thread that collects the raw messages of the stream until the series ends."""
    socket = zmq.Context.instance().socket(zmq.SUB)
    socket.setsockopt(zmq.RCVTIMEO, 10_000)
    socket.setsockopt(zmq.RCVHWM, 0)
    socket.subscribe("fov/")
    socket.connect(publisher.endpoint)

    def receive() -> None:
        with socket:
            while not into or b"/end" not in into[-1][0]:
                into.append(socket.recv_multipart())

    thread = threading.Thread(target=receive)
    thread.start()
    assert publisher.wait_for_subscriber(60)
    return thread


def test_the_grid_is_scanned_in_a_serpentine_for_each_time_point():
    scan = MosaicScan(3, rows=2, columns=3, overlap=0.2, height=40, width=50)
    fovs = list(islice(scan, 7))
    pitch_x, pitch_y = 50 * 0.35 * 0.8, 40 * 0.35 * 0.8
    wanted = [(0, 0), (1, 0), (2, 0), (2, 1), (1, 1), (0, 1), (0, 0)]
    np.testing.assert_allclose(
        [(a.position_um.x, a.position_um.y) for a in fovs], [(x * pitch_x, y * pitch_y) for x, y in wanted]
    )
    assert [(a.index.p, a.index.t) for a in fovs] == [(n, 0) for n in range(6)] + [(0, 1)]


def test_frame_n_shows_fov_n_of_the_seed():
    for n, acquired in enumerate(MosaicScan(3, frames=3, height=40, width=50)):
        np.testing.assert_array_equal(acquired.pixels, synthesize(3, n, height=40, width=50).pixels)


def test_a_scan_is_sent_as_one_series_without_the_true_classes():
    messages: list = []
    numbers: list[int] = []
    with FramePublisher(ANYWHERE, "sim") as publisher:
        thread = collect(publisher, messages)
        scan = MosaicScan(1, rows=2, columns=2, frames=5, height=40, width=50)
        summary = run(publisher, scan, 200.0, series_id="night", on_frame=numbers.append)
        thread.join()
    headers = [decode(m).header for m in messages]
    images = [h for h in headers if isinstance(h, ImageHeader)]
    assert [h.frame for h in images] == numbers == list(range(5))
    assert headers[0].planned_frames == 5
    assert (headers[0].mosaic.rows, headers[0].series_id) == (2, "night")
    assert isinstance(headers[-1], EndHeader)
    assert (headers[-1].frames_sent, headers[-1].reason) == (5, "completed")
    assert (summary.sent, summary.completed, summary.series_uid) == (5, True, headers[0].series_uid)
    assert not any(
        word in json.dumps([m[1].decode() for m in messages]) for word in ("senesc", "control", "seed")
    )


def test_an_endless_scan_is_stopped_by_its_event():
    stop = threading.Event()
    messages: list = []
    with FramePublisher(ANYWHERE, "sim") as publisher:
        thread = collect(publisher, messages)
        summary = run(
            publisher, Frames(None), 500.0, stop=stop, on_frame=lambda n: stop.set() if n == 9 else None
        )
        thread.join()
    end = decode(messages[-1]).header
    assert (summary.sent, summary.completed) == (10, False)
    assert (end.frames_sent, end.reason) == (10, "stopped")


def test_a_source_that_fails_ends_the_series_as_aborted():
    messages: list = []
    with FramePublisher(ANYWHERE, "sim") as publisher:
        thread = collect(publisher, messages)
        with pytest.raises(OSError, match="disk"):
            run(publisher, Frames(3, OSError("disk")), 500.0)
        thread.join()
        end = decode(messages[-1]).header
        assert (end.frames_sent, end.reason) == (3, "aborted")
        # The publisher is ready for another series.
        assert run(publisher, Frames(1), 500.0).sent == 1


def test_frames_are_not_sent_faster_than_the_rate():
    with FramePublisher(ANYWHERE, "sim") as publisher:
        summary = run(publisher, Frames(21), 100.0)
    assert summary.seconds >= 0.199  # a slow machine may take longer


def test_a_frame_is_sent_once_may_send_returns_true():
    calls: list[int] = []

    def may_send() -> bool:
        calls.append(len(sent))
        return len(calls) % 3 == 0

    sent: list[int] = []
    with FramePublisher(ANYWHERE, "nlo-1") as publisher:
        summary = run(publisher, Frames(4), 1000, on_frame=sent.append, may_send=may_send)
    assert summary.completed
    assert calls == [frame for frame in range(4) for _ in range(3)]


def test_a_scan_can_be_stopped_while_may_send_returns_false():
    stop = threading.Event()

    def may_send() -> bool:
        stop.set()
        return False

    with FramePublisher(ANYWHERE, "nlo-1") as publisher:
        assert run(publisher, Frames(None), 1000, stop=stop, may_send=may_send).sent == 0


@pytest.mark.parametrize("rate", [0, -1, float("nan")])
def test_a_rate_must_be_positive(rate):
    with FramePublisher(ANYWHERE, "sim") as publisher, pytest.raises(ValueError, match="rate"):
        run(publisher, Frames(1), rate)


@pytest.mark.parametrize(("seed", "frames", "overlap"), [(-1, 1, 0.1), (0, -1, 0.1), (0, 1, 1.0)])
def test_invalid_scans_are_rejected(seed, frames, overlap):
    with pytest.raises(ValueError, match="must"):
        MosaicScan(seed, frames=frames, overlap=overlap)
