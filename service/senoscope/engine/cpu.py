"""Execution on the CPU: several networks at a time, each with few threads.

The convolutions of these networks are too small to be divided among all cores: with default settings the
threads of seven sessions mostly wait for each other. The networks are independent, so each worker runs a
whole network, the slowest first, which keeps all cores busy until the end.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import onnxruntime as ort

from senoscope.engine.cancellation import Cancellation
from senoscope.engine.executor import OUTPUT_NAMES, Executor, Float32, NetworkFile, NetworkOutput, Placement
from senoscope.engine.sessions import CPU, create_session, usable_cores

# The slowest network takes almost a third of the total time: more than four workers would wait for it, so
# additional cores are used for threads within the networks.
_MAX_WORKERS = 4


class CpuExecutor(Executor):
    """Runs the networks on the CPU provider.

    Parameters
    ----------
    threads : int, optional
        Cores to use; default: all available to the process.
    cancellation : Cancellation, optional
        Interrupts opening and runs.
    """

    device = "cpu"
    on_cpu = True

    def __init__(
        self,
        networks: Sequence[NetworkFile],
        threads: int | None = None,
        cancellation: Cancellation | None = None,
    ) -> None:
        self._options = ort.RunOptions()
        if cancellation is not None:
            cancellation.watch_run(self._options)
        cores = threads or usable_cores()
        self._workers = min(_MAX_WORKERS, cores, len(networks))
        self._threads_each = max(1, cores // self._workers)
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="engine")
        try:
            self._sessions: list[ort.InferenceSession] = list(
                self._pool.map(
                    lambda network: create_session(
                        network, threads=self._threads_each, providers=[CPU], cancellation=cancellation
                    ),
                    networks,
                )
            )
        except BaseException:
            self._pool.shutdown(cancel_futures=True)
            raise
        self._order = list(range(len(networks)))

    def warm_up(self, image: Float32, low: Float32, high: Float32) -> None:
        """Run every network twice, and order them by their time."""
        self.run(image, low, high)
        cost = []
        for k in range(len(self._sessions)):
            start = time.perf_counter()
            self._run_one(k, {"image": image, "low": low, "high": high})
            cost.append(time.perf_counter() - start)
        self._order.sort(key=lambda k: -cost[k])

    def run(self, image: Float32, low: Float32, high: Float32) -> list[NetworkOutput]:
        """Return the outputs of all networks, in their order."""
        feeds = {"image": image, "low": low, "high": high}
        running = {k: self._pool.submit(self._run_one, k, feeds) for k in self._order}
        return [running[k].result() for k in range(len(self._sessions))]

    def _run_one(self, k: int, feeds: dict[str, Float32]) -> NetworkOutput:
        return NetworkOutput(*self._sessions[k].run(OUTPUT_NAMES, feeds, self._options))

    def describe(self) -> Placement:
        """Return the provider and the number of workers and threads."""
        return {"provider": CPU, "workers": self._workers, "threads_per_worker": self._threads_each}

    def close(self) -> None:
        """Interrupt a run in progress, and stop the workers."""
        self._options.terminate = True
        self._pool.shutdown(cancel_futures=True)
        self._sessions.clear()
