"""The frame stream on a real server: real ZeroMQ in, WebSocket and ZeroMQ out."""

from __future__ import annotations

import csv
import io
import json
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import zmq
from websockets.sync.client import ClientConnection, connect

from senoscope_client.wire.messages import (
    EndHeader,
    HeartbeatHeader,
    StartHeader,
    encode,
)
from support import miniature as mini
from support.bad_messages import BAD_MESSAGES
from support.image_bytes import npy
from support.raw_microscope import Microscope
from support.servers import Server, start_server, stop_server
from support.slow_engine import SlowEngine


@pytest.fixture
def microscope(server: Server) -> Iterator[Microscope]:
    scope = Microscope(server.frames)
    yield scope
    scope.close()
    server.wait(lambda status: not status["receiver"]["connected"])


@pytest.fixture
def live(server: Server) -> Iterator[ClientConnection]:
    with connect(server.ws) as connection:
        server.wait(lambda status: status["live_clients"]["connected"] >= 1)
        yield connection
    server.wait(lambda status: status["live_clients"]["connected"] == 0)


def receive(live: ClientConnection, count: int) -> list[dict]:
    return [json.loads(live.recv(timeout=30)) for _ in range(count)]


def series(status: dict, scope: Microscope) -> dict:
    return next((s for s in status["receiver"]["series"] if s["series_uid"] == str(scope.uid)), {})


def test_results_have_the_positions_of_their_frames(
    server: Server, microscope: Microscope, live: ClientConnection
) -> None:
    microscope.send(encode(StartHeader(**microscope.common(), planned_frames=4)))
    for n in range(4):
        microscope.send(microscope.frame(n, mini.bright() if n % 2 else mini.dark()))
    microscope.send(encode(EndHeader(**microscope.common(), frames_sent=4, reason="completed")))
    results = receive(live, 4)
    assert [r["label"] for r in results] == ["control", "senescent"] * 2
    source = results[3]["source"]
    assert (source["kind"], source["instrument"], source["frame"]) == ("stream", "nlo-1", 3)
    assert source["position_um"] == {"x": 300.0, "y": -5.0, "z": 0.25}
    assert source["series_uid"] == str(microscope.uid)
    assert source["acquired_at"] == "2023-11-14T22:13:20.123456Z"
    status = server.wait(lambda s: series(s, microscope).get("state") == "ended")
    seen = series(status, microscope)
    assert (seen["received"], seen["missing"], seen["repeated"]) == (4, 0, 0)
    assert seen["planned_frames"] == 4


def test_results_over_zeromq(server: Server, microscope: Microscope) -> None:
    subscriber = zmq.Context.instance().socket(zmq.SUB)
    subscriber.setsockopt(zmq.SUBSCRIBE, b"result/stream/nlo-1")
    subscriber.connect(server.results)
    try:
        deadline = time.monotonic() + 90
        n = 0
        while not subscriber.poll(100):  # until the subscription has reached the service
            assert time.monotonic() < deadline
            microscope.send(microscope.frame(n))
            n += 1
        topic, body = subscriber.recv_multipart()
    finally:
        subscriber.close(0)
    assert topic == b"result/stream/nlo-1"
    result = json.loads(body)
    assert result["label"] == "senescent"
    assert np.shape(result["gradcam"]["grids"]["mobilenet"]) == mini.GRIDS[4]
    server.wait(lambda s: s["live"]["waiting"] == 0)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_every_pixel_type_of_the_format(
    miniature: Path, microscope: Microscope, live: ClientConnection, dtype: str
) -> None:
    microscope.send(microscope.frame(0, mini.bright(level=250).astype(dtype)))
    (result,) = receive(live, 1)
    fov = mini.bright(level=250)
    expected = [mini.reference_probability(miniature / f"{name}.onnx", fov) for name in mini.NAMES]
    assert result["probability"] == pytest.approx(np.mean(expected), abs=1e-5)


def test_channels_are_arranged_in_the_ensembles_order(
    server: Server, microscope: Microscope, live: ClientConnection
) -> None:
    fov = mini.dark()
    fov[0] = 900  # SRS decides
    microscope.send(microscope.frame(0, fov))
    swapped = np.ascontiguousarray(fov[[1, 2, 0]])
    microscope.send(microscope.frame(1, swapped, channels=("TPEF", "Transmission", "SRS")))
    first, second = receive(live, 2)
    assert first["probability"] == second["probability"] > 0.5


