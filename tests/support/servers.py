"""Real services for tests: in the test's process, or as ``senoscope serve``.

`start_server` runs the service in a thread of the test's process, with real sockets; it is ready some tenths
of a second later. Tests of processes, signals, memory, or of the command's output use `start_server_process`.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import httpx
import structlog
import typer
import typer.main

from senoscope.access.exposure import check_exposure
from senoscope.commands.serving import ServiceServer
from senoscope.service import Service
from senoscope.settings import Settings, settings_command
from support.server_logs import ServerLog

# Below the ephemeral ports of systems, so that no connection takes one before its server does.
_FIRST_PORT, _LAST_PORT = 15000, 32000
_TIMEOUT_S = 120
_log = structlog.get_logger(__name__)


def _ports() -> Iterator[int]:
    """Return ports in random order, from a range that no other worker of this test run uses."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    share = (_LAST_PORT - _FIRST_PORT) // workers
    first = _FIRST_PORT + worker % workers * share
    return iter(random.SystemRandom().sample(range(first, first + share), share))


_PORTS = _ports()


def free_port() -> int:
    """Return a port that is free, and that no other call returns."""
    for port in _PORTS:
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no port is free")


class Addresses(NamedTuple):
    """The addresses of a service."""

    url: str
    frames: str
    results: str


def free_addresses() -> Addresses:
    """Return addresses that are free, and that no other call returns."""
    port, frames, results = free_port(), free_port(), free_port()
    return Addresses(f"http://127.0.0.1:{port}", f"tcp://127.0.0.1:{frames}", f"tcp://127.0.0.1:{results}")


@dataclass
class Server(ABC):
    """A running service.

    Attributes
    ----------
    url : str
        Of HTTP, without a slash at the end.
    frames : str
        ZeroMQ endpoint that the service subscribes to.
    results : str
        ZeroMQ endpoint that it publishes results at.
    log : Path
        File of its log lines.
    """

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
        """Return the results in the run log, newest first; repeated while a slow disk delays the answer."""
        deadline = time.monotonic() + 90
        while True:
            answer = httpx.get(f"{self.url}/v1/results", params={"limit": 1000, **query})
            if answer.status_code != 503 or time.monotonic() > deadline:
                return answer.raise_for_status().json()["results"]
            time.sleep(0.1)

    def wait(self, condition: Callable[[dict], bool], timeout_s: float = 60) -> dict:
        """Return the status of the stream as soon as it meets a condition."""
        deadline = time.monotonic() + timeout_s
        while not condition(status := self.stream()):
            assert time.monotonic() < deadline, status
            time.sleep(0.01)
        return status

    def wait_for_log(self, text: str, timeout_s: float = 60) -> str:
        """Return the whole log as soon as it contains a text."""
        deadline = time.monotonic() + timeout_s
        while text not in (log := self.log.read_text(encoding="utf-8")):
            assert time.monotonic() < deadline, log
            time.sleep(0.01)
        return log

    @abstractmethod
    def terminate(self) -> None:
        """Send SIGTERM, and return at once."""

    @property
    @abstractmethod
    def running(self) -> bool:
        """Whether the server runs."""

    @abstractmethod
    def stop(self) -> int:
        """Stop as after SIGTERM, and return the exit status of the command."""


