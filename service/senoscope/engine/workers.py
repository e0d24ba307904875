"""Execution by several workers, each of which runs a whole network.

The convolutions of these networks are too small to be divided among all cores: with default settings the
threads of seven sessions mostly wait for each other. The networks are independent, so each worker runs a
whole network, the slowest first, which keeps all cores busy until the end.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from senoscope.engine.executor import Executor, Float32, NetworkFile, NetworkOutput, Pixels, as_float32
from senoscope.engine.sessions import usable_cores

Feeds = dict[str, Float32]
"""The inputs of a network: image, low and high."""

# The slowest network takes almost a third of the total time: more than four workers would wait for it, so
# additional cores are used for threads within the networks.
_MAX_WORKERS = 4


class OpenNetwork(Protocol):
    """A network that was opened on a device."""

    def __call__(self, feeds: Feeds) -> NetworkOutput:
        """Return its outputs; called by one thread at a time."""


def divide_cores(threads: int | None, networks: int) -> tuple[int, int]:
    """Return the number of workers and of threads for each; ``threads`` is by default the number of cores."""
    cores = threads or usable_cores()
    workers = min(_MAX_WORKERS, cores, networks)
    return workers, max(1, cores // workers)


class WorkerExecutor(Executor):
    """Runs networks on a pool of workers; subclasses open them, and interrupt a run.

    Parameters
    ----------
    workers : int
        How many networks run at a time.
    open_network : callable
        Opens a network; called by several threads at a time.
    """

    def __init__(
        self,
        networks: Sequence[NetworkFile],
        workers: int,
        open_network: Callable[[NetworkFile], OpenNetwork],
    ) -> None:
        self._workers = workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="engine")
        try:
            self._networks: list[OpenNetwork] = list(self._pool.map(open_network, networks))
        except BaseException:
            self._pool.shutdown(cancel_futures=True)
            raise
        # Order of execution: decreasing cost, once it was measured.
        self._order = list(range(len(networks)))
        self._last: Feeds = {}

    def warm_up(self, image: Float32, low: Float32, high: Float32) -> None:
        """Run every network twice, and order them by their time."""
        self.run(image, low, high)
        cost = []
        for k in range(len(self._networks)):
            start = time.perf_counter()
            self._pool.submit(self._run_one, k, self._last).result()
            cost.append(time.perf_counter() - start)
        self._order.sort(key=lambda k: -cost[k])

    def run(self, image: Pixels, low: Float32, high: Float32) -> list[NetworkOutput]:
        """Return the outputs of all networks, in their order."""
        feeds = {"image": as_float32(image), "low": low, "high": high}
        if self.cools_down or not self._last:
            self._last = feeds
        running = {k: self._pool.submit(self._run_one, k, feeds) for k in self._order}
        return [running[k].result() for k in sorted(running)]

    def _run_one(self, k: int, feeds: Feeds) -> NetworkOutput:
        return self._networks[k](feeds)

    def keep_warm(self) -> None:
        """Run the fastest network again on its last input, if the device cools down."""
        if self.cools_down:
            self._pool.submit(self._run_one, self._order[-1], self._last).result()

    @abstractmethod
    def interrupt(self) -> None:
        """Make a run in progress, and later ones, end with an error."""

    def close(self) -> None:
        """Interrupt a run in progress, and stop the workers."""
        self.interrupt()
        self._pool.shutdown(cancel_futures=True)
        self._networks.clear()
        self._last = {}
