"""The devices that can run an ensemble, and the selection of one; ONNX Runtime is imported on first use.

Another device or precision is a subclass of `Executor`, its row in `DEVICES`, and its name in
`Device`, which the settings and the commands offer.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeVar

from senoscope.engine.errors import DeviceError
from senoscope.engine.precision import Precision

if TYPE_CHECKING:
    from senoscope.engine.executor import Executor, NetworkFile, Opening

_T = TypeVar("_T")
Device = Literal["auto", "cuda", "cpu"]
"""A name of `DEVICES`, or ``auto``: the first of them that works."""


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


def gpu_problem() -> str | None:
    """Return why no GPU can be used, or None if the driver finds one."""
    import onnxruntime as ort

    from senoscope.engine.sessions import CUDA

    if CUDA not in ort.get_available_providers():
        return "this build of ONNX Runtime has no CUDA provider"
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return "no NVIDIA driver is installed"
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value < 1:
        return "the NVIDIA driver finds no GPU"
    return None


def _open_cuda(networks: Sequence[NetworkFile], how: Opening) -> Executor:
    from senoscope.engine.bound import BoundExecutor

    return BoundExecutor(networks, tf32=how.precision != "fp32", cancellation=how.cancellation)


def _open_cpu(networks: Sequence[NetworkFile], how: Opening) -> Executor:
    from senoscope.engine.cpu import CpuExecutor

    return CpuExecutor(networks, how.threads, how.cancellation)


DEVICES: Final[dict[str, DeviceRow]] = {
    "cuda": DeviceRow("CUDA", "a GPU was found", gpu_problem, _open_cuda, ("fp16", "tf32", "fp32")),
    # ONNX Runtime's CPU provider casts fp16 files to fp32, which takes longer than fp32.
    "cpu": DeviceRow("CPU", "it is always there", lambda: None, _open_cpu, ("int8", "fp32", "fp16")),
}
"""All devices, in the order in which ``auto`` tries them."""


def open_on_device(device: Device, attempt: Callable[[DeviceRow], _T]) -> tuple[_T, str]:
    """Open the networks on a device.

    Parameters
    ----------
    device : {"auto", "cuda", "cpu"}
        ``auto`` uses a GPU if there is one that works, otherwise the CPU; a name requires that device.
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
        return attempt(row), f"{row.title}, as configured"
    problems: list[str] = []
    for row in DEVICES.values():
        problem = row.problem()
        if problem is None:
            try:
                opened = attempt(row)
            except DeviceError as error:
                problem = str(error)
            else:
                return opened, f"{row.title}: {'; '.join(problems) or row.found}"
        problems.append(problem)
    raise DeviceError("; ".join(problems))