@dataclass
class ServerProcess(Server):
    """A running ``senoscope serve``."""

    process: subprocess.Popen

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def terminate(self) -> None:
        self.process.terminate()

    def stop(self) -> int:
        self.terminate()
        try:
            return self.process.wait(_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        """Kill the process, as the system does when memory is exhausted, and wait for its end."""
        self.process.kill()
        self.process.wait()


@dataclass
class ServerThread(Server):
    """A service in this process: what ``senoscope serve`` runs, without its changes of the process.

    Attributes
    ----------
    settings : Settings
    listener : socket.socket
        What HTTP is listened to with; connections inherit its options.
    """

    settings: Settings

    def __post_init__(self) -> None:
        warnings = check_exposure(self.settings, self.settings.host)
        self._lines = ServerLog(self.log, self.settings.log_format)
        try:
            self.listener = socket.create_server((self.settings.host, self.settings.port), backlog=2048)
            self._server = ServiceServer(self.settings, lambda: None)
        except BaseException:
            self._lines.close()
            raise
        for warning in warnings:
            _log.warning(warning.event, **warning.facts)
        self._thread = threading.Thread(
            target=self._server.run, args=([self.listener],), name=f"server at {self.url}", daemon=True
        )
        self._thread.start()

    @property
    def service(self) -> Service:
        """The service, for tests that access its parts; only once it is ready."""
        assert self._server.service is not None
        return self._server.service

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def terminate(self) -> None:
        """Request a stop as SIGTERM does, and return at once."""
        self._server.handle_exit(signal.SIGTERM, None)

    def stop(self) -> int:
        if self.running:
            self.terminate()
            self._thread.join(_TIMEOUT_S)
            assert not self.running, "the server's thread did not end"
        self.listener.close()
        service = self._server.service
        deadline = time.monotonic() + _TIMEOUT_S
        while service is not None and service.loading:  # a process would exit at once
            assert time.monotonic() < deadline, "the service still loads its ensemble"
            time.sleep(0.01)
        self._lines.close()
        return 1 if self._server.failure is not None or (service is not None and service.failed) else 0


def _arguments(model: Path, log: Path, options: tuple[str, ...], addresses: Addresses) -> list[str]:
    """Return the options of ``senoscope serve``."""
    port = addresses.url.rpartition(":")[2]
    arguments = ["--model", str(model), "--device", "cpu", "--port", port]
    arguments += ["--stream", addresses.frames, "--results", addresses.results]
    return [*arguments, "--database-url", f"sqlite:///{log.with_suffix('.sqlite3')}", *options]


def _addresses(like: Server | Addresses | None) -> Addresses:
    return free_addresses() if like is None else Addresses(like.url, like.frames, like.results)


def parse_settings(arguments: list[str]) -> Settings:
    """Return the settings that ``senoscope serve`` reads from its arguments and the environment."""
    found: list[Settings] = []

    def serve(settings: Settings) -> None:
        """Keep the parsed settings."""
        found.append(settings)

    command = typer.Typer(add_completion=False)
    command.command()(settings_command(serve))
    typer.main.get_command(command).main(arguments, standalone_mode=False)
    return found[0]


def start_server(
    model: Path, log: Path, *options: str, wait: bool = True, like: Server | Addresses | None = None
) -> ServerThread:
    """Start a service in this process, at the addresses of the earlier one ``like``, if given."""
    addresses = _addresses(like)
    settings = parse_settings(_arguments(model, log, options, addresses))
    server = ServerThread(*addresses, log, settings)
    if wait:
        wait_until_ready(server)
    return server


def start_server_process(
    model: Path, log: Path, *options: str, wait: bool = True, like: Server | Addresses | None = None
) -> ServerProcess:
    """Start a service as a separate process."""
    addresses = _addresses(like)
    arguments = _arguments(model, log, options, addresses)
    with log.open("wb") as lines:
        process = subprocess.Popen(
            [sys.executable, "-m", "senoscope.cli", "serve", *arguments],
            stdout=subprocess.DEVNULL,
            stderr=lines,
        )
    server = ServerProcess(*addresses, log, process)
    if wait:
        wait_until_ready(server)
    return server


def wait_until_ready(server: Server) -> None:
    """Wait until a server is ready; one that does not become ready is stopped."""
    deadline = time.monotonic() + _TIMEOUT_S
    while not is_ready(server):
        if not server.running or time.monotonic() > deadline:
            with contextlib.suppress(Exception):
                server.stop()
            raise AssertionError(server.log.read_text())
        time.sleep(0.01)


def is_ready(server: Server) -> bool:
    try:
        return httpx.get(f"{server.url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def stop_server(server: Server) -> int:
    """Stop a server, and return the exit status of the command."""
    return server.stop()
