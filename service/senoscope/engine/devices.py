"""Selection of the device, with the reason for it."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence

import onnxruntime as ort

from senoscope.engine.bound import BoundExecutor
from senoscope.engine.cancellation import Cancellation
from senoscope.engine.cpu import CpuExecutor
from senoscope.engine.errors import DeviceError
from senoscope.engine.executor import Executor, NetworkFile
from senoscope.engine.options import Device
from senoscope.engine.sessions import CUDA


def gpu_problem() -> str | None:
    """Return why no GPU can be used, or None if the driver finds one."""
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


def open_executor(
    networks: Sequence[NetworkFile],
    device: Device,
    threads: int | None,
    cancellation: Cancellation | None = None,
) -> tuple[Executor, str]:
    """Open the networks on a device.

    Parameters
    ----------
    device : {"auto", "cuda", "cpu"}
        ``auto`` uses a GPU if there is one that works, otherwise the CPU; ``cuda`` and ``cpu`` require that
        device.
    cancellation : Cancellation, optional
        Interrupts opening and runs.

    Returns
    -------
    executor : Executor
    reason : str
        Why the device was selected.

    Raises
    ------
    DeviceError
        If ``cuda`` is required and cannot be used.
    EnsembleError
        If a file is not a valid network of the ensemble.
    """
    if device == "cpu":
        return CpuExecutor(networks, threads, cancellation), "CPU, as configured"
    problem = gpu_problem()
    if device == "cuda":
        if problem:
            raise DeviceError(
                f"--device cuda: {problem}; run `senoscope doctor` for details, or use --device cpu"
            )
        return BoundExecutor(networks, cancellation=cancellation), "CUDA, as configured"
    if problem is None:
        try:
            return BoundExecutor(networks, cancellation=cancellation), "CUDA: a GPU was found"
        except DeviceError as error:
            problem = str(error)
    return CpuExecutor(networks, threads, cancellation), f"CPU: {problem}"
