"""The CPU profile: several networks at a time, each on few threads.

A convolution of these networks is too small to share among all cores: with default settings the
threads of seven sessions wait for each other most of the time. Networks are independent, so whole
networks are handed to workers instead, the longest first, which keeps all cores busy to the end.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import onnxruntime as ort

from senoscope.engine.executor import OUTPUT_NAMES, Float32, NetworkFile, NetworkOutput
from senoscope.engine.sessions import CPU, create_session, usable_cores

# The slowest network takes almost a third of the whole work: more than four workers would wait for it,
# so further cores go into the networks' own threads.
_MAX_WORKERS = 4


class CpuExecutor:
    """Runs the networks on the CPU provider.

    Parameters
    ----------
    networks : sequence of NetworkFile
    threads : int, optional
        Cores to use; default: all that the process may use.
    """

    device = "cpu"
    cools_down = False

    def __init__(self, networks: Sequence[NetworkFile], threads: int | None = None) -> None:
        cores = threads or usable_cores()
        self._workers = min(_MAX_WORKERS, cores, len(networks))
        self._threads_each = max(1, cores // self._workers)
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="engine")
        try:
            self._sessions: list[ort.InferenceSession] = list(
                self._pool.map(
                    lambda network: create_session(network, threads=self._threads_each, providers=[CPU]),
                    networks,
                )
            )
        except BaseException:
            self._pool.shutdown()
            raise
        self._order = list(range(len(networks)))

    def warm_up(self, image: Float32, low: Float32, high: Float32) -> None:
        """Run every network twice, and note which take longest."""
        self.run(image, low, high)
        cost = []
        for k in range(len(self._sessions)):
            start = time.perf_counter()
            self._run_one(k, {"image": image, "low": low, "high": high})
            cost.append(time.perf_counter() - start)
        self._order.sort(key=lambda k: -cost[k])

    def run(self, image: Float32, low: Float32, high: Float32) -> list[NetworkOutput]:
        """Outputs of all networks, in their order."""
        feeds = {"image": image, "low": low, "high": high}
        running = {k: self._pool.submit(self._run_one, k, feeds) for k in self._order}
        return [running[k].result() for k in range(len(self._sessions))]

    def _run_one(self, k: int, feeds: dict[str, Float32]) -> NetworkOutput:
        return NetworkOutput(*self._sessions[k].run(OUTPUT_NAMES, feeds))

    def keep_warm(self) -> None:
        """Nothing: a CPU is back at full clock within microseconds."""

    def describe(self) -> dict[str, Any]:
        """Workers and threads."""
        return {"provider": CPU, "workers": self._workers, "threads_per_worker": self._threads_each}

    def close(self) -> None:
        """Stop the workers."""
        self._pool.shutdown()
        self._sessions.clear()
