"""The start of a service's process: it serves /livez at once, and ends if the service cannot be created."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from senoscope.commands.serving import StartingApp
from support.commands import run_process
from support.servers import Server, start_server_process


class Inner:
    """An application that records its lifespan events and answers with the path of the request."""

    def __init__(self, start: str = "complete") -> None:
        self.events: list[str] = []
        self._start = start

    async def __call__(self, scope: Any, receive: Callable, send: Callable) -> None:
        if scope["type"] == "lifespan":
            self.events.append((await receive())["type"])
            await send({"type": f"lifespan.startup.{self._start}", "message": "no room"})
            if self._start == "complete":
                self.events.append((await receive())["type"])
                await send({"type": "lifespan.shutdown.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": f"inner {scope['path']}".encode()})


class Started:
    """A StartingApp, called as uvicorn calls it."""

    def __init__(self, app: StartingApp) -> None:
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")
        self.sent: list[str] = []
        self._app = app
        self._messages: asyncio.Queue[dict] = asyncio.Queue()

    async def __aenter__(self) -> Started:
        async def send(message: dict) -> None:
            self.sent.append(message["type"])

        self._running = asyncio.create_task(self._app({"type": "lifespan"}, self._messages.get, send))
        await self._messages.put({"type": "lifespan.startup"})
        while not self.sent:
            await asyncio.sleep(0)
        return self

    async def stop(self) -> None:
        await self._messages.put({"type": "lifespan.shutdown"})
        await asyncio.wait_for(self._running, 30)

    async def __aexit__(self, *_: object) -> None:
        self._running.cancel()
        await self.client.aclose()


def test_livez_is_served_at_once_and_other_requests_wait_for_the_application() -> None:
    may_make = threading.Event()
    inner = Inner()

    def make() -> Inner:
        assert may_make.wait(30)
        return inner

    async def run() -> None:
        async with Started(StartingApp(make, lambda error: pytest.fail(str(error)))) as started:
            assert started.sent == ["lifespan.startup.complete"]
            for method in ("GET", "HEAD"):
                assert (await started.client.request(method, "/livez")).status_code == 200
            assert (await started.client.get("/livez")).json() == {"status": "alive"}
            waiting = [
                asyncio.create_task(started.client.request(method, path))
                for method, path in (("GET", "/readyz"), ("POST", "/livez"), ("POST", "/v1/classify"))
            ]
            done, _ = await asyncio.wait(waiting, timeout=0.05)
            assert not done
            may_make.set()
            answers = [(await task).text for task in waiting]
            assert answers == ["inner /readyz", "inner /livez", "inner /v1/classify"]
            assert (await started.client.get("/livez")).text == "inner /livez"
            assert inner.events == ["lifespan.startup"]
            await started.stop()
            assert started.sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
            assert inner.events == ["lifespan.startup", "lifespan.shutdown"]

    asyncio.run(run())


def test_an_application_that_is_stopped_while_it_is_created_is_started_and_stopped() -> None:
    may_make = threading.Event()
    inner = Inner()

    def make() -> Inner:
        assert may_make.wait(30)
        return inner

    async def run() -> None:
        async with Started(StartingApp(make, lambda error: pytest.fail(str(error)))) as started:
            stopping = asyncio.create_task(started.stop())
            await asyncio.sleep(0)
            may_make.set()
            await stopping
            assert started.sent[-1] == "lifespan.shutdown.complete"
            assert inner.events == ["lifespan.startup", "lifespan.shutdown"]

    asyncio.run(run())


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: 1 / 0, "division by zero"),
        (lambda: Inner("failed"), "no room"),
    ],
)
def test_an_application_that_cannot_be_created_or_started_is_a_failure(make: Callable, reason: str) -> None:
    failures: list[Exception] = []

    async def run() -> None:
        async with Started(StartingApp(make, failures.append)) as started:
            answer = await asyncio.wait_for(started.client.get("/readyz"), 30)
            assert (answer.status_code, answer.json()["status"]) == (503, "not_ready")
            await started.stop()

    asyncio.run(run())
    (failure,) = failures
    assert reason in str(failure)


def test_an_error_of_creating_the_service_is_reported_in_one_line(miniature: Path) -> None:
    done = run_process(
        *("senoscope", "serve", "--model", miniature, "--port", 0, "--stream", "", "--results", ""),
        *("--database-url", "postgresql://localhost:none/log"),
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("senoscope: --database-url: ")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_service_stopped_while_it_starts_exits_with_0(miniature: Path, tmp_path: Path) -> None:
    server = start_server_process(miniature, tmp_path / "log.txt", wait=False)
    try:
        while not is_alive(server):
            assert server.running, server.log.read_text()
            time.sleep(0.01)
        server.terminate()
        assert server.process.wait(90) == 0
    finally:
        server.kill()
    assert "Traceback" not in server.log.read_text()


def is_alive(server: Server) -> bool:
    try:
        return httpx.get(f"{server.url}/livez", timeout=60).status_code == 200
    except httpx.TransportError:
        return False


def test_the_process_is_set_up_for_the_service() -> None:
    """``serve`` sets the process-wide state that a `Service` does not touch."""
    program = (
        "import gc, logging, sys; from senoscope.commands import process; "
        "process.set_up_process('json'); assert not gc.isenabled(); "
        "process.collect_garbage(); assert not gc.isenabled(); process.keep_loaded_objects(); "
        "assert gc.isenabled() and gc.get_freeze_count() > 0; assert sys.getswitchinterval() < 0.001; "
        "assert logging.getLogger('opentelemetry').level == logging.CRITICAL; "
        "logging.getLogger('any').warning('a line')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith('{"event": "a line"')
