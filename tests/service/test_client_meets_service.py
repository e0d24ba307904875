"""The Python client with a real service."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from senoscope_client import errors
from senoscope_client.http.client import Client
from senoscope_client.wire.messages import Position
from senoscope_client.zeromq.frame_publisher import FramePublisher
from senoscope_client.zeromq.subscribers import ResultSubscriber
from support import miniature as mini
from support.servers import Server


@pytest.fixture
def client(server: Server) -> Client:
    with Client(server.url) as client:
        yield client


def test_classify_arrays_bytes_and_files(client: Client, tmp_path: Path) -> None:
    stack = np.stack([mini.bright(), mini.dark()])
    np.save(tmp_path / "stack.npy", stack)
    for source in (stack, (tmp_path / "stack.npy").read_bytes(), tmp_path / "stack.npy"):
        results = client.classify(source, cam="grid")
        assert [result.label for result in results] == ["senescent", "control"]
        assert set(results[0].gradcam.grids) == set(mini.NAMES)


@pytest.mark.parametrize(
    ("array", "error"),
    [
        (mini.bright(2), errors.WrongChannelCount),
        (mini.bright(3, 64, 64), errors.WrongFrameSize),
        (np.full((3, 250, 300), np.nan, np.float32), errors.NonFinitePixels),
    ],
)
def test_the_client_raises_the_exceptions_of_the_service(
    client: Client, array: np.ndarray, error: type[Exception]
) -> None:
    with pytest.raises(error):
        client.classify(array)


def test_state(client: Client) -> None:
    assert client.ready().ready
    assert client.model()["name"] == "miniature"
    assert client.stream()["live"]["dropped"] == 0
    assert client.model_info().engine.device == client.model()["engine"]["device"]
    assert client.stream_status().live.capacity == client.stream()["live"]["capacity"]


def test_publish_and_watch_both_ways(server: Server, client: Client) -> None:
    with (
        FramePublisher(server.frames, "nlo-7") as publisher,
        client.live(timeout_s=30) as live,
        ResultSubscriber(server.results) as subscriber,
    ):
        assert publisher.wait_for_subscriber(60)
        publisher.start_series("plate 1", planned_frames=40)
        position = Position(x=1.5, y=2.5, z=0.0)
        over_zeromq = None
        sent = 0
        while over_zeromq is None and sent < 40:  # until the subscription has reached the service
            publisher.publish(mini.bright(), position)
            sent += 1
            over_zeromq = subscriber.receive(0.25)
        over_websocket = [next(live) for _ in range(sent)]
        publisher.end_series()
        assert over_zeromq is not None
        same = next(result for result in over_websocket if result.id == over_zeromq.id)
        assert same.model_copy(update={"gradcam": over_zeromq.gradcam}) == over_zeromq
        assert same.source.position_um == position
        assert same.source.instrument == "nlo-7"
        series = server.wait(lambda s: s["receiver"]["series"][0]["state"] == "ended")["receiver"]["series"][
            0
        ]
    assert (series["received"], series["missing"]) == (sent, 0)