@pytest.mark.parametrize(
    ("reason", "make"), BAD_MESSAGES, ids=[f"{n}-{reason}" for n, (reason, _) in enumerate(BAD_MESSAGES)]
)
def test_bad_messages_are_counted_and_good_frames_unaffected(
    server: Server,
    microscope: Microscope,
    live: ClientConnection,
    reason: str,
    make: Callable[[Microscope], list],
) -> None:
    before = server.stream()["receiver"]["rejected"].get(reason, 0)
    microscope.send(microscope.frame(0), make(microscope), microscope.frame(2))
    assert [r["source"]["frame"] for r in receive(live, 2)] == [0, 2]
    status = server.stream()["receiver"]
    assert status["rejected"][reason] == before + 1
    assert status["last_rejection"]


def test_types_of_later_versions_are_skipped_not_rejected(
    server: Server, microscope: Microscope, live: ClientConnection
) -> None:
    before = server.stream()["receiver"]
    microscope.send([b"fov/nlo-1/lines", b"{}", b"abc"], microscope.frame(0))
    receive(live, 1)
    after = server.stream()["receiver"]
    assert after["messages"]["unknown_type"] == before["messages"].get("unknown_type", 0) + 1
    assert after["rejected"] == before["rejected"]


def test_repeated_and_skipped_frames_are_counted(
    server: Server, microscope: Microscope, live: ClientConnection
) -> None:
    microscope.send(encode(StartHeader(**microscope.common())))
    microscope.send(*(microscope.frame(n) for n in (0, 1, 1, 5, 3)))
    microscope.send(encode(HeartbeatHeader(**microscope.common(), frame=7)))
    assert [r["source"]["frame"] for r in receive(live, 4)] == [0, 1, 5, 3]
    seen = series(server.stream(), microscope)
    assert (seen["received"], seen["missing"], seen["repeated"]) == (4, 4, 1)


def test_a_publisher_that_restarts_is_found_again(server: Server, live: ClientConnection) -> None:
    for n in range(3):
        scope = Microscope(server.frames)
        scope.send(scope.frame(0), scope.frame(1))
        receive(live, 2)
        seen = series(server.stream(), scope)
        assert (seen["received"], seen["missing"]) == (2, 0), n
        scope.close()
        server.wait(lambda status: not status["receiver"]["connected"])


def test_an_overloaded_service_drops_and_counts_the_oldest_frames(miniature: Path, tmp_path: Path) -> None:
    server = start_server(miniature, tmp_path / "log.txt", "--live-queue", "2")
    scope = Microscope(server.frames)
    try:
        with SlowEngine(server).held():
            scope.send(*(scope.frame(n, mini.dark()) for n in range(60)))
            server.wait(lambda s: series(s, scope).get("received") == 60)
        status = server.wait(lambda s: s["live"]["classified"] + s["live"]["dropped"] == 60)
        assert status["live"]["dropped"] >= 57, "one is computed, two wait"
        assert series(status, scope)["missing"] == 0, "drops here are not gaps on the wire"
        answer = httpx.get(f"{server.url}/v1/series/{scope.uid}/frames").json()
        assert answer["counts"] == {"dropped": status["live"]["dropped"]}
        frames = [n for one in answer["ranges"] for n in range(one["first"], one["last"] + 1)]
        assert len(frames) == status["live"]["dropped"]
        assert {59, 58}.isdisjoint(frames), "the oldest give way"
    finally:
        scope.close()
        stop_server(server)


def test_frames_that_the_engine_fails_on_are_listed_with_the_reason(miniature: Path, tmp_path: Path) -> None:
    server = start_server(miniature, tmp_path / "log.txt")
    scope = Microscope(server.frames)
    ensemble = server.service.active.ensemble
    predict = ensemble.predict

    def fragile(stack: np.ndarray, *rest: Any) -> Any:
        if stack.max() == 777:
            raise RuntimeError("the engine broke")
        return predict(stack, *rest)

    ensemble.predict = fragile  # type: ignore[method-assign]
    try:
        scope.send(scope.frame(0), scope.frame(1, np.full((3, 250, 300), 777, np.uint16)), scope.frame(2))
        server.wait(lambda s: s["live"]["classified"] == 2)
        answer = httpx.get(f"{server.url}/v1/series/{scope.uid}/frames").json()
        assert answer["counts"] == {"failed": 1}
        assert [(one["first"], one["last"], one["reason"]) for one in answer["ranges"]] == [(1, 1, "failed")]
    finally:
        scope.close()
        stop_server(server)


