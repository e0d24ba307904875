"""What the endurance runs share: load on a real server, and what it did to it."""

from __future__ import annotations

import contextlib
import io
import json
import platform
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

import miniature as mini
from misbehaving import Microscope
from serving import Server

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
    buffer = io.BytesIO()
    np.save(buffer, np.stack([mini.bright()] * fovs))
    return buffer.getvalue()


class Listener(threading.Thread):
    """Takes every live result of streamed frames."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self.results: list[dict] = []
        self._live = connect(server.ws, max_queue=None)
        self.start()

    def run(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            for message in self._live:
                result = json.loads(message)
                if result["source"]["kind"] == "stream":
                    self.results.append(result)

    def close(self) -> None:
        self._live.close()
        self.join()


class Poster(threading.Thread):
    """Posts stacks back to back until told to stop."""

    def __init__(self, server: Server, fovs: int) -> None:
        super().__init__(daemon=True)
        self.answers: list[httpx.Response] = []
        self.seconds: list[float] = []
        self._server, self._fovs, self._body = server, fovs, stack(fovs)
        self._ended = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._ended.is_set():
            began = time.perf_counter()
            answer = httpx.post(f"{self._server.url}/v1/classify", content=self._body, timeout=600)
            self.seconds.append(time.perf_counter() - began)
            self.answers.append(answer)

    def close(self) -> None:
        self._ended.set()
        self.join()


def scan(scope: Microscope, frames: int, rate_hz: float) -> None:
    pixels = mini.bright()
    began = time.perf_counter()
    for n in range(frames):
        time.sleep(max(0.0, began + n / rate_hz - time.perf_counter()))
        scope.send(scope.frame(n, pixels))


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
