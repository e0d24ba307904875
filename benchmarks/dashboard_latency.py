"""Measure the time from a result's publication to its picture on the dashboard, in Chromium on this machine.

The miniature ensemble of the tests needs almost no time. A result counts as published when a ZeroMQ
subscriber receives it, and as shown when the browser begins the frame after the one that draws it. The time
since the result was created, from its id, is reported too::

    python benchmarks/dashboard_latency.py --frames 300 --rate 10
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import zmq

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from senoscope_client.simulation.synthetic import synthesize
from senoscope_client.wire.messages import Position
from senoscope_client.zeromq.frame_publisher import FramePublisher
from support import miniature
from support.dashboard_page import chromium, sit_down
from support.servers import start_server, stop_server

# Reported one by one, not collected in the page.
_REPORT_PICTURES = """() => document.addEventListener("senoscope:painted", ({ detail }) =>
    window.painted(detail, performance.timeOrigin + performance.now()))"""


class _Subscriber(threading.Thread):
    """Records when each result was published, in milliseconds since the epoch."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(daemon=True)
        self.published_ms: dict[str, float] = {}
        self._socket = zmq.Context.instance().socket(zmq.SUB)
        self._socket.setsockopt(zmq.SUBSCRIBE, b"")
        self._socket.connect(endpoint)

    def run(self) -> None:
        while True:
            parts = self._socket.recv_multipart()
            now_ms = time.time() * 1e3
            for part in parts:
                if part.startswith(b"{") and (identifier := json.loads(part).get("id")):
                    self.published_ms[identifier] = now_ms


def created_ms(identifier: str) -> float:
    """Return the time of a result, from its id (UUID version 7 with 1/4096 ms)."""
    digits = identifier.replace("-", "")
    return int(digits[:12], 16) + int(digits[13:16], 16) / 4096


def measure(frames: int, rate_hz: float, folder: Path) -> dict[str, Any]:
    server = start_server(miniature.build(folder / "miniature"), folder / "log.txt")
    painted_ms: dict[str, float] = {}

    def record(identifier: str, at_ms: float) -> None:
        painted_ms[identifier] = at_ms

    subscriber = _Subscriber(server.results)
    subscriber.start()
    pixels = [synthesize(7, n).pixels for n in range(12)]
    try:
        with chromium() as browser, FramePublisher(server.frames, "nlo-1") as publisher:
            seat = sit_down(browser, server.url)
            seat.page.expose_function("painted", record)
            seat.page.evaluate(_REPORT_PICTURES)
            assert publisher.wait_for_subscriber(10)
            publisher.start_series("latency", planned_frames=frames)
            next_s = time.perf_counter()
            for n in range(frames):
                row, column = divmod(n, 20)
                place = Position(x=94.5 * column, y=78.75 * row, z=0.0)
                publisher.publish(pixels[n % len(pixels)], position_um=place)
                next_s += 1 / rate_hz
                seat.page.wait_for_timeout(max(0.0, next_s - time.perf_counter()) * 1e3)
            seat.page.wait_for_timeout(1500)
            seen, version = seat.seen(), browser.version
    finally:
        stop_server(server)
    from_publication = [at - subscriber.published_ms[which] for which, at in painted_ms.items()]
    from_making = [at - created_ms(which) for which, at in painted_ms.items()]
    return {
        "frames": frames,
        "rate_hz": rate_hz,
        "results_on_the_page": seen,
        "pictures": len(painted_ms),
        "publication_to_picture_ms": _percentiles(from_publication),
        "making_to_picture_ms": _percentiles(from_making),
        "share_of_the_interval_p95": round(float(np.percentile(from_publication, 95)) * rate_hz / 1e3, 3),
        "browser": f"Chromium {version}, headless, no GPU",
        "machine": f"{os.cpu_count()} cores, Python {platform.python_version()}",
    }


def _percentiles(values: list[float]) -> dict[str, float]:
    return {f"p{p}": round(float(np.percentile(values, p)), 1) for p in (50, 95, 99, 100)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--rate", type=float, default=10.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(options.frames, options.rate, Path(folder))
    (Path(__file__).parent / "results" / "dashboard_latency.json").write_text(
        json.dumps(result, indent=2) + "\n"
    )
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