def test_a_slow_websocket_client_loses_messages_and_does_not_delay_others(
    miniature: Path, tmp_path: Path
) -> None:
    server = start_server(miniature, tmp_path / "log.txt", "--live-queue", "1000", "--live-backlog", "32")
    scope = Microscope(server.frames)
    try:
        # Small before it connects, or the kernel itself would take in everything for the slow client.
        server.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        narrow = socket.socket()
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        narrow.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
        with (
            # It has not read what comes before the answer to its goodbye, and does not wait for that.
            connect(f"{server.ws}?cam=png", sock=narrow, max_queue=1, close_timeout=0.1),
            connect(server.ws, max_queue=None) as fast,
        ):
            server.wait(lambda status: status["live_clients"]["connected"] == 2)
            rng = np.random.default_rng(2)
            noise = rng.integers(0, 1000, (3, 250, 300), dtype=np.uint16)
            frames: list[int] = []
            # Fewer at once than a client that is fast may lag behind, until the slow one has lost some.
            while (status := server.stream())["live_clients"]["lost"] == 0:
                assert len(frames) < 1000, status
                scope.send(*(scope.frame(len(frames) + i, noise) for i in range(20)))
                frames += [r["source"]["frame"] for r in receive(fast, 20)]
            assert frames == list(range(len(frames)))
            assert server.stream()["live"]["classified"] == len(frames)
    finally:
        scope.close()
        stop_server(server)


def test_live_refuses_unknown_parameters(server: Server) -> None:
    from websockets.exceptions import ConnectionClosed

    with connect(f"{server.ws}?cam=gif") as connection, pytest.raises(ConnectionClosed) as closed:
        connection.recv(timeout=30)
    assert closed.value.rcvd.code == 1008


def test_posted_stacks_appear_live_too(server: Server, live: ClientConnection) -> None:

    import httpx

    answer = httpx.post(f"{server.url}/v1/classify", content=npy(mini.bright()))
    (result,) = receive(live, 1)
    assert result["id"] == answer.json()["results"][0]["id"]


def test_the_command_line_client_watches_and_publishes(server: Server, tmp_path: Path) -> None:
    """Everything between two processes of the client and the service, as on two machines."""
    client = [sys.executable, "-m", "senoscope_client.cli"]
    watch = subprocess.Popen(
        [*client, "watch", "--url", server.url, "--json", "--count", "3"], stdout=subprocess.PIPE, text=True
    )
    server.wait(lambda status: status["live_clients"]["connected"] == 1)
    publish = subprocess.run(
        [
            *(*client, "publish", "--synthetic", "--endpoint", server.frames),
            *("--frames", "3", "--rate", "20", "--seed", "1", "--json"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert json.loads(publish.stdout.splitlines()[-1])["sent"] == 3
    out, _ = watch.communicate(timeout=30)
    assert [json.loads(line)["source"]["frame"] for line in out.splitlines()] == [0, 1, 2]


def test_frames_without_a_result_are_listed_with_the_reason(server: Server, microscope: Microscope) -> None:
    microscope.send(encode(StartHeader(**microscope.common(), planned_frames=8)))
    small = np.zeros((3, 2, 2), np.uint16)
    for n, pixels in (
        (0, None),
        (1, small),
        (2, small),
        (5, None),
        (1, None),
    ):  # frame 1 is sent again, whole
        microscope.send(microscope.frame(n) if pixels is None else microscope.frame(n, pixels))
    microscope.send(encode(EndHeader(**microscope.common(), frames_sent=7, reason="completed")))
    server.wait(lambda s: series(s, microscope).get("state") == "ended")
    url = f"{server.url}/v1/series/{microscope.uid}/frames"
    answer = httpx.get(url).json()
    assert answer["counts"] == {"missing": 3, "refused": 1}
    ranges = [(one["first"], one["last"], one["reason"]) for one in answer["ranges"]]
    assert ranges == [(2, 2, "refused"), (3, 4, "missing"), (6, 6, "missing")]
    pages = [httpx.get(url, params={"limit": 2, "cursor": cursor}).json() for cursor in (0, 2)]
    assert pages[0]["next"] == 2
    assert "next" not in pages[1]
    assert [*pages[0]["ranges"], *pages[1]["ranges"]] == answer["ranges"]
    rows = list(csv.DictReader(io.StringIO(httpx.get(url, headers={"Accept": "text/csv"}).text)))
    assert [(int(row["first"]), int(row["last"]), row["reason"]) for row in rows] == ranges
    assert httpx.get(f"{server.url}/v1/series/{uuid.uuid4()}/frames").status_code == 404
