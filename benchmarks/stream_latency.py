"""Measure the latency from sending a frame to its result on the WebSocket, without the compute time.

Publisher, service and WebSocket client communicate over loopback; publisher and client share this process
and its clock. The measurement begins when the publisher calls ``send``; its preparation of the frame before
that is reported separately. ``senoscope bench`` measures a machine; this script is what ``compare.py`` runs
in two checkouts, also in those that do not have that command::

    python benchmarks/stream_latency.py --model starter --frames 200
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import platform
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import tifffile
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from senoscope_client.simulation.synthetic import synthesize
from senoscope_client.wire.messages import Header, ImageHeader, encode
from senoscope_client.zeromq.frame_publisher import FramePublisher

_SLOWEST_REPORTED = 5


def _start(
    model: str, device: str, port: int, endpoint: str, log: str
) -> tuple[subprocess.Popen[bytes], float]:
    began = time.perf_counter()
    service = subprocess.Popen(
        [
            *(sys.executable, "-m", "senoscope.cli", "serve", "--model", model, "--port", str(port)),
            *("--stream", endpoint, "--results", "", "--device", device, "--database-url", log),
        ],
        stderr=subprocess.DEVNULL,
    )
    while True:
        assert service.poll() is None, "the service ended; run `senoscope serve` to see why"
        try:
            if httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200:
                return service, time.perf_counter() - began
        except httpx.TransportError:
            pass
        time.sleep(0.02)


class _TimedPublisher(FramePublisher):
    """Records when ``send`` was called for each frame."""

    sent: dict[int, float]

    def _send(self, header: Header, pixels: npt.NDArray[Any] | None = None) -> None:
        parts = encode(header, pixels)
        if isinstance(header, ImageHeader):
            self.sent[header.frame] = time.perf_counter()
        self._socket.send_multipart(parts)


class Listener:
    """A WebSocket client that reads its socket in the calling thread.

    The client of the library reads in a separate thread, which adds a tenth to the measured latency.
    """

    def __init__(self, port: int) -> None:
        self._protocol = ClientProtocol(parse_uri(f"ws://127.0.0.1:{port}/v1/live"))
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.settimeout(30)
        self._protocol.send_request(self._protocol.connect())
        self._flush()
        self._frames: deque[Frame] = deque()
        self._read()

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            self._socket.sendall(data)

    def _read(self) -> float:
        data = self._socket.recv(1 << 20)
        now = time.perf_counter()
        self._protocol.receive_data(data)
        self._flush()  # answers to pings
        self._frames.extend(e for e in self._protocol.events_received() if isinstance(e, Frame))
        assert self._protocol.state is State.OPEN, "the service closed the connection"
        return now

    def next(self) -> tuple[float, dict[str, Any]]:
        """Wait for a result, and return the time of its arrival and the result."""
        now = time.perf_counter()
        while not any(frame.opcode is Opcode.TEXT for frame in self._frames):
            now = self._read()
        frame = self._frames.popleft()
        while frame.opcode is not Opcode.TEXT:
            frame = self._frames.popleft()
        return now, json.loads(frame.data)

    def close(self) -> None:
        self._socket.close()


def _post(base: str, fovs: list[npt.NDArray[np.uint16]], size: int) -> float:
    """Return the seconds from posting a TIFF of ``size`` fields of view to its answer; the best of three."""
    file = io.BytesIO()
    tifffile.imwrite(file, np.stack([fovs[n % len(fovs)] for n in range(size)]), photometric="minisblack")
    took = []
    for _ in range(3):
        start = time.perf_counter()
        answer = httpx.post(
            f"{base}/v1/classify",
            params={"axes": "PCYX"},
            content=file.getvalue(),
            headers={"Content-Type": "image/tiff"},
            timeout=600,
        )
        took.append(time.perf_counter() - start)
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["results"]) == size
    return round(min(took), 3)


def _spread(milliseconds: list[float]) -> dict[str, float]:
    points = zip((50, 95, 99, 100), np.percentile(milliseconds, [50, 95, 99, 100]), strict=True)
    return {f"p{point}": round(float(value), 3) for point, value in points}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="starter")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument(
        "--rate", type=float, default=1.5, help="FOVs per second, below the engine's capacity"
    )
    parser.add_argument("--port", type=int, default=8761)
    parser.add_argument("--endpoint", default="tcp://127.0.0.1:8762")
    parser.add_argument(
        "--stack", type=int, default=0, help="number of fields of view of a TIFF that is posted last"
    )
    parser.add_argument(
        "--run-log", help="URL of the run log, or none; default: SQLite in a temporary folder"
    )
    parser.add_argument("--result", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        _measure(arguments, arguments.run_log or f"sqlite:///{folder}/runlog.sqlite3")


def _measure(arguments: argparse.Namespace, log: str) -> None:
    fovs = [synthesize(1, n).pixels for n in range(16)]
    service, cold_start_s = _start(arguments.model, arguments.device, arguments.port, arguments.endpoint, log)
    overhead, compute, preparing, whole = [], [], [], []
    stages: dict[str, list[float]] = {"queue": [], "making the result": [], "transport both ways": []}
    try:
        with (
            _TimedPublisher(arguments.endpoint, "benchmark") as publisher,
            contextlib.closing(Listener(arguments.port)) as live,
        ):
            sent = publisher.sent = {}
            assert publisher.wait_for_subscriber(10)
            publisher.start_series("latency", planned_frames=arguments.frames)

            def scan() -> None:
                next_s = time.perf_counter()
                for n in range(arguments.frames):
                    time.sleep(max(0.0, next_s - time.perf_counter()))
                    next_s += 1 / arguments.rate
                    began = time.perf_counter()
                    publisher.publish(fovs[n % len(fovs)])
                    preparing.append((sent[n] - began) * 1e3)

            scanning = threading.Thread(target=scan)
            scanning.start()
            for _ in range(arguments.frames):
                arrived, result = live.next()
                took = (arrived - sent[result["source"]["frame"]]) * 1e3
                timing = result["timing_ms"]
                compute.append(timing["compute"])
                stages["queue"].append(timing["queue"])
                stages["making the result"].append(timing["total"] - timing["queue"] - timing["compute"])
                stages["transport both ways"].append(took - timing["total"])
                overhead.append(took - compute[-1])
                whole.append(took)
            scanning.join()
            base = f"http://127.0.0.1:{arguments.port}"
            engine = httpx.get(f"{base}/v1/model").json()["engine"]
            memory = [
                float(line.split()[-1])
                for line in httpx.get(f"{base}/metrics").text.splitlines()
                if line.startswith("senoscope_device_memory_used_bytes{")
            ]
            stack_s = _post(base, fovs, arguments.stack) if arguments.stack else None
    finally:
        service.terminate()
        service.wait()
    report = {
        "frames": arguments.frames,
        "rate_hz": arguments.rate,
        "run_log": log.partition(":")[0],
        "send_to_result_ms": _spread(whole),
        "overhead_ms": _spread(overhead),
        "compute_ms": _spread(compute),
        "slowest_ms": {
            n: round(whole[n], 3) for n in np.argsort(whole)[: -_SLOWEST_REPORTED - 1 : -1].tolist()
        },
        "of_that_p50_ms": {name: round(float(np.median(values)), 3) for name, values in stages.items()},
        "publisher_before_send_ms_p50": round(float(np.median(preparing)), 3),
        "cold_start_s": round(cold_start_s, 2),
        "engine": engine,
        "device_memory_mib": round(memory[0] / 2**20) if memory else None,
        "posted_stack": {"fovs": arguments.stack, "seconds": stack_s},
        "python": platform.python_version(),
    }
    print(json.dumps(report, indent=2))
    if arguments.result:
        arguments.result.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
