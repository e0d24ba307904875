"""State that is kept when a service is killed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from senoscope_client.wire.messages import Position
from support.image_bytes import npy
from support.raw_microscope import Microscope
from support.servers import Server, start_server, start_server_process


@pytest.fixture
def kept(miniature: Path, tmp_path: Path) -> Iterator[Callable[[Callable[..., Server]], Server]]:
    """Start servers on the same run log."""
    running: list[Server] = []

    def begin(start: Callable[..., Server]) -> Server:
        log = f"sqlite:///{tmp_path / 'runlog.sqlite3'}"
        options = ("--database-url", log, "--instrument", "nlo-1")
        running.append(start(miniature, tmp_path / f"{len(running)}.txt", *options))
        return running[-1]

    yield begin
    for server in running:
        server.stop()


def test_session_range_and_stage_map(kept: Callable[[Callable[..., Server]], Server]) -> None:
    """Both at once, since each process takes seconds to start."""
    server = kept(start_server_process)
    stack = np.random.default_rng(3).normal(400, 60, (2, 3, 250, 300)).clip(0).astype(np.uint16)
    calibrated = httpx.post(f"{server.url}/v1/normalization/calibrate", content=npy(stack), timeout=60).json()
    assert calibrated["survives_restart"]
    assert calibrated.pop("warnings") == [], "not part of the range in force"
    with contextlib.closing(Microscope(server.frames)) as scope:
        uid = scope.uid
        for n in range(3):
            scope.send(scope.frame(n, position_um=Position(x=100.0 * n, y=0.0, z=0.0)))
        server.wait(lambda status: status["live"]["classified"] == 3)
        at = f"{server.url}/v1/series/{uid}/map.json"
        server.wait(lambda _: len(httpx.get(at).json().get("fovs", ())) == 3)  # the map may follow the count
        before = httpx.get(at).json()
    server.kill()

    server = kept(start_server_process)
    assert httpx.get(f"{server.url}/v1/normalization").json() == calibrated
    answer = httpx.post(f"{server.url}/v1/classify", content=npy(stack), timeout=60)
    assert answer.json()["results"][0]["normalization"]["source"] == "session"
    assert httpx.get(f"{server.url}/v1/series/{uid}/map.json").json() == before
    httpx.delete(f"{server.url}/v1/normalization")
    server.kill()

    server = kept(start_server)
    assert httpx.get(f"{server.url}/v1/normalization").json()["source"] == "model"
    assert httpx.get(f"{server.url}/v1/series/{uid}/map.json").json() == before
    with contextlib.closing(Microscope(server.frames)) as scope:
        scope.uid = uid  # the scan goes on, and comes back to its first place
        for n, x in ((3, 300.0), (4, 0.0)):
            scope.send(scope.frame(n, position_um=Position(x=x, y=0.0, z=0.0)))

        def frames() -> list[int]:
            fovs = httpx.get(f"{server.url}/v1/series/{uid}/map.json").json()["fovs"]
            return [fov["frame"] for fov in fovs]

        server.wait(lambda _: frames()[-1] == 4)  # the map may follow the count
        assert frames() == [1, 2, 3, 4]
