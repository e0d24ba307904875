"""What outlives a killed service."""

from __future__ import annotations

import io
from pathlib import Path

import httpx
import numpy as np
import pytest

from senoscope_client.wire import Position
from support.raw_microscope import Microscope
from support.servers import ServerProcess, start_server_process


@pytest.fixture
def start(miniature: Path, tmp_path: Path):
    """Starts servers on the same run log; those that still run at the end are killed."""
    running: list[ServerProcess] = []

    def begin() -> ServerProcess:
        log = f"sqlite:///{tmp_path / 'runlog.sqlite3'}"
        running.append(
            start_server_process(miniature, tmp_path / f"{len(running)}.txt", "--database-url", log)
        )
        return running[-1]

    yield begin
    for server in running:
        server.kill()


def test_the_session_range(start) -> None:
    server = start()
    stack = np.random.default_rng(3).normal(400, 60, (2, 3, 250, 300)).clip(0).astype(np.uint16)
    buffer = io.BytesIO()
    np.save(buffer, stack)
    answer = httpx.post(f"{server.url}/v1/normalization/calibrate", content=buffer.getvalue(), timeout=60)
    assert answer.json()["survives_restart"]
    server.kill()
    again = start()
    assert httpx.get(f"{again.url}/v1/normalization").json() == answer.json()
    answer = httpx.post(f"{again.url}/v1/classify", content=buffer.getvalue(), timeout=60)
    assert answer.json()["results"][0]["normalization"]["source"] == "session"
    httpx.delete(f"{again.url}/v1/normalization")
    again.kill()
    assert httpx.get(f"{start().url}/v1/normalization").json()["source"] == "model"


def test_the_stage_map(start) -> None:
    server = start()
    scope = Microscope(server.frames)
    uid = scope.uid
    try:
        for n in range(3):
            scope.send(scope.frame(n, position_um=Position(x=100.0 * n, y=0.0, z=0.0)))
        server.wait(lambda status: status["live"]["classified"] == 3)
        before = httpx.get(f"{server.url}/v1/series/{uid}/map.json").json()
    finally:
        scope.close()
    server.kill()
    again = start()
    assert httpx.get(f"{again.url}/v1/series/{uid}/map.json").json() == before
    scope = Microscope(again.frames)
    scope.uid = uid
    try:  # the scan goes on, and comes back to its first place
        for n, x in ((3, 300.0), (4, 0.0)):
            scope.send(scope.frame(n, position_um=Position(x=x, y=0.0, z=0.0)))
        again.wait(lambda status: status["live"]["classified"] == 2)
        fovs = httpx.get(f"{again.url}/v1/series/{uid}/map.json").json()["fovs"]
    finally:
        scope.close()
    assert [fov["frame"] for fov in fovs] == [1, 2, 3, 4]
