"""The devices that can run an ensemble, and the selection of one; ONNX Runtime is imported on first use.

Another device or precision is a subclass of `Executor`, its row in `DEVICES`, and its name in
`Device`, which the settings and the commands offer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol, TypeVar

from senoscope.engine.errors import DeviceError
from senoscope.engine.precision import Precision

if TYPE_CHECKING:
    from senoscope.engine.executor import Executor, NetworkFile, Opening

Device = Literal["auto", "cuda", "tensorrt-rtx", "openvino", "cpu"]
"""A name of `DEVICES`, or ``auto``: the first of those that it tries and that works."""


class OnHardware(Protocol):
    """What was opened on a device."""

    @property
    def hardware(self) -> str:
        """What it runs on, if the name of the device leaves that open."""


_T = TypeVar("_T", bound=OnHardware)


class DeviceRow(NamedTuple):
    """A device of the table."""

    title: str
    found: str
    """The reason when ``auto`` selects it first."""
    problem: Callable[[], str | None]
    """Returns why it cannot be used on this machine, or None."""
    open: Callable[[Sequence[NetworkFile], Opening], Executor]
    precisions: tuple[Precision, ...] = ("fp32",)
    """In which it can compute, the fastest first.

    Always includes fp32, at which ``auto`` stops: precisions after it are slower on this device, and only
    used on request.
    """
    automatic: bool = True
    """Whether ``auto`` tries it: not before it was measured to be the better choice."""
    nvidia: bool = False
    """Whether the memory of an NVIDIA GPU is reported while it is in use."""


def gpu_problem() -> str | None:
    """Return why no GPU can be used, or None if the driver finds one."""
    import onnxruntime as ort

    from senoscope.engine.nvidia import find_gpu
    from senoscope.engine.sessions import CUDA

    if CUDA not in ort.get_available_providers():
        return "this build of ONNX Runtime has no CUDA provider"
    try:
        find_gpu()
    except DeviceError as error:
        return str(error)
    return None


def _openvino_problem() -> str | None:
    from senoscope.engine import openvino

    return openvino.problem()


def _tensorrt_rtx_problem() -> str | None:
    from senoscope.engine import tensorrt_rtx

    return tensorrt_rtx.problem()


def _open_cuda(networks: Sequence[NetworkFile], how: Opening) -> Executor:
    from senoscope.engine.bound import BoundExecutor

    return BoundExecutor(networks, cancellation=how.cancellation)


def _open_tensorrt_rtx(networks: Sequence[NetworkFile], how: Opening) -> Executor:
    from senoscope.engine.tensorrt_rtx import TensorRtRtxExecutor

    return TensorRtRtxExecutor(
        networks, precision=how.precision, digest=how.digest, cancellation=how.cancellation
    )


def _open_openvino(networks: Sequence[NetworkFile], how: Opening) -> Executor:
    from senoscope.engine.openvino import OpenVinoExecutor

    return OpenVinoExecutor(networks, threads=how.threads, cancellation=how.cancellation)


def _open_cpu(networks: Sequence[NetworkFile], how: Opening) -> Executor:
    from senoscope.engine.cpu import CpuExecutor

    return CpuExecutor(networks, how.threads, how.cancellation)


DEVICES: Final[dict[str, DeviceRow]] = {
    "cuda": DeviceRow(
        "CUDA", "a GPU was found", gpu_problem, _open_cuda, ("fp16", "tf32", "fp32"), nvidia=True
    ),
    "tensorrt-rtx": DeviceRow(
        "TensorRT RTX",
        "a GPU was found",
        _tensorrt_rtx_problem,
        _open_tensorrt_rtx,
        ("fp16", "tf32", "fp32"),
        automatic=False,
        nvidia=True,
    ),
    # On a CPU, fp16 files are computed in fp32.
    "openvino": DeviceRow(
        "OpenVINO",
        "it is installed",
        _openvino_problem,
        _open_openvino,
        ("int8", "fp32", "fp16"),
        automatic=False,
    ),
    # ONNX Runtime's CPU provider casts fp16 files to fp32, which takes longer than fp32.
    "cpu": DeviceRow("CPU", "it is always there", lambda: None, _open_cpu, ("int8", "fp32", "fp16")),
}
"""All devices, in the order in which ``auto`` tries them."""


def open_on_device(device: Device, attempt: Callable[[DeviceRow], _T]) -> tuple[_T, str]:
    """Open the networks on a device.

    Parameters
    ----------
    device : {"auto", "cuda", "tensorrt-rtx", "openvino", "cpu"}
        ``auto`` uses CUDA if there is a GPU that works, otherwise the CPU; a name requires that device.
    attempt : callable
        Opens them on the device of a row; DeviceError lets ``auto`` try the next one.

    Returns
    -------
    opened
        What the attempt returned.
    reason : str
        Why the device was selected.

    Raises
    ------
    DeviceError
        If the required device cannot be used.
    EnsembleError
        If a file is not a valid network of the ensemble.
    """
    if device != "auto":
        row = DEVICES[device]
        problem = row.problem()
        if problem is not None:
            raise DeviceError(
                f"--device {device}: {problem}; run `senoscope doctor` for details, or use --device cpu"
            )
        opened = attempt(row)
        return opened, f"{_title(row, opened)}, as configured"
    problems: list[str] = []
    for row in DEVICES.values():
        if not row.automatic:
            continue
        problem = row.problem()
        if problem is None:
            try:
                opened = attempt(row)
            except DeviceError as error:
                problem = str(error)
            else:
                return opened, f"{_title(row, opened)}: {'; '.join(problems) or row.found}"
        problems.append(problem)
    raise DeviceError("; ".join(problems))


def _title(row: DeviceRow, opened: OnHardware) -> str:
    return f"{row.title} on {opened.hardware}" if opened.hardware else row.title
