"""The CUDA profile: inputs and outputs bound to device memory, batch 1 replayed as CUDA graphs.

At batch 1 a GPU spends more time on being told what to do (some 800 kernel launches) than on doing it.
A captured graph is told once. Captured runs need fixed addresses, so every buffer of batch 1 is
allocated once; other batch sizes run uncaptured.

ONNX Runtime keeps captured graphs, and the handles of CUDA's libraries, per thread: a thread that did not
warm up would capture again, in the middle of a scan. So one thread of the executor's own does it all.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, ParamSpec, TypeVar

import numpy as np
import onnxruntime as ort

from senoscope.engine.executor import OUTPUT_NAMES, Float32, NetworkFile, NetworkOutput
from senoscope.engine.sessions import CPU, CUDA, create_session, preload_cuda

Schedule = Literal["sequential", "streams"]
_P = ParamSpec("_P")
_T = TypeVar("_T")
_WARM_UP_RUNS = 3
_TRIAL_RUNS = 10
_SIZES_KEPT = 7


def _run_options(*, graph_id: int, wait: bool) -> ort.RunOptions:
    options = ort.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(graph_id))
    if not wait:
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    return options


class _Buffers:
    """Device memory for one batch size: the inputs, which all networks share, and each one's outputs."""

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
        """A binding of network ``k`` to these buffers."""
        binding = session.io_binding()
        for name, value in (("image", self.image), ("low", self.low), ("high", self.high)):
            binding.bind_ortvalue_input(name, value)
        for name, value in zip(OUTPUT_NAMES, self.outputs[k], strict=True):
            binding.bind_ortvalue_output(name, value)
        return binding


class BoundExecutor:
    """Runs the networks with bound inputs and outputs, on CUDA.

    Parameters
    ----------
    networks : sequence of NetworkFile
    cuda_graphs : bool
        Capture batch 1 and replay it.
    tf32 : bool
        Let convolutions round their inputs to TF32 (10 bits of mantissa).
    schedule : {"sequential", "streams"}, optional
        One network after another, or all at once in a stream each; default: what measures faster
        at warm-up.
    provider_options : mapping of str to str, optional
        Further options of ONNX Runtime's CUDA provider, over those that are set here.
    device : {"cuda", "cpu"}
        ``cpu`` runs the same bindings on the CPU provider, so that all but CUDA itself can be rehearsed
        on a machine without a GPU.
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
    ) -> None:
        self.device = device
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
                    # As fast as what an exhaustive search finds, without its seconds for each batch size;
                    # DEFAULT would be one algorithm for all.
                    "cudnn_conv_algo_search": "HEURISTIC",
                    "cudnn_conv_use_max_workspace": "1",
                    "enable_cuda_graph": "1" if self._cuda_graphs else "0",
                    "use_tf32": "1" if tf32 else "0",
                    **(provider_options or {}),
                },
            )
        self._buffers: dict[tuple[int, ...], tuple[_Buffers, list[ort.IOBinding]]] = {}
        self._single: tuple[int, ...] = ()
        # The networks' order, by falling cost once that is known.
        self._order = list(range(len(networks)))
        self._sessions: list[ort.InferenceSession] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="bound")
        try:
            for network in networks:
                self._sessions.append(self._here(create_session, network, threads=1, providers=[provider]))
        except BaseException:
            self.close()
            raise

    def _here(self, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return self._thread.submit(function, *args, **kwargs).result()

    def warm_up(self, image: Float32, low: Float32, high: Float32) -> None:
        """Search algorithms, capture graphs, and choose the schedule."""
        for _ in range(_WARM_UP_RUNS):
            self.run(image, low, high)
        self._single = image.shape
        took_each = [self.run_one(k) for k in range(len(self._sessions))]
        self._order.sort(key=lambda k: -took_each[k])
        if self._choose_schedule:
            took = {}
            candidates: tuple[Schedule, ...] = ("sequential", "streams")
            for candidate in candidates:
                self.schedule = candidate
                self.run(image, low, high)
                start = time.perf_counter()
                for _ in range(_TRIAL_RUNS):
                    self.run(image, low, high)
                took[candidate] = time.perf_counter() - start
            self.schedule = min(candidates, key=took.__getitem__)

    def run(self, image: Float32, low: Float32, high: Float32) -> list[NetworkOutput]:
        """Outputs of all networks, in their order."""
        return self._here(self._run, image, low, high)

    def _run(self, image: Float32, low: Float32, high: Float32) -> list[NetworkOutput]:
        buffers, bindings = self._bound(image.shape)
        buffers.image.update_inplace(image)
        buffers.low.update_inplace(low)
        buffers.high.update_inplace(high)
        captured = self._cuda_graphs and image.shape[0] == 1
        options = _run_options(graph_id=1 if captured else -1, wait=self.schedule == "sequential")
        for k in self._order:
            self._sessions[k].run_with_iobinding(bindings[k], options)
        if self.schedule == "streams":
            for binding in bindings:
                binding.synchronize_outputs()
        # Copied, because the next run writes into the same buffers.
        return [NetworkOutput(*(np.array(value.numpy()) for value in values)) for values in buffers.outputs]

    @property
    def cools_down(self) -> bool:
        """A GPU lowers its clocks when idle."""
        return self.device == "cuda"

    def keep_warm(self) -> None:
        """Run the cheapest network once more on what it saw last."""
        self.run_one(self._order[-1])

    def run_one(self, k: int) -> float:
        """Run network ``k`` alone on the single field of view that came last; returns seconds."""
        return self._here(self._run_one, k)

    def _run_one(self, k: int) -> float:
        _, bindings = self._bound(self._single)
        options = _run_options(graph_id=1 if self._cuda_graphs else -1, wait=True)
        start = time.perf_counter()
        self._sessions[k].run_with_iobinding(bindings[k], options)
        return time.perf_counter() - start

    def _bound(self, shape: tuple[int, ...]) -> tuple[_Buffers, list[ort.IOBinding]]:
        if shape not in self._buffers:
            if len(self._buffers) > _SIZES_KEPT:  # whoever comes with ever other sizes must not fill the GPU
                self._buffers = {key: value for key, value in self._buffers.items() if key[0] == 1}
            buffers = _Buffers(self._networks, shape, self.device)
            self._buffers[shape] = (buffers, [buffers.bind(s, k) for k, s in enumerate(self._sessions)])
        return self._buffers[shape]

    def describe(self) -> dict[str, Any]:
        """Provider, schedule, graphs."""
        return {
            "provider": self._sessions[0].get_providers()[0],
            "schedule": self.schedule,
            "cuda_graphs": self._cuda_graphs,
        }

    def close(self) -> None:
        """Let go of device memory and of the thread; again, nothing."""
        with contextlib.suppress(RuntimeError):  # the thread has gone, and all else with it
            self._here(self._buffers.clear)
            self._here(self._sessions.clear)
        self._thread.shutdown()
