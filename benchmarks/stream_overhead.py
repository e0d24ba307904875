"""Compare the overhead of a streamed frame in two checkouts of this repository, paired in one run.

A service of each checkout runs with a miniature ensemble and its run log in SQLite, a frame publisher of
the same checkout in a process of its own, and a WebSocket client in this process, which is the same for
both. They take turns in rounds of equal length, so that other load of the machine affects both::

    git worktree add ../before COMMIT
    python benchmarks/stream_overhead.py --before ../before

The overhead of a frame is the time from the call of ``FramePublisher.publish``, or from the moment at which
it gives the encoded message to ZeroMQ, to the arrival of the result at the client, without the time that the
engine took. All processes read the same clock (``time.perf_counter`` on Linux). Each frame must have exactly
one result, in order, and that result must be in the run log.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
from stream_latency import Listener

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support import miniature

_STEPS: Final = ("from_publish", "from_send", "engine", "queue", "making_the_result", "transport_and_commit")


def publish_on_request(endpoint: str) -> None:
    """Publish a series of as many frames as each line of the input says, and print when they were sent."""
    from senoscope_client.simulation.synthetic import synthesize
    from senoscope_client.zeromq import frame_publisher

    encode, sent_s = frame_publisher.encode, []

    def timed_encode(*arguments: Any) -> Any:
        parts = encode(*arguments)
        sent_s.append(time.perf_counter())
        return parts

    frame_publisher.encode = timed_encode
    fovs = [synthesize(1, n).pixels for n in range(16)]
    with frame_publisher.FramePublisher(endpoint, "benchmark") as publisher:
        assert publisher.wait_for_subscriber(20)
        print("ready", flush=True)
        for line in sys.stdin:
            frames, rate_hz = json.loads(line)
            uid = publisher.start_series("overhead", planned_frames=frames)
            times, next_s = [], time.perf_counter()
            for n in range(frames):
                next_s += 1 / rate_hz
                time.sleep(max(0.0, next_s - time.perf_counter()))
                called_s = time.perf_counter()
                publisher.publish(fovs[n % len(fovs)])
                # A heartbeat may follow at once; the first message since the call is the frame.
                times.append((called_s, next(sent for sent in sent_s if sent >= called_s)))
                sent_s.clear()
            publisher.end_series()
            print(json.dumps({"series_uid": str(uid), "times": times}), flush=True)


@dataclass
class _Checkout:
    """The service, publisher and client of one checkout, and what was measured with them."""

    name: str
    service: subprocess.Popen[bytes]
    publisher: subprocess.Popen[str]
    client: Listener
    log: Path
    milliseconds: dict[str, list[float]] = field(default_factory=lambda: {step: [] for step in _STEPS})
    results: int = 0

    def measure(self, frames: int, rate_hz: float, *, discard: bool = False) -> None:
        """Publish a series, and record the times of its frames."""
        assert self.publisher.stdin is not None
        assert self.publisher.stdout is not None
        print(json.dumps([frames, rate_hz]), file=self.publisher.stdin, flush=True)
        arrived = [self.client.next() for _ in range(frames)]
        sent = json.loads(self.publisher.stdout.readline())
        self.results += frames
        for n, ((arrived_s, result), (called_s, sent_s)) in enumerate(
            zip(arrived, sent["times"], strict=True)
        ):
            source, timing = result["source"], result["timing_ms"]
            assert (source["series_uid"], source["frame"]) == (sent["series_uid"], n), "a result is missing"
            assert not any(flag["code"] == "not_logged" for flag in result["flags"])
            if discard:
                continue
            from_send = (arrived_s - sent_s) * 1e3
            values = (
                (arrived_s - called_s) * 1e3 - timing["compute"],
                from_send - timing["compute"],
                timing["compute"],
                timing["queue"],
                timing["total"] - timing["queue"] - timing["compute"],
                from_send - timing["total"],
            )
            for step, value in zip(_STEPS, values, strict=True):
                self.milliseconds[step].append(value)

    def require_logged(self) -> None:
        """Check that the run log holds each result that arrived, and no other."""
        with contextlib.closing(sqlite3.connect(self.log)) as connection:
            (logged,) = connection.execute("SELECT count(*) FROM results").fetchone()
        assert logged == self.results, f"{self.results} results arrived, {logged} are in the run log"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@contextlib.contextmanager
def _running(name: str, checkout: Path, folder: Path) -> Iterator[_Checkout]:
    port, endpoint = _free_port(), f"tcp://127.0.0.1:{_free_port()}"
    log = folder / f"{name}.sqlite3"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(checkout / one) for one in ("service", "clients")),
    }
    command = [
        *(sys.executable, "-m", "senoscope.cli", "serve", "--model", str(folder / "miniature")),
        *("--port", str(port), "--stream", endpoint, "--results", "", "--device", "cpu"),
        *("--database-url", f"sqlite:///{log}"),
    ]
    with contextlib.ExitStack() as stack:
        service = subprocess.Popen(command, env=environment, cwd=folder, stderr=subprocess.DEVNULL)
        stack.callback(service.wait)
        stack.callback(service.terminate)
        while not _is_ready(port):
            assert service.poll() is None, f"the service of {checkout} ended; run it to see why"
            time.sleep(0.05)
        publisher = subprocess.Popen(
            [sys.executable, __file__, "--publish", endpoint],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        stack.callback(publisher.wait)
        stack.callback(publisher.terminate)
        client = stack.enter_context(contextlib.closing(Listener(port)))
        assert publisher.stdout is not None
        assert publisher.stdout.readline().strip() == "ready"
        yield _Checkout(name, service, publisher, client, log)


def _is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def _commit_of(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _spread(milliseconds: list[float]) -> dict[str, float]:
    points = (50, 95, 99, 100)
    values = np.percentile(milliseconds, points)
    return {f"p{point}": round(float(value), 3) for point, value in zip(points, values, strict=True)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, help="another checkout; default: measure one only")
    parser.add_argument("--after", type=Path, default=Path(__file__).parents[1])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--frames", type=int, default=120, help="of each round and checkout")
    parser.add_argument("--rate", type=float, default=30.0, help="frames per second")
    parser.add_argument("--result", type=Path)
    parser.add_argument("--publish", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.publish:
        publish_on_request(arguments.publish)
        return
    checkouts = {"before": arguments.before, "after": arguments.after}
    paths = {name: path.resolve() for name, path in checkouts.items() if path is not None}
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        miniature.build(Path(name) / "miniature")
        running = [stack.enter_context(_running(one, paths[one], Path(name))) for one in paths]
        for one in running:
            one.measure(60, arguments.rate, discard=True)
        for turn in range(arguments.rounds):
            for one in running if turn % 2 == 0 else reversed(running):
                one.measure(arguments.frames, arguments.rate)
        for one in running:
            one.require_logged()
    report = {
        "commits": {name: _commit_of(path) for name, path in paths.items()},
        "rate_hz": arguments.rate,
        "frames_each": arguments.rounds * arguments.frames,
        "rounds": arguments.rounds,
        "overhead_ms": {
            one.name: {step: _spread(values) for step, values in one.milliseconds.items()} for one in running
        },
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    print(json.dumps(report, indent=2))
    if arguments.result:
        arguments.result.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
