"""Execution on CUDA: inputs and outputs bound to device memory, batch 1 replayed as CUDA graphs.

At batch 1 some 800 kernel launches take longer than the kernels themselves. A captured graph needs a single
launch. Captured runs need fixed addresses, so the buffers of batch 1 are allocated once; other batch sizes
run without capture.

ONNX Runtime keeps captured graphs, and the handles of CUDA's libraries, per thread: a thread without warm-up
would capture again in the middle of a scan. Therefore a single thread of the executor runs everything.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, ParamSpec, TypeVar, get_args

import numpy as np
import onnxruntime as ort

from senoscope.engine.cancellation import Cancellation
from senoscope.engine.executor import OUTPUT_NAMES, Executor, Float32, NetworkFile, NetworkOutput, Placement
from senoscope.engine.sessions import CPU, CUDA, create_session, preload_cuda

Schedule = Literal["sequential", "streams"]
_P = ParamSpec("_P")
_T = TypeVar("_T")
_WARM_UP_RUNS = 3
_TRIAL_RUNS = 10
_MAX_BATCH_SIZES = 7  # whose buffers stay allocated


def _run_options(*, graph_id: int, wait: bool) -> ort.RunOptions:
    options = ort.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(graph_id))
    if not wait:
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    return options


class _Buffers:
    """Device memory for one batch size: inputs, shared by all networks, and outputs of each network."""

    def __init__(self, networks: Sequence[NetworkFile], image_shape: tuple[int, ...], device: str) -> None:
        n, channels = image_shape[0], image_shape[1]
        self.image = self._allocate(image_shape, device)
        self.low = self._allocate((channels,), device)
        self.high = self._allocate((channels,), device)
        self.outputs = []
        for net in networks:
            shapes = ((n,), (n,), (n, *net.gradcam_grid), (n, net.feature_size))
            self.outputs.append([self._allocate(shape, device) for shape in shapes])

    @staticmethod
    def _allocate(shape: tuple[int, ...], device: str) -> ort.OrtValue:
        return ort.OrtValue.ortvalue_from_shape_and_type(list(shape), np.float32, device, 0)

    def bind(self, session: ort.InferenceSession, k: int) -> ort.IOBinding:
        """Return a binding of network ``k`` to these buffers."""
        binding = session.io_binding()
        for name, value in (("image", self.image), ("low", self.low), ("high", self.high)):
            binding.bind_ortvalue_input(name, value)
        for name, value in zip(OUTPUT_NAMES, self.outputs[k], strict=True):
            binding.bind_ortvalue_output(name, value)
        return binding


class BoundExecutor(Executor):
    """Runs the networks with bound inputs and outputs, on CUDA.

    Parameters
    ----------
    cuda_graphs : bool
        Capture runs of batch 1 and replay them.
    tf32 : bool
        Let convolutions round their inputs to TF32 (10 bits of mantissa).
    schedule : {"sequential", "streams"}, optional
        One network after another, or all at once, each in its own stream; default: the one that is faster
        during warm-up.
    provider_options : mapping of str to str, optional
        Options of ONNX Runtime's CUDA provider that override those set here.
    device : {"cuda", "cpu"}
        ``cpu`` runs the same bindings on the CPU provider, for tests on machines without a GPU.
    cancellation : Cancellation, optional
        Interrupts opening and runs.
    """

    def __init__(
        self,
        networks: Sequence[NetworkFile],
        *,
        cuda_graphs: bool = True,
        tf32: bool = False,
        schedule: Schedule | None = None,
        provider_options: Mapping[str, str] | None = None,
        device: Literal["cuda", "cpu"] = "cuda",
        cancellation: Cancellation | None = None,
    ) -> None:
        self.device = device
        self.cools_down = device == "cuda"  # as GPUs do
        self.on_cpu = device == "cpu"
        self._networks = list(networks)
        self._cuda_graphs = cuda_graphs and device == "cuda"
        self.schedule: Schedule = schedule or "sequential"
        self._choose_schedule = schedule is None
        provider: Any = CPU
        if device == "cuda":
            preload_cuda()
            provider = (
                CUDA,
                {
                    "device_id": "0",
                    # As fast as EXHAUSTIVE, which searches for seconds for each batch size; DEFAULT uses one
                    # algorithm for all.
                    "cudnn_conv_algo_search": "HEURISTIC",
                    "cudnn_conv_use_max_workspace": "1",
                    "enable_cuda_graph": "1" if self._cuda_graphs else "0",
                    "use_tf32": "1" if tf32 else "0",
                    **(provider_options or {}),
                },
            )
        self._buffers: dict[tuple[int, ...], tuple[_Buffers, list[ort.IOBinding]]] = {}
        self._single: tuple[int, ...] = ()
        # Order of execution: decreasing cost, once it was measured.
        self._order = list(range(len(networks)))
        self._sessions: list[ort.InferenceSession] = []
        # For captured and other runs, with and without waiting for their end.
        self._options = {
            (captured, wait): _run_options(graph_id=1 if captured else -1, wait=wait)
            for captured in (False, True)
            for wait in (False, True)
        }
        if cancellation is not None:
            for options in self._options.values():
                cancellation.watch_run(options)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="bound")
        try:
            for network in networks:
                self._sessions.append(
                    self._run_in_thread(create_session, network, threads=1, providers=[provider])
                )
        except BaseException:
            self.close()
            raise

    def _run_in_thread(self, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return self._thread.submit(function, *args, **kwargs).result()

    def warm_up(self, image: Float32, low: Float32, high: Float32) -> None:
        """Select algorithms, capture graphs, and choose the schedule."""
        for _ in range(_WARM_UP_RUNS):
            self.run(image, low, high)
        self._single = image.shape
        seconds_each = [self.run_one(k) for k in range(len(self._sessions))]
        self._order.sort(key=lambda k: -seconds_each[k])
        if self._choose_schedule:
            took_s: dict[Schedule, float] = {}
            for candidate in get_args(Schedule):
                self.schedule = candidate
                self.run(image, low, high)
                start = time.perf_counter()
                for _ in range(_TRIAL_RUNS):
                    self.run(image, low, high)
                took_s[candidate] = time.perf_counter() - start
            self.schedule = min(took_s, key=took_s.__getitem__)

    def run(self, image: Float32, low: Float32, high: Float32) -> list[NetworkOutput]:
        """Return the outputs of all networks, in their order."""
        return self._run_in_thread(self._run, image, low, high)

    def _run(self, image: Float32, low: Float32, high: Float32) -> list[NetworkOutput]:
        buffers, bindings = self._bound(image.shape)
        buffers.image.update_inplace(image)
        buffers.low.update_inplace(low)
        buffers.high.update_inplace(high)
        captured = self._cuda_graphs and image.shape[0] == 1
        options = self._options[captured, self.schedule == "sequential"]
        for k in self._order:
            self._sessions[k].run_with_iobinding(bindings[k], options)
        if self.schedule == "streams":
            for binding in bindings:
                binding.synchronize_outputs()
        # Copied, because the next run writes into the same buffers.
        return [NetworkOutput(*(np.array(value.numpy()) for value in values)) for values in buffers.outputs]

    def keep_warm(self) -> None:
        """Run the fastest network again on its last input."""
        self.run_one(self._order[-1])

    def run_one(self, k: int) -> float:
        """Run network ``k`` alone on the last single field of view, and return the seconds it took."""
        return self._run_in_thread(self._run_one, k)

    def _run_one(self, k: int) -> float:
        _, bindings = self._bound(self._single)
        options = self._options[self._cuda_graphs, True]
        start = time.perf_counter()
        self._sessions[k].run_with_iobinding(bindings[k], options)
        return time.perf_counter() - start

    def _bound(self, shape: tuple[int, ...]) -> tuple[_Buffers, list[ort.IOBinding]]:
        if shape not in self._buffers:
            # Batches of many sizes must not fill the memory of the GPU.
            if len(self._buffers) > _MAX_BATCH_SIZES:
                self._buffers = {key: value for key, value in self._buffers.items() if key[0] == 1}
            buffers = _Buffers(self._networks, shape, self.device)
            self._buffers[shape] = (buffers, [buffers.bind(s, k) for k, s in enumerate(self._sessions)])
        return self._buffers[shape]

    def describe(self) -> Placement:
        """Return provider, schedule, and whether CUDA graphs are used."""
        return {
            "provider": self._sessions[0].get_providers()[0],
            "schedule": self.schedule,
            "cuda_graphs": self._cuda_graphs,
        }

    def close(self) -> None:
        """Interrupt a run in progress and release device memory and the thread; may be called again."""
        for options in self._options.values():
            options.terminate = True
        with contextlib.suppress(RuntimeError):  # closed before
            self._run_in_thread(self._buffers.clear)
            self._run_in_thread(self._sessions.clear)
        self._thread.shutdown()
