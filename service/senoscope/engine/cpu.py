"""Execution on the CPU with ONNX Runtime's own provider."""

from __future__ import annotations

from collections.abc import Sequence

import onnxruntime as ort

from senoscope.engine.cancellation import Cancellation
from senoscope.engine.executor import OUTPUT_NAMES, NetworkFile, NetworkOutput, Placement
from senoscope.engine.sessions import CPU, Provider, create_session
from senoscope.engine.workers import Feeds, OpenNetwork, WorkerExecutor, divide_cores


class CpuExecutor(WorkerExecutor):
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
        self._options = options = ort.RunOptions()
        if cancellation is not None:
            cancellation.watch_run(options)
        workers, threads_each = divide_cores(threads, len(networks))
        self._threads_each = threads_each

        def open_network(network: NetworkFile) -> OpenNetwork:
            session = create_session(network, Provider(CPU), threads=threads_each, cancellation=cancellation)

            def run(feeds: Feeds) -> NetworkOutput:
                return NetworkOutput(*session.run(OUTPUT_NAMES, feeds, options))

            return run

        super().__init__(networks, workers, open_network)

    def describe(self) -> Placement:
        """Return the provider and the number of workers and threads."""
        return {"provider": CPU, "workers": self._workers, "threads_per_worker": self._threads_each}

    def interrupt(self) -> None:
        """Make a run in progress, and later ones, end with an error."""
        self._options.terminate = True
