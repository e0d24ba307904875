"""Execution with OpenVINO on Intel and AMD CPUs, and on Intel GPUs; needs the extra ``openvino``."""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from senoscope.engine.cancellation import Cancellation
from senoscope.engine.contract import Port, check_graph
from senoscope.engine.errors import DeviceError
from senoscope.engine.executor import INPUT_NAMES, OUTPUT_NAMES, NetworkFile, NetworkOutput, Placement
from senoscope.engine.precision import Precision
from senoscope.engine.workers import Feeds, OpenNetwork, WorkerExecutor, divide_cores

_TELEMETRY: Final = "openvino_telemetry"
_PRECISION: Final = "INFERENCE_PRECISION_HINT"
_importing = threading.Lock()


def problem() -> str | None:
    """Return why OpenVINO cannot be used, or None."""
    if importlib.util.find_spec("openvino") is None:
        return 'OpenVINO is not installed: run `pip install "senoscope[openvino]"`'
    try:
        _choose(_import().Core().available_devices)
    except DeviceError as error:
        return str(error)
    except Exception as error:  # a library that does not load, a plug-in that is missing
        return f"OpenVINO cannot be used: {_first_line(error)}"
    return None


def _import() -> Any:
    """Import OpenVINO without its telemetry, which otherwise reports the import to its manufacturer."""
    with _importing:
        hidden = sys.modules.get(_TELEMETRY)
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment] # OpenVINO then replaces it with an empty one
        try:
            import openvino
        finally:
            del sys.modules[_TELEMETRY]
            if hidden is not None:
                sys.modules[_TELEMETRY] = hidden
        # The first tensor of a process prepares NumPy's interface. Two threads that do so at a time wait for
        # each other forever: one has the interpreter, the other the lock of that preparation.
        np.array(openvino.Tensor(np.zeros(1, np.float32), shared_memory=True).data)
    return openvino


def _choose(devices: Sequence[str]) -> str:
    """Return the device to use: a GPU before the CPU."""
    for kind in ("GPU", "CPU"):
        for name in devices:
            if name.partition(".")[0] == kind:
                return name
    raise DeviceError(f"OpenVINO finds neither a GPU nor a CPU, only: {', '.join(devices) or 'nothing'}")


