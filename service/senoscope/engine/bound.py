"""Execution on CUDA: inputs and outputs bound to device memory, batch 1 replayed as CUDA graphs.

At batch 1 some 800 kernel launches take longer than the kernels themselves. A captured graph needs a single
launch. Captured runs need fixed addresses, so the buffers of batch 1 are allocated once; other batch sizes
run without capture.

ONNX Runtime keeps captured graphs, and the handles of CUDA's libraries, per thread: a thread without warm-up
would capture again in the middle of a scan. Therefore a single thread of the executor runs everything.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, ParamSpec, TypeVar, get_args

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from senoscope.engine import cast_graph
from senoscope.engine.cancellation import Cancellation
from senoscope.engine.executor import (
    OUTPUT_NAMES,
    Executor,
    Float32,
    NetworkFile,
    NetworkOutput,
    Pixels,
    Placement,
)
from senoscope.engine.precision import Precision
from senoscope.engine.sessions import (
    CPU,
    CUDA,
    Provider,
    create_session,
    open_session,
    preload_cuda,
    session_options,
)

Schedule = Literal["sequential", "streams"]
_P = ParamSpec("_P")
_T = TypeVar("_T")
_WARM_UP_RUNS = 3
_TRIAL_RUNS = 10
_MAX_BATCH_SIZES = 7  # whose buffers stay allocated
_ALIGNED_ELEMENTS = 64  # of float32: 256 bytes, as CUDA aligns what it allocates
_INTEGERS = (np.uint8, np.uint16)
_REMEDY = (
    "the CUDA libraries are missing or incompatible. "
    'Run `pip install "senoscope[gpu]"`, or use `--device cpu`'
)


def _run_options(*, graph_id: int, wait: bool) -> ort.RunOptions:
    options = ort.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(graph_id))
    if not wait:
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    return options


class _Buffers:
    """Device memory for one batch size: inputs, shared by all networks, and outputs of each network.

    All outputs are in one block, which is copied to the host at once: 28 copies would take longer.
    """

    def __init__(self, networks: Sequence[NetworkFile], image_shape: tuple[int, ...], device: str) -> None:
        n, channels = image_shape[0], image_shape[1]
        self._device = device
        self.image = self._allocate(image_shape)
        self.low = self._allocate((channels,))
        self.high = self._allocate((channels,))
        self._integers: dict[Any, tuple[ort.OrtValue, ort.IOBinding]] = {}
        self._outputs: list[list[tuple[int, tuple[int, ...]]]] = []  # first element and shape of each
        end = 0
        for net in networks:
            places: list[tuple[int, tuple[int, ...]]] = []
            for shape in ((n,), (n,), (n, *net.gradcam_grid), (n, net.feature_size)):
                places.append((end, shape))
                end += -(-math.prod(shape) // _ALIGNED_ELEMENTS) * _ALIGNED_ELEMENTS
            self._outputs.append(places)
        self._block = self._allocate((end,))

    def _allocate(self, shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32) -> ort.OrtValue:
        return ort.OrtValue.ortvalue_from_shape_and_type(list(shape), dtype, self._device, 0)

    def bind(self, session: ort.InferenceSession, k: int) -> ort.IOBinding:
        """Return a binding of network ``k`` to these buffers."""
        binding = session.io_binding()
        for name, value in (("image", self.image), ("low", self.low), ("high", self.high)):
            binding.bind_ortvalue_input(name, value)
        for name, (start, shape) in zip(OUTPUT_NAMES, self._outputs[k], strict=True):
            address = self._block.data_ptr() + start * np.dtype(np.float32).itemsize
            binding.bind_output(name, self._device, 0, np.float32, list(shape), address)
        return binding

    def upload(self, image: Pixels, casts: Mapping[Any, ort.InferenceSession]) -> None:
        """Copy pixels to the device, where ``casts`` convert those that are integers."""
        if image.dtype == np.float32:
            self.image.update_inplace(image)
            return
        cast = casts[image.dtype]
        if image.dtype not in self._integers:
            pixels = self._allocate(image.shape, image.dtype)
            binding = cast.io_binding()
            binding.bind_ortvalue_input(cast_graph.INPUT, pixels)
            binding.bind_ortvalue_output(cast_graph.OUTPUT, self.image)
            self._integers[image.dtype] = pixels, binding
        pixels, binding = self._integers[image.dtype]
        pixels.update_inplace(image)
        cast.run_with_iobinding(binding)  # waits for its end, for which other sessions do not wait

    def download(self) -> list[NetworkOutput]:
        """Return the outputs of all networks; each call returns other memory."""
        block = self._block.numpy()
        if self._device == "cpu":  # otherwise it is a copy
            block = block.copy()
        return [
            NetworkOutput(
                *(block[start : start + math.prod(shape)].reshape(shape) for start, shape in places)
            )
            for places in self._outputs
        ]


class BoundExecutor(Executor):
    """Runs the networks with bound inputs and outputs, on CUDA, each in its own precision.

    Parameters
    ----------
    cuda_graphs : bool
        Capture runs of batch 1 and replay them.
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
        schedule: Schedule | None = None,
        provider_options: Mapping[str, str] | None = None,
        device: Literal["cuda", "cpu"] = "cuda",
        cancellation: Cancellation | None = None,
    ) -> None:
        self.device = device
        self._memory = device  # of inputs and outputs
        self.cools_down = device == "cuda"  # as GPUs do
        self.on_cpu = device == "cpu"
        self._networks = list(networks)
        self._cuda_graphs = cuda_graphs and device == "cuda"
        self.schedule: Schedule = schedule or "sequential"
        self._choose_schedule = schedule is None
        self._provider_options = dict(provider_options or {})
        if device == "cuda":
            preload_cuda()
        self._buffers: dict[tuple[int, ...], tuple[_Buffers, list[ort.IOBinding]]] = {}
        self._single: tuple[int, ...] = ()
        # Order of execution: decreasing cost, once it was measured.
        self._order = list(range(len(networks)))
        self._sessions: list[ort.InferenceSession] = []
        self._casts: dict[Any, ort.InferenceSession] = {}
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
                provider = self._provider(network.precision, graphs=self._cuda_graphs)
                self._sessions.append(self._run_in_thread(create_session, network, provider, threads=1))
            for source in _INTEGERS:
                self._casts[np.dtype(source)] = self._run_in_thread(self._open_cast, source)
        except BaseException:
            self.close()
            raise

    def _provider(self, precision: Precision, *, graphs: bool) -> Provider:
        if self._memory == "cpu":
            return Provider(CPU)
        options = {
            "device_id": "0",
            # As fast as EXHAUSTIVE, which searches for seconds for each batch size; DEFAULT uses one
            # algorithm for all.
            "cudnn_conv_algo_search": "HEURISTIC",
            "cudnn_conv_use_max_workspace": "1",
            "enable_cuda_graph": "1" if graphs else "0",
            "use_tf32": "1" if precision == "tf32" else "0",
            # Channels last, as the matrix units take them: faster in TF32, slower in fp32.
            "prefer_nhwc": "1" if precision in {"tf32", "fp16"} else "0",
        }
        return Provider(CUDA, options | self._provider_options, remedy=_REMEDY)

    def _open_cast(self, source: npt.DTypeLike) -> ort.InferenceSession:
        provider = self._provider("fp32", graphs=False)
        return open_session(
            cast_graph.cast_graph(source), session_options(1), provider, "the conversion of pixels"
        )

    def _run_in_thread(self, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return self._thread.submit(function, *args, **kwargs).result()

    def warm_up(self, image: Float32, low: Float32, high: Float32) -> None:
        """Select algorithms, capture graphs, and choose the schedule."""
        for _ in range(_WARM_UP_RUNS):
            self.run(image, low, high)
        for source in self._casts:
            self.run(np.zeros(image.shape, source), low, high)
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

    def run(self, image: Pixels, low: Float32, high: Float32) -> list[NetworkOutput]:
        """Return the outputs of all networks, in their order."""
        return self._run_in_thread(self._run, image, low, high)

    def _run(self, image: Pixels, low: Float32, high: Float32) -> list[NetworkOutput]:
        buffers, bindings = self._bound(image.shape)
        buffers.upload(image, self._casts)
        buffers.low.update_inplace(low)
        buffers.high.update_inplace(high)
        captured = self._cuda_graphs and image.shape[0] == 1
        options = self._options[captured, self.schedule == "sequential"]
        for k in self._order:
            self._sessions[k].run_with_iobinding(bindings[k], options)
        if self.schedule == "streams":
            for binding in bindings:
                binding.synchronize_outputs()
        return buffers.download()

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
            buffers = _Buffers(self._networks, shape, self._memory)
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
            self._run_in_thread(self._casts.clear)
        self._thread.shutdown()
