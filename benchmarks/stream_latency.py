"""From a frame's ``send`` on the publisher to its result on the WebSocket, less the engine's compute time.

Publisher, service and WebSocket client are three parties on the loopback; publisher and client share this
process and so one clock::

    python benchmarks/stream_latency.py --model starter --frames 200
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import numpy as np
from websockets.sync.client import connect

from senoscope_client.publisher import FramePublisher
from senoscope_client.synthetic import synthesize


def _start(model: str, port: int, endpoint: str) -> tuple[subprocess.Popen[bytes], float]:
    began = time.perf_counter()
    service = subprocess.Popen(
        [
            *(sys.executable, "-m", "senoscope.cli", "serve", "--model", model, "--port", str(port)),
            *("--stream", endpoint, "--results", "", "--device", "cpu"),
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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="starter")
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument(
        "--rate", type=float, default=1.5, help="FOVs per second, below the engine's capacity"
    )
    parser.add_argument("--port", type=int, default=8761)
    parser.add_argument("--endpoint", default="tcp://127.0.0.1:8762")
    parser.add_argument("--result", type=Path)
    arguments = parser.parse_args()
    fovs = [synthesize(1, n).pixels for n in range(16)]
    service, cold_start_s = _start(arguments.model, arguments.port, arguments.endpoint)
    sent: dict[int, float] = {}
    overhead, compute = [], []
    stages: dict[str, list[float]] = {"queue": [], "making the result": [], "transport both ways": []}
    try:
        with (
            FramePublisher(arguments.endpoint, "benchmark") as publisher,
            connect(f"ws://127.0.0.1:{arguments.port}/v1/live", compression=None) as live,
        ):
            assert publisher.wait_for_subscriber(10)
            publisher.start_series("latency", planned_frames=arguments.frames)

            def scan() -> None:
                next_s = time.perf_counter()
                for n in range(arguments.frames):
                    time.sleep(max(0.0, next_s - time.perf_counter()))
                    next_s += 1 / arguments.rate
                    sent[n] = time.perf_counter()
                    publisher.publish(fovs[n % len(fovs)])

            scanning = threading.Thread(target=scan)
            scanning.start()
            for _ in range(arguments.frames):
                result = json.loads(live.recv(timeout=30))
                arrived = time.perf_counter()
                took = (arrived - sent[result["source"]["frame"]]) * 1e3
                timing = result["timing_ms"]
                compute.append(timing["compute"])
                stages["queue"].append(timing["queue"])
                stages["making the result"].append(timing["total"] - timing["queue"] - timing["compute"])
                stages["transport both ways"].append(took - timing["total"])
                overhead.append(took - compute[-1])
            scanning.join()
    finally:
        service.terminate()
        service.wait()
    p50, p95, p99 = np.percentile(overhead, [50, 95, 99])
    report = {
        "frames": arguments.frames,
        "rate_hz": arguments.rate,
        "overhead_ms": {"p50": round(p50, 3), "p95": round(p95, 3), "p99": round(p99, 3)},
        "of_that_p50_ms": {name: round(float(np.median(values)), 3) for name, values in stages.items()},
        "compute_ms_p50": round(float(np.median(compute)), 2),
        "cold_start_s": round(cold_start_s, 2),
        "python": platform.python_version(),
    }
    print(json.dumps(report, indent=2))
    if arguments.result:
        arguments.result.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
