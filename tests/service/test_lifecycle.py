"""Start and stop of a real server: it reports its state, and loses no accepted frame or stack."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

import senoscope.api.server
from support import miniature as mini
from support.image_bytes import npy
from support.raw_microscope import Microscope
from support.servers import Server, ServerThread, start_server, start_server_process
from support.slow_engine import SlowEngine

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")


def stack(fovs: int) -> bytes:
    return npy(np.stack([mini.bright()] * fovs))


class Posting(threading.Thread):
    """A thread that posts a stack."""

    def __init__(self, server: Server, fovs: int) -> None:
        super().__init__(daemon=True)
        self.answer: httpx.Response | None = None
        self._url, self._body = f"{server.url}/v1/classify", stack(fovs)
        self.start()

    def run(self) -> None:
        with contextlib.suppress(httpx.TransportError):  # a server that stops hangs up
            self.answer = httpx.post(self._url, content=self._body, timeout=120)


def test_frames_and_stacks_that_wait_are_computed_before_the_end(start: Callable[..., ServerThread]) -> None:
    server = start("--live-queue", "200", "--batch-size", "1", "--live-backlog", "500", "--drain-s", "120")
    scope, frames = Microscope(server.frames), 20
    seen = []
    with contextlib.closing(scope), connect(server.ws) as live:
        server.wait(lambda status: status["live_clients"]["connected"] >= 1)
        with SlowEngine(server).held():
            posting = Posting(server, 20)
            server.wait(lambda status: status["batch"]["waiting"] >= 18)
            for n in range(frames):
                scope.send(scope.frame(n))
            server.wait(lambda status: status["live"]["waiting"] >= frames - 1)
            server.terminate()
        with contextlib.suppress(ConnectionClosed):
            while True:
                seen.append(json.loads(live.recv(timeout=60)))
    posting.join(60)
    assert server.stop() == 0
    assert posting.answer is not None
    assert posting.answer.status_code == 200
    assert posting.answer.json()["count"] == 20
    streamed = [r["source"]["frame"] for r in seen if r["source"]["kind"] == "stream"]
    assert streamed == list(range(frames))
    assert "Traceback" not in server.log.read_text()


def test_it_reports_that_it_is_stopping_while_it_drains(start: Callable[..., ServerThread]) -> None:
    server = start("--drain-s", "120")
    with SlowEngine(server).held():
        posting = Posting(server, 20)
        server.wait(lambda status: status["batch"]["waiting"] > 10)
        server.terminate()
        until = time.monotonic() + 60
        while (answer := httpx.get(f"{server.url}/readyz")).status_code == 200:
            assert time.monotonic() < until
        assert answer.json()["reason"] == "the service is stopping"
        refused = httpx.post(f"{server.url}/v1/classify", content=stack(1), timeout=60)
        assert (refused.status_code, refused.json()["code"]) == (503, "not_ready")
    posting.join(60)
    assert server.stop() == 0
    assert posting.answer is not None
    assert posting.answer.status_code == 200


def test_a_second_signal_stops_at_once(
    miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(senoscope.api.server, "_SHUTDOWN_TIMEOUT_S", 0.2)
    server = start_server(miniature, tmp_path / "log.txt", "--drain-s", "600", "--batch-size", "1")
    engine = SlowEngine(server)
    with engine.held():
        posting = Posting(server, 20)
        server.wait(lambda status: status["batch"]["waiting"] > 10)
        server.terminate()
        server.wait_for_log("stopping")
        assert server.running
        server.terminate()
        posting.join(60)
        assert posting.answer is None or posting.answer.status_code >= 500, "nothing was computed"
    assert server.stop() == 0


def test_status_pages(server: Server) -> None:
    assert httpx.get(f"{server.url}/livez").json() == {"status": "alive"}
    assert httpx.head(f"{server.url}/readyz").status_code == 200
    assert httpx.get(f"{server.url}/readyz").json() == {"status": "ready"}
    model = httpx.get(f"{server.url}/v1/model").json()
    assert model["name"] == "miniature"
    assert model["engine"]["device"] == "cpu"
    assert [network["name"] for network in model["manifest"]["networks"]] == list(mini.NAMES)


def test_alive_but_not_ready_while_loading_and_ends_if_that_fails(
    start: Callable[..., ServerThread], miniature: Path, tmp_path: Path
) -> None:
    damaged = Path(shutil.copytree(miniature, tmp_path / "damaged"))
    (damaged / "xception.onnx").write_bytes(b"x")
    server = start(model=damaged, wait=False)
    until = time.monotonic() + 60
    while server.running:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert server.stop() == 1
    assert "xception.onnx" in server.log.read_text()
    assert "Traceback" not in server.log.read_text()


@pytest.mark.full  # of the others, one ends as this one does
def test_sigterm_ends_it_cleanly(miniature: Path, tmp_path: Path) -> None:
    server = start_server_process(miniature, tmp_path / "log.txt")
    assert server.stop() == 0
    assert "stopped" in server.log.read_text()


@contextlib.contextmanager
def hangups(action: signal.Handlers) -> Iterator[None]:
    """Set the handling of SIGHUP in processes that are started meanwhile; ``nohup`` ignores it."""
    before = signal.signal(signal.SIGHUP, action)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def test_closing_its_terminal_ends_it_cleanly(miniature: Path, tmp_path: Path) -> None:
    with hangups(signal.SIG_DFL):
        server = start_server_process(miniature, tmp_path / "log.txt")
    server.process.send_signal(signal.SIGHUP)
    assert server.process.wait(60) == 0
    log = server.log.read_text()
    assert "stopping" in log
    assert "stopped" in log


def test_with_nohup_it_continues_when_its_terminal_is_closed(miniature: Path, tmp_path: Path) -> None:
    with hangups(signal.SIG_IGN):
        server = start_server_process(miniature, tmp_path / "log.txt")
    server.process.send_signal(signal.SIGHUP)
    assert httpx.post(f"{server.url}/v1/classify", content=stack(1), timeout=60).status_code == 200
    assert server.running
    assert server.stop() == 0
    log = server.log.read_text()
    assert "stopping" in log
    assert "stopped" in log


@pytest.mark.parametrize("kind", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.full)])
def test_stopped_while_loading_it_does_not_first_become_ready(
    miniature: Path, tmp_path: Path, kind: signal.Signals
) -> None:
    server = start_server_process(miniature, tmp_path / "log.txt", wait=False)
    server.wait_for_log("loading ensemble")
    server.process.send_signal(kind)
    assert server.process.wait(60) == 0
    assert "Traceback" not in server.log.read_text()