def _configuration(on_gpu: bool, precision: Precision, threads: int) -> dict[str, Any]:
    # Without this hint, OpenVINO computes in bf16 on CPUs that have it, and in fp16 on GPUs.
    common = {
        _PRECISION: "f16" if on_gpu and precision == "fp16" else "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    if on_gpu:
        return common
    # Pinned, the threads of all networks would share the same cores.
    return common | {
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,
        "CPU_DENORMALS_OPTIMIZATION": True,
    }


class _Network:
    """A compiled network, whose runs can be interrupted: OpenVINO does so for asynchronous requests only."""

    def __init__(self, request: Any) -> None:
        self._request = request
        self._lock = threading.Lock()
        self._interrupted = False

    def __call__(self, feeds: Feeds) -> NetworkOutput:
        with self._lock:
            if self._interrupted:
                raise RuntimeError("the run was interrupted")
            self._request.start_async(feeds, share_inputs=True)
        try:
            self._request.wait()
        except RuntimeError as error:
            raise RuntimeError(f"OpenVINO: {_first_line(error)}") from error
        outputs = (self._request.get_tensor(name).data for name in OUTPUT_NAMES)
        return NetworkOutput(*(array.copy() for array in outputs))  # the next run overwrites them

    def interrupt(self) -> None:
        with self._lock:
            self._interrupted = True
            self._request.cancel()


class OpenVinoExecutor(WorkerExecutor):
    """Runs the networks with OpenVINO, on a GPU if it finds one; on a CPU, fp16 files are computed in fp32.

    Parameters
    ----------
    threads : int, optional
        CPU cores to use; default: all available to the process.
    cancellation : Cancellation, optional
        Interrupts runs, and ends opening after the network that is being compiled.
    """

    device = "openvino"

    def __init__(
        self,
        networks: Sequence[NetworkFile],
        *,
        threads: int | None = None,
        cancellation: Cancellation | None = None,
    ) -> None:
        openvino = _import()
        core = openvino.Core()
        target = _choose(core.available_devices)
        on_gpu = target.startswith("GPU")
        workers, threads_each = (1, 1) if on_gpu else divide_cores(threads, len(networks))
        interrupts: list[Callable[[], None]] = []
        self.cools_down = on_gpu
        self.on_cpu = not on_gpu
        self.hardware = f"{target}, {core.get_property(target, 'FULL_DEVICE_NAME')}"
        self._target = target
        self._threads_each = threads_each
        self._interrupts = interrupts

        def open_network(network: NetworkFile) -> OpenNetwork:
            if cancellation is not None:
                cancellation.require()
            try:
                model = core.read_model(network.path)
            except Exception as error:
                raise DeviceError(f"OpenVINO cannot run {network.path.name}: {_first_line(error)}") from error
            check_graph(_ports(model.inputs, INPUT_NAMES), _ports(model.outputs, OUTPUT_NAMES), network)
            try:
                configuration = _configuration(on_gpu, network.precision, threads_each)
                compiled = core.compile_model(model, target, configuration)
            except Exception as error:
                raise DeviceError(f"OpenVINO cannot run {network.path.name}: {_first_line(error)}") from error
            _require(compiled, target, configuration[_PRECISION], network)
            one = _Network(compiled.create_infer_request())
            interrupts.append(one.interrupt)
            if cancellation is not None:
                cancellation.watch(one.interrupt)
            return one

        super().__init__(networks, workers, open_network)

    def describe(self) -> Placement:
        """Return OpenVINO's device and the number of workers and threads."""
        placement: Placement = {"provider": f"OpenVINO {self._target}", "workers": self._workers}
        return placement if self.cools_down else {**placement, "threads_per_worker": self._threads_each}

    def interrupt(self) -> None:
        """Make a run in progress, and later ones, end with an error."""
        for interrupt in self._interrupts:
            interrupt()

    def close(self) -> None:
        """Interrupt a run in progress, and release the workers and the networks."""
        super().close()
        self._interrupts.clear()


def _ports(ports: Sequence[Any], expected: Sequence[str]) -> list[Port]:
    """Return inputs or outputs; OpenVINO gives them in any order, and a tensor may have several names."""
    found = []
    for port in ports:
        names = port.get_names()
        name = next((name for name in expected if name in names), min(names, default=""))
        kind = port.element_type.to_string()
        sizes = [size.get_length() if size.is_static else None for size in port.partial_shape]
        found.append(Port(name, "tensor(float)" if kind == "f32" else f"tensor({kind})", sizes))
    order = {name: k for k, name in enumerate(expected)}
    return sorted(found, key=lambda port: order.get(port.name, len(expected)))


def _require(compiled: Any, target: str, precision: str, network: NetworkFile) -> None:
    """Check the device and the precision that a network got."""
    selected = compiled.get_property(_PRECISION).to_string()
    if selected != precision:
        raise DeviceError(
            f"{network.path.name} was to be computed in {precision}, but OpenVINO selected {selected}"
        )
    devices = [str(name) for name in compiled.get_property("EXECUTION_DEVICES")]
    kinds = {name.strip("()").partition(".")[0] for name in devices}
    if kinds != {target.partition(".")[0]}:
        raise DeviceError(f"{network.path.name} was to run on {target}, but OpenVINO selected {devices}")


def _first_line(error: Exception) -> str:
    """Return what an error of OpenVINO says, without the places in its source."""
    lines = [line.strip() for line in str(error).splitlines()]
    reasons = [line for line in lines if line and not line.startswith(("Exception from", "Check '"))]
    return " ".join(reasons)[:300] or type(error).__name__
