"""What the endurance runs share: load on a real server, and what it did to it."""

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
    """How long, and where the figures go."""

    long: bool
    report: Path | None
    name: str

    def scale(self, short: T, long: T) -> T:
        return long if self.long else short

    def tell(self, **figures: Any) -> None:
        line = json.dumps(
            {"run": self.name, "long": self.long, "python": platform.python_version(), **figures}
        )
        print(line)
        if self.report is not None:
            with self.report.open("a") as file:
                file.write(line + "\n")


def stack(fovs: int) -> bytes:
    return npy(np.stack([mini.bright()] * fovs))


class Listener(threading.Thread):
    """Takes every live result of streamed frames."""

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

    A process of its own, as other people's clients are: in the test's, it would hold up the listeners, and
    what was measured would be the test.

    Attributes
    ----------
    answers : list of dict
        What came back so far, how long it took, and compute time of each FOV; complete after `close`.
    """

    def __init__(self, server: Server, fovs: int, pause_s: float = 0) -> None:
        command = [sys.executable, "-m", "support.post_stacks", server.url, str(fovs), str(pause_s)]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
        # Not a pipe: full, it would stop the posting.
        self._told = tempfile.NamedTemporaryFile()  # noqa: SIM115 - goes with the process
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=self._told, env=environment)

    @property
    def answers(self) -> list[dict]:
        lines = Path(self._told.name).read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def wait_for(self, status: int, timeout_s: float = 60) -> None:
        """Until an answer with this status has come."""
        end = time.monotonic() + timeout_s
        while not any(answer["status"] == status for answer in self.answers):
            assert time.monotonic() < end, f"no answer {status} in {timeout_s} s"
            time.sleep(0.1)

    def close(self) -> None:
        self._process.communicate(b"\n", timeout=660)  # after the answer that is awaited
        assert self._process.returncode == 0


class Scan:
    """A simulated microscope in a process of its own: the same FOVs again and again, at a steady rate."""

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
        told, _ = self._process.communicate(timeout=3600)
        assert self._process.returncode == 0
        return json.loads(told)


def capacity_hz(server: Server) -> float:
    """FOVs per second, all of the service's work included, from posting a stack of its own."""
    fovs = 60
    began = time.perf_counter()
    httpx.post(f"{server.url}/v1/classify", content=stack(fovs), timeout=600).raise_for_status()
    return fovs / (time.perf_counter() - began)


def percentiles(values: list[float]) -> dict[str, float]:
    return {f"p{p}": round(float(np.percentile(values, p)), 2) for p in (50, 99, 100)}


def memory_mib(server: Server) -> float:
    return psutil.Process(server.process.pid).memory_info().rss / 2**20
