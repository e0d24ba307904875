"""Child processes of a command: a service, a simulated microscope."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

from senoscope_client.errors import NotReady

if TYPE_CHECKING:
    from senoscope_client.http.client import Client

_READY_TIMEOUT_S = 120.0
# Exit statuses of a process that a signal ended; on Windows that of a terminated process.
_KILLED = {1} if sys.platform == "win32" else {-signal.SIGTERM, -signal.SIGINT}


class ChildProcess(subprocess.Popen[bytes]):
    """A child process that may be terminated before it handles SIGTERM."""

    _end_requested = False

    def request_end(self) -> None:
        """Send SIGTERM; returns at once."""
        self._end_requested = True
        self.terminate()

    @property
    def killed(self) -> bool:
        """Whether the requested SIGTERM ended it because it did not handle the signal."""
        return self._end_requested and self.poll() in _KILLED

    @property
    def failed(self) -> bool:
        """Whether it ended with an error."""
        return self.poll() not in {None, 0} and not self.killed


@contextmanager
def child_process(
    name: str,
    module: str,
    arguments: list[str],
    environment: Mapping[str, str],
    output: BinaryIO | None = None,
) -> Iterator[ChildProcess]:
    """Run a Python module as a child process within the block; print what it logs only if it fails.

    Parameters
    ----------
    name : str
        For messages.
    module : str
        Run as ``python -m``.
    arguments : list of str
    environment : mapping of str to str
        All of its variables.
    output : binary file, optional
        Receives its standard output; default: as what it logs.
    """
    with tempfile.TemporaryFile() as log, ExitStack() as on_exit:
        # A process group of its own: Ctrl-C must reach only the command, which ends its children in order.
        group: dict[str, Any] = {"start_new_session": True}
        if sys.platform == "win32":
            group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        command = [sys.executable, "-m", module, *arguments]
        with _signals_deferred():  # a signal while the process is created would leave it running
            process = ChildProcess(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output or log,
                stderr=log,
                env=dict(environment),
                **group,
            )
            on_exit.callback(_end, process, name, log)
        yield process


@contextmanager
def _signals_deferred() -> Iterator[None]:
    """Deliver SIGINT and SIGTERM after the block; only the main thread receives any."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, _: received.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for received_number in received[:1]:
            signal.raise_signal(received_number)


def _end(process: ChildProcess, name: str, log: BinaryIO) -> None:
    failed = process.failed  # before it is ended here
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if failed:
        log.seek(0)
        tail = log.read().decode(errors="replace").splitlines()[-20:]
        print(f"--- last lines of the {name} ---", *tail, sep="\n", file=sys.stderr)  # noqa: T201


def find_port(wanted: int) -> int:
    """Return ``wanted`` if it is free, or a free port for 0. Called before anything that takes long.

    Raises
    ------
    OSError
        If the port is in use.
    """
    with socket.socket() as probe:
        if os.name == "posix":  # allows a port whose earlier connections are still closing
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError as error:
            raise OSError(f"port {wanted} is in use; choose another with --port") from error
        return int(probe.getsockname()[1])


def wait_ready(client: Client, service: subprocess.Popen[bytes]) -> None:
    """Wait until a service is ready.

    Raises
    ------
    NotReady
        If it ended, or is not ready after two minutes.
    """
    from senoscope_client.errors import Unreachable

    deadline_s = time.monotonic() + _READY_TIMEOUT_S
    while service.poll() is None and time.monotonic() < deadline_s:
        try:
            if client.ready().ready:
                return
        except Unreachable:
            pass  # not listening yet
        time.sleep(0.1)
    raise NotReady("the service did not become ready")
