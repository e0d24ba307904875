"""Choosing the hardware, out loud."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence

import onnxruntime as ort

from senoscope.engine.bound import BoundExecutor
from senoscope.engine.cpu import CpuExecutor
from senoscope.engine.errors import DeviceError
from senoscope.engine.executor import Executor, NetworkFile
from senoscope.engine.options import Device
from senoscope.engine.sessions import CUDA


def gpu_problem() -> str | None:
    """Why no GPU can be used, as far as the driver tells; None where it sees one."""
    if CUDA not in ort.get_available_providers():
        return "this build of ONNX Runtime has no CUDA provider"
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return "no NVIDIA driver is installed"
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value < 1:
        return "the NVIDIA driver sees no GPU"
    return None


def open_executor(
    networks: Sequence[NetworkFile], device: Device, threads: int | None
) -> tuple[Executor, str]:
    """Open the networks on a device.

    Parameters
    ----------
    device : {"auto", "cuda", "cpu"}
        ``auto`` takes the GPU where there is one that works, else the CPU; the other two insist.

    Returns
    -------
    executor : Executor
    reason : str
        Why it runs where it runs, in words.

    Raises
    ------
    DeviceError
        If ``cuda`` was asked for and cannot be had.
    EnsembleError
        If a file is no network of the contract.
    """
    if device == "cpu":
        return CpuExecutor(networks, threads), "CPU, as asked for"
    problem = gpu_problem()
    if device == "cuda":
        if problem:
            raise DeviceError(
                f"--device cuda: {problem}; `senoscope doctor` tells more, --device cpu does without"
            )
        return BoundExecutor(networks), "CUDA, as asked for"
    if problem is None:
        try:
            return BoundExecutor(networks), "CUDA: a GPU was found"
        except DeviceError as error:
            problem = str(error)
    return CpuExecutor(networks, threads), f"CPU: {problem}"
