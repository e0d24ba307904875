"""Starting and stopping a real server: it says how far it is, and nothing that was taken is lost."""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from support import miniature as mini
from support.raw_microscope import Microscope
from support.servers import ServerProcess, start_server_process, stop_server

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows knows no SIGTERM")


@pytest.fixture
def server(miniature: Path, tmp_path: Path) -> Iterator[ServerProcess]:
    running = start_server_process(
        miniature,
        tmp_path / "log.txt",
        *("--live-queue", "200", "--batch-size", "1", "--live-backlog", "500", "--drain-s", "60"),
    )
    yield running
    running.kill()


def stack(fovs: int) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.stack([mini.bright()] * fovs))
    return buffer.getvalue()


def test_frames_and_stacks_that_wait_are_computed_before_the_end(server: ServerProcess) -> None:
    answers: list[httpx.Response] = []
    posting = threading.Thread(
        target=lambda: answers.append(httpx.post(f"{server.url}/v1/classify", content=stack(200), timeout=60))
    )
    scope, frames = Microscope(server.frames), 100
    try:
        with connect(server.ws) as live:
            server.wait(lambda status: status["live_clients"]["connected"] >= 1)
            posting.start()
            server.wait(lambda status: status["batch"]["waiting"] > 0)
            for n in range(frames):
                scope.send(scope.frame(n))
            server.wait(lambda status: status["receiver"]["messages"].get("image") == frames)
            server.process.send_signal(signal.SIGTERM)
            seen = []
            while True:
                try:
                    seen.append(json.loads(live.recv(timeout=60)))
                except ConnectionClosed:
                    break
        posting.join(60)
    finally:
        scope.close()
    assert server.process.wait(20) == 0
    assert answers[0].status_code == 200
    assert answers[0].json()["count"] == 200
    streamed = [r["source"]["frame"] for r in seen if r["source"]["kind"] == "stream"]
    assert streamed == list(range(frames))
    assert "Traceback" not in server.log.read_text()


def test_it_says_that_it_is_stopping_while_it_drains(server: ServerProcess) -> None:
    posting = threading.Thread(
        target=lambda: httpx.post(f"{server.url}/v1/classify", content=stack(400), timeout=60)
    )
    posting.start()
    server.wait(lambda status: status["batch"]["waiting"] > 100)
    server.process.send_signal(signal.SIGTERM)
    until = time.monotonic() + 10
    while (answer := httpx.get(f"{server.url}/readyz")).status_code == 200:
        assert time.monotonic() < until
    assert answer.json()["reason"] == "the service is stopping"
    refused = httpx.post(f"{server.url}/v1/classify", content=stack(1), timeout=60)
    assert (refused.status_code, refused.json()["code"]) == (503, "not_ready")
    posting.join(60)
    assert server.process.wait(20) == 0


def test_a_second_signal_stops_at_once(miniature: Path, tmp_path: Path) -> None:
    server = start_server_process(miniature, tmp_path / "log.txt", "--drain-s", "600", "--batch-size", "1")
    posting = subprocess.Popen(
        [
            *(sys.executable, "-c"),
            "import httpx, sys\nbody = sys.stdin.buffer.read()\n"
            f"for _ in range(2): httpx.post('{server.url}/v1/classify', content=body, timeout=60)",
        ],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert posting.stdin is not None
    posting.stdin.write(stack(500))
    posting.stdin.close()
    server.wait(lambda status: status["batch"]["waiting"] > 200)
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(10) == 0
    posting.kill()
    posting.wait()


def test_status_pages(server: ServerProcess) -> None:
    assert httpx.get(f"{server.url}/livez").json() == {"status": "alive"}
    assert httpx.head(f"{server.url}/readyz").status_code == 200
    assert httpx.get(f"{server.url}/readyz").json() == {"status": "ready"}
    model = httpx.get(f"{server.url}/v1/model").json()
    assert model["name"] == "miniature"
    assert model["engine"]["device"] == "cpu"
    assert [network["name"] for network in model["manifest"]["networks"]] == list(mini.NAMES)


def test_alive_but_not_ready_while_loading_then_gone_if_that_fails(miniature: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(miniature, tmp_path / "damaged"))
    (damaged / "xception.onnx").write_bytes(b"x")
    server = start_server_process(damaged, tmp_path / "log.txt", wait=False)
    assert server.process.wait(30) == 1
    assert "xception.onnx" in server.log.read_text()
    assert "Traceback" not in server.log.read_text()


def test_sigterm_ends_it_cleanly(miniature: Path, tmp_path: Path) -> None:
    server = start_server_process(miniature, tmp_path / "log.txt")
    time.sleep(0.2)
    assert stop_server(server) == 0
    assert "stopped" in server.log.read_text()


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_stopped_while_loading_it_does_not_first_become_ready(
    miniature: Path, tmp_path: Path, kind: signal.Signals
) -> None:
    server = start_server_process(miniature, tmp_path / "log.txt", wait=False)
    while "loading ensemble" not in server.log.read_text():
        assert server.process.poll() is None
        time.sleep(0.005)
    server.process.send_signal(kind)
    assert server.process.wait(20) == 0
    assert "Traceback" not in server.log.read_text()
