"""The first NVIDIA GPU, as its driver describes it; needs no other package."""

from __future__ import annotations

import ctypes
import sys
import uuid
from typing import Final, NamedTuple

from senoscope.engine.errors import DeviceError

_TEXT_BYTES: Final = 256
# Attributes of cuDeviceGetAttribute.
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76


class Gpu(NamedTuple):
    """An NVIDIA GPU."""

    name: str
    capability: tuple[int, int]
    """Of its architecture: 8.6 for the RTX 30 series."""
    identifier: str
    """Differs between two cards of the same type."""
    driver: str


def find_gpu() -> Gpu:
    """Return the first GPU that this process may use.

    Raises
    ------
    DeviceError
        If there is no driver, or it finds none.
    """
    try:
        cuda = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError as error:
        raise DeviceError("no NVIDIA driver is installed") from error
    count, device = ctypes.c_int(0), ctypes.c_int(0)
    if cuda.cuInit(0) != 0 or cuda.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value < 1:
        raise DeviceError("the NVIDIA driver finds no GPU")
    name, number = ctypes.create_string_buffer(_TEXT_BYTES), ctypes.create_string_buffer(16)
    major, minor = ctypes.c_int(0), ctypes.c_int(0)
    failed = (
        cuda.cuDeviceGet(ctypes.byref(device), 0)
        or cuda.cuDeviceGetName(name, _TEXT_BYTES, device)
        or cuda.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device)
        or cuda.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, device)
        or cuda.cuDeviceGetUuid(number, device)
    )
    if failed:
        raise DeviceError(f"the NVIDIA driver does not describe the GPU: CUDA error {failed}")
    return Gpu(
        name.value.decode(errors="replace"),
        (major.value, minor.value),
        str(uuid.UUID(bytes=number.raw)),
        _driver_version(cuda),
    )


def _driver_version(cuda: ctypes.CDLL) -> str:
    """Return the driver's version, or that of its CUDA interface if its management library is missing."""
    try:
        nvml = ctypes.CDLL("nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1")
    except OSError:
        version = ctypes.c_int(0)
        cuda.cuDriverGetVersion(ctypes.byref(version))
        return f"for CUDA {version.value // 1000}.{version.value % 1000 // 10}"
    text = ctypes.create_string_buffer(_TEXT_BYTES)
    nvml.nvmlInit_v2()
    nvml.nvmlSystemGetDriverVersion(text, _TEXT_BYTES)
    nvml.nvmlShutdown()
    return text.value.decode(errors="replace")
