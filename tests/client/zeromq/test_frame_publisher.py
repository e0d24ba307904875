"""The frame publisher, over real sockets."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import zmq

from senoscope_client.wire.messages import (
    EndHeader,
    HeartbeatHeader,
    ImageHeader,
    Index,
    Mosaic,
    Position,
    StartHeader,
    decode,
)
from senoscope_client.zeromq.frame_publisher import FramePublisher

PIXELS = np.arange(3 * 4 * 5, dtype=np.uint16).reshape(3, 4, 5)
ANYWHERE = "tcp://127.0.0.1:*"


class Listener:
    """A SUB socket with a time-out, so that a test fails instead of waiting forever."""

    def __init__(self, endpoint: str, topic: str = "fov/") -> None:
        self.socket = zmq.Context.instance().socket(zmq.SUB)
        self.socket.setsockopt(zmq.RCVTIMEO, 10_000)
        self.socket.setsockopt(zmq.RCVHWM, 0)
        self.socket.subscribe(topic)
        self.socket.connect(endpoint)

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close(0)

    def next(self):
        return decode(self.socket.recv_multipart(copy=False))


def test_a_series_is_published_from_start_to_end():
    with (
        FramePublisher(ANYWHERE, "nlo-1", heartbeat_s=60) as publisher,
        Listener(publisher.endpoint) as listener,
    ):
        assert publisher.wait_for_subscriber(10)
        uid = publisher.start_series("s", 2, Mosaic(rows=1, columns=2), wavenumber_cm1=2850.0)
        where = Position(x=1.0, y=2.0, z=3.0)
        assert publisher.publish(PIXELS, where, Index(p=4), user_data={"a": 1}, exposure_ms=7.0) == 0
        assert publisher.publish(PIXELS + 1) == 1
        assert publisher.end_series() == 2
        start, first, second, end = (listener.next() for _ in range(4))
    assert isinstance(start.header, StartHeader)
    assert start.header.planned_frames == 2
    assert start.header.wavenumber_cm1 == 2850.0
    assert isinstance(first.header, ImageHeader)
    assert (first.header.position_um, first.header.index) == (where, Index(p=4))
    assert (first.header.user_data, first.header.exposure_ms) == ({"a": 1}, 7.0)
    np.testing.assert_array_equal(first.pixels, PIXELS)
    np.testing.assert_array_equal(second.pixels, PIXELS + 1)
    assert second.header.timestamp.to_ns() >= first.header.timestamp.to_ns()
    assert isinstance(end.header, EndHeader)
    assert (end.header.frames_sent, end.header.reason) == (2, "completed")
    assert {m.header.series_uid for m in (start, first, second, end)} == {uid}


def test_frames_of_several_threads_are_numbered_in_order():
    with (
        FramePublisher(ANYWHERE, "nlo-1", heartbeat_s=0.01) as publisher,
        Listener(publisher.endpoint) as listener,
    ):
        assert publisher.wait_for_subscriber(10)
        publisher.start_series("s")
        threads = [
            threading.Thread(target=lambda: [publisher.publish(PIXELS) for _ in range(50)]) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        publisher.end_series()
        received = []
        while not isinstance((message := listener.next()).header, EndHeader):
            if isinstance(message.header, ImageHeader):
                received.append(message.header.frame)
    assert received == list(range(200))


def test_a_late_subscriber_receives_the_series_with_a_heartbeat():
    with FramePublisher(ANYWHERE, "nlo-1", heartbeat_s=0.02) as publisher:
        uid = publisher.start_series("s", planned_frames=9, user_data={"operator": "x"})
        publisher.publish(PIXELS)
        publisher.publish(PIXELS)
        with Listener(publisher.endpoint) as listener:
            header = listener.next().header
    assert isinstance(header, HeartbeatHeader)
    assert (header.series_uid, header.series_id, header.frame) == (uid, "s", 1)
    assert (header.planned_frames, header.user_data) == (9, {"operator": "x"})


def test_heartbeats_are_sent_only_while_a_series_is_open():
    with (
        FramePublisher(ANYWHERE, "nlo-1", heartbeat_s=0.01) as publisher,
        Listener(publisher.endpoint) as listener,
    ):
        assert publisher.wait_for_subscriber(10)
        publisher.start_series("first")
        assert isinstance(listener.next().header, StartHeader)
        heartbeat = listener.next().header
        assert isinstance(heartbeat, HeartbeatHeader)
        assert heartbeat.frame is None
        publisher.end_series()
        while not isinstance(listener.next().header, EndHeader):
            pass
        assert not listener.socket.poll(100)
        publisher.start_series("second")
        assert listener.next().header.series_id == "second"


def test_wait_for_subscriber_counts_matching_subscriptions_only():
    with FramePublisher(ANYWHERE, "nlo-1") as publisher:
        assert not publisher.wait_for_subscriber(0)
        with Listener(publisher.endpoint, topic="fov/another/"):
            assert not publisher.wait_for_subscriber(0.2)
        with Listener(publisher.endpoint, topic="fov/nlo-1/image"):
            assert publisher.wait_for_subscriber(10)


def test_messages_of_a_subscriber_that_are_not_subscriptions_are_ignored():
    topic = b"fov/nlo-1/image"
    with (
        FramePublisher(ANYWHERE, "nlo-1") as publisher,
        Listener(publisher.endpoint, topic=topic.decode()),
        zmq.Context() as context,
        context.socket(zmq.XSUB) as other,
    ):
        assert publisher.wait_for_subscriber(10)
        other.connect(publisher.endpoint)
        other.send(b"\x01fov/nlo-1/end")
        deadline_s = time.monotonic() + 60
        while b"fov/nlo-1/end" not in publisher._subscriptions:
            assert publisher.wait_for_subscriber(0)
            assert time.monotonic() < deadline_s
        other.send(b"\x02" + topic)
        other.send_multipart([b"\x02", b"\x02" + topic])
        other.send(b"\x00fov/nlo-1/end")
        while b"fov/nlo-1/end" in publisher._subscriptions:
            assert publisher.wait_for_subscriber(0)
            assert time.monotonic() < deadline_s
        assert publisher.wait_for_subscriber(0)


def test_close_ends_the_series_and_sends_all_messages():
    def scan_until_an_error() -> None:
        with FramePublisher(ANYWHERE, "nlo-1", heartbeat_s=60) as publisher:
            listeners.append(Listener(publisher.endpoint))
            assert publisher.wait_for_subscriber(10)
            publisher.start_series("s")
            for _ in range(100):
                publisher.publish(PIXELS)
            raise KeyError("laser")

    listeners: list[Listener] = []
    with pytest.raises(KeyError, match="laser"):
        scan_until_an_error()
    with listeners[0] as listener:
        headers = [listener.next().header for _ in range(102)]
    assert [h.frame for h in headers[1:101]] == list(range(100))
    assert (headers[-1].frames_sent, headers[-1].reason) == (100, "aborted")


def test_a_rejected_frame_uses_no_number():
    with FramePublisher(ANYWHERE, "nlo-1") as publisher:
        publisher.start_series("s")
        for bad in (PIXELS.astype(np.int64), PIXELS[0], PIXELS[:2]):
            with pytest.raises(ValueError, match=r"dtype|shape|channel"):
                publisher.publish(bad)
        assert publisher.publish(PIXELS) == 0


def test_invalid_use_raises_errors():
    with pytest.raises(ValueError, match="instrument"):
        FramePublisher(ANYWHERE, "nlo 1")
    with FramePublisher(ANYWHERE, "nlo-1") as publisher:
        with pytest.raises(RuntimeError, match="no series is open"):
            publisher.publish(PIXELS)
        with pytest.raises(RuntimeError, match="no series is open"):
            publisher.end_series()
        publisher.start_series("s")
        with pytest.raises(RuntimeError, match="'s' is still open"):
            publisher.start_series("t")
        with pytest.raises(OSError, match="cannot be bound"):
            FramePublisher(publisher.endpoint, "nlo-2")
    publisher.close()
    with pytest.raises(RuntimeError, match="closed"):
        publisher.start_series("s")
