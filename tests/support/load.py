"""Shared parts of the endurance tests: load for a real server, and measurements of it."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
import psutil
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from support import miniature as mini
from support.image_bytes import npy
from support.servers import Server

T = TypeVar("T")


@dataclass(frozen=True)
class Endurance:
    """Whether the long form is run, and the file for its measurements."""

    long: bool
    file: Path | None
    name: str

    def scale(self, short: T, long: T) -> T:
        return long if self.long else short

    def report(self, **figures: Any) -> None:
        line = json.dumps(
            {"run": self.name, "long": self.long, "python": platform.python_version(), **figures}
        )
        print(line)
        if self.file is not None:
            with self.file.open("a") as file:
                file.write(line + "\n")


def stack(fovs: int) -> bytes:
    return npy(np.stack([mini.bright()] * fovs))


class Listener(threading.Thread):
    """Receives all live results of the stream over WebSocket."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self.results: list[dict] = []
        self._open = contextlib.ExitStack()
        self._live = self._open.enter_context(connect(server.ws, max_queue=None))
        self.start()

    def run(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            for message in self._live:
                result = json.loads(message)
                if result["source"]["kind"] == "stream":
                    self.results.append(result)

    def close(self) -> None:
        self._open.close()
        self.join()


class Poster:
    """A process that posts stacks one after the other until it is closed.

    A separate process, like real clients: in the process of the test it would delay the listeners and distort
    the measurement.

    Attributes
    ----------
    answers : list of dict
        Answers so far, with their duration and the compute time of each FOV; complete after `close`.
    """

    def __init__(self, server: Server, fovs: int, pause_s: float = 0) -> None:
        command = [sys.executable, "-m", "support.post_stacks", server.url, str(fovs), str(pause_s)]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
        # Not a pipe: a full one would block the process.
        self._output = tempfile.NamedTemporaryFile()  # noqa: SIM115 - open as long as the process
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=self._output, env=environment)

    @property
    def answers(self) -> list[dict]:
        lines = Path(self._output.name).read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def wait_for(self, status: int, timeout_s: float = 60) -> None:
        """Wait for an answer with this status."""
        end = time.monotonic() + timeout_s
        while not any(answer["status"] == status for answer in self.answers):
            assert time.monotonic() < end, f"no answer {status} in {timeout_s} s"
            time.sleep(0.1)

    def close(self) -> None:
        self._process.communicate(b"\n", timeout=660)  # after the pending answer
        assert self._process.returncode == 0


class Scan:
    """A simulated microscope in a separate process: sends the same FOVs repeatedly at a constant rate."""

    def __init__(self, server: Server, frames: int, rate_hz: float, folder: Path) -> None:
        path = folder / "scan.npy"
        path.write_bytes(stack(16))
        options = ["--endpoint", server.frames, "--frames", str(frames), "--rate", f"{rate_hz:.3f}", "--json"]
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "senoscope_client.cli",
                "publish",
                str(path),
                "--loop",
                "--json",
                *options,
            ],
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def end(self) -> dict:
        """Wait for its last frame, and return its summary."""
        output, _ = self._process.communicate(timeout=3600)
        assert self._process.returncode == 0
        return json.loads(output)


def capacity_hz(server: Server) -> float:
    """Return the FOVs per second of the whole service, measured with a posted stack."""
    fovs = 60
    began = time.perf_counter()
    httpx.post(f"{server.url}/v1/classify", content=stack(fovs), timeout=600).raise_for_status()
    return fovs / (time.perf_counter() - began)


def percentiles(values: list[float]) -> dict[str, float]:
    return {f"p{p}": round(float(np.percentile(values, p)), 2) for p in (50, 99, 100)}


def memory_mib(server: Server) -> float:
    return psutil.Process(server.process.pid).memory_info().rss / 2**20
