"""A real ``senoscope serve`` in a process of its own, for tests that talk to it."""

from __future__ import annotations

import contextlib
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

# Below those that systems hand out by themselves, so that no connection takes one before its server does.
_PORTS = iter(random.SystemRandom().sample(range(15000, 32000), 17000))


def free_port() -> int:
    """A port that is free now, and that no other call gets."""
    for port in _PORTS:
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no port is free")


@dataclass
class Server:
    """A running ``senoscope serve``."""

    process: subprocess.Popen
    url: str
    frames: str
    results: str
    log: Path

    @property
    def ws(self) -> str:
        return self.url.replace("http", "ws", 1) + "/v1/live"

    def stream(self) -> dict:
        return httpx.get(f"{self.url}/v1/stream").json()

    def logged(self, **query: object) -> list[dict]:
        """What the run log holds, newest first; asked again while a slow disk keeps it from answering."""
        deadline = time.monotonic() + 30
        while True:
            answer = httpx.get(f"{self.url}/v1/results", params={"limit": 1000, **query})
            if answer.status_code != 503 or time.monotonic() > deadline:
                return answer.raise_for_status().json()["results"]
            time.sleep(0.1)

    def wait(self, condition: Callable[[dict], bool], timeout_s: float = 30) -> dict:
        """The stream's status as soon as it meets a condition."""
        deadline = time.monotonic() + timeout_s
        while not condition(status := self.stream()):
            assert time.monotonic() < deadline, status
            time.sleep(0.02)
        return status


def start_server(
    model: Path, log: Path, *options: str, wait: bool = True, like: Server | None = None
) -> Server:
    """A server; ``like`` an earlier one, it takes that one's addresses."""
    if like is None:
        port, frames, results = free_port(), free_port(), free_port()
    else:
        port, frames, results = (int(url.rpartition(":")[2]) for url in (like.url, like.frames, like.results))
    server = Server(
        process=subprocess.Popen(
            [
                *(sys.executable, "-m", "senoscope.cli", "serve", "--model", str(model)),
                *("--device", "cpu", "--port", str(port), "--stream", f"tcp://127.0.0.1:{frames}"),
                *("--results", f"tcp://127.0.0.1:{results}"),
                *("--database-url", f"sqlite:///{log.with_suffix('.sqlite3')}", *options),
            ],
            stdout=subprocess.DEVNULL,
            stderr=log.open("wb"),
        ),
        url=f"http://127.0.0.1:{port}",
        frames=f"tcp://127.0.0.1:{frames}",
        results=f"tcp://127.0.0.1:{results}",
        log=log,
    )
    deadline = time.monotonic() + 60
    while wait and not is_ready(server):
        if server.process.poll() is not None or time.monotonic() > deadline:
            server.process.kill()
            raise AssertionError(log.read_text())
        time.sleep(0.05)
    return server


def is_ready(server: Server) -> bool:
    try:
        return httpx.get(f"{server.url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def stop_server(server: Server) -> int:
    server.process.terminate()
    try:
        return server.process.wait(20)
    except subprocess.TimeoutExpired:
        server.process.kill()
        server.process.wait()
        raise
