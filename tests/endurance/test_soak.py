"""Frames at full speed for a long time: all losses are counted, and resource use stays constant."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from websockets.protocol import State
from websockets.sync.client import connect

from support.load import Endurance, Listener, Scan, capacity_hz, percentiles
from support.servers import Server

pytestmark = pytest.mark.full

_INTERVAL_S = 0.5


class ResourceMonitor(threading.Thread):
    """Records memory, file descriptors and threads of a server over time."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self.memory_mib: list[float] = []
        self.descriptors: list[int] = []
        self.threads: list[int] = []
        self._process = psutil.Process(server.process.pid)
        self._ended = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._ended.wait(_INTERVAL_S):
            with self._process.oneshot():
                self.memory_mib.append(self._process.memory_info().rss / 2**20)
                self.descriptors.append(self._process.num_fds())
                self.threads.append(self._process.num_threads())

    def close(self) -> None:
        self._ended.set()
        self.join()


class StalledClient(threading.Thread):
    """A WebSocket client that reads nothing, and reconnects when the service disconnects it."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self._server = server
        self._ended = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._ended.is_set():
            # The library stops reading after `max_queue` messages, also pings. With pictures, because the
            # buffers of the system hold thousands of results without them.
            url = f"{self._server.ws}?cam=png"
            with connect(url, max_queue=1, ping_interval=None, close_timeout=0.1) as live:
                while not self._ended.wait(1) and live.state is State.OPEN:
                    pass

    def close(self) -> None:
        self._ended.set()
        self.join()


@pytest.mark.timeout(6 * 3600)
def test_soak(start: Callable[..., Server], endurance: Endurance, tmp_path: Path) -> None:
    server = start("--live-backlog", "256")
    frames = endurance.scale(1000, 200_000)
    rate_hz = 1.5 * capacity_hz(server)  # above the capacity: the service is never idle
    listeners = [Listener(server), Listener(server)]
    stalled = StalledClient(server)
    server.wait(lambda status: status["live_clients"]["connected"] == 3)
    monitor = ResourceMonitor(server)
    began = time.perf_counter()
    sent = Scan(server, frames, rate_hz, tmp_path).end()
    server.wait(lambda status: status["live"]["classified"] + status["live"]["dropped"] == sent["sent"], 60)
    monitor.close()
    seconds = time.perf_counter() - began
    status = server.wait(
        lambda status: all(len(one.results) == status["live"]["classified"] for one in listeners), 60
    )
    for client in (*listeners, stalled):
        client.close()
    last = slice(len(monitor.memory_mib) // 5, None)
    memory = monitor.memory_mib[last]
    endurance.report(
        frames=frames,
        seconds=round(seconds),
        hz=round(status["live"]["classified"] / seconds, 1),
        classified=status["live"]["classified"],
        dropped=status["live"]["dropped"],
        stalled_client_lost=status["live_clients"]["lost"],
        memory_mib_last_80={"min": round(min(memory), 1), "max": round(max(memory), 1)},
        memory_mib=[round(mib, 1) for mib in monitor.memory_mib[:: max(1, len(monitor.memory_mib) // 20)]],
        descriptors_last_80=sorted(set(monitor.descriptors[last])),
        threads_last_80=sorted(set(monitor.threads[last])),
        live_total_ms=percentiles([r["timing_ms"]["total"] for r in listeners[0].results]),
    )
    (series,) = status["receiver"]["series"]
    assert series["missing"] == 0
    assert status["live"]["classified"] + status["live"]["dropped"] == frames
    assert status["run_log"]["written"] >= status["live"]["classified"]
    for listener in listeners:
        frames_received = [result["source"]["frame"] for result in listener.results]
        assert frames_received == sorted(set(frames_received))
    assert [r["id"] for r in listeners[0].results] == [r["id"] for r in listeners[1].results]
    if endurance.long:
        assert status["live_clients"]["lost"] > 0, "the stalled client was disconnected"
        assert max(memory) - min(memory) <= 20
        assert len(set(monitor.threads[last])) == 1
        assert (
            max(monitor.descriptors[last]) - min(monitor.descriptors[last]) <= 2
        )  # a connection that requests the status
