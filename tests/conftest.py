"""Fixtures shared by all tests: a miniature ensemble, a real server on it, and the seven real networks."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

import miniature as mini

ROOT = Path(__file__).parents[1]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests whose system program is absent, or fail them where all tests must run."""
    for mark in item.iter_markers("system"):
        (program,) = mark.args
        if shutil.which(program) is None:
            if os.environ.get("SENOSCOPE_TEST_ALL") == "1":
                pytest.fail(f"needs the program {program}, and SENOSCOPE_TEST_ALL=1 forbids to skip")
            pytest.skip(f"needs the program {program}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


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

    def wait(self, condition: Callable[[dict], bool], timeout_s: float = 10) -> dict:
        """The stream's status as soon as it meets a condition."""
        deadline = time.monotonic() + timeout_s
        while not condition(status := self.stream()):
            assert time.monotonic() < deadline, status
            time.sleep(0.02)
        return status


def start_server(model: Path, log: Path, *options: str, wait: bool = True) -> Server:
    port, frames, results = free_port(), free_port(), free_port()
    server = Server(
        process=subprocess.Popen(
            [
                *(sys.executable, "-m", "senoscope.cli", "serve", "--model", str(model)),
                *("--device", "cpu", "--port", str(port), "--stream", f"tcp://127.0.0.1:{frames}"),
                *("--results", f"tcp://127.0.0.1:{results}", *options),
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
    while wait:
        assert server.process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        try:
            if httpx.get(f"{server.url}/readyz").status_code == 200:
                break
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    return server


def stop_server(server: Server) -> int:
    server.process.terminate()
    try:
        return server.process.wait(20)
    except subprocess.TimeoutExpired:
        server.process.kill()
        server.process.wait()
        raise


@pytest.fixture(scope="session")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a miniature ensemble."""
    return mini.build(tmp_path_factory.mktemp("models") / "miniature")


@pytest.fixture(scope="module")
def server(miniature: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on the miniature ensemble, shared by the tests of one module."""
    running = start_server(miniature, tmp_path_factory.mktemp("server") / "log.txt")
    yield running
    if running.process.poll() is None:
        stop_server(running)


@pytest.fixture(scope="session")
def starter_ensemble(request: pytest.FixtureRequest) -> Path:
    """Folder of the starter ensemble with the seven real networks; Keras' weights lie in ``../keras``.

    Made once for each state of the code that makes it, then cached.
    """
    from senoscope_training.digest import export_code_digest

    cache = Path(os.environ.get("SENOSCOPE_TEST_CACHE", ROOT / ".cache" / "tests"))
    home = cache / export_code_digest()[:16]
    if not (home / "starter" / "ensemble.json").is_file():
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        capture = request.config.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled():
            print("\nmaking the seven networks once for the tests; this takes some minutes", flush=True)
            subprocess.run(
                [
                    *(sys.executable, "-m", "senoscope_training.cli", "starter", "--weights", "random"),
                    *("--models-dir", str(home), "--keep-keras", str(home / "keras")),
                ],
                check=True,
            )
    return home / "starter"
