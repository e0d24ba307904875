"""The memory of the GPU, from the driver's management library (NVML)."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import structlog

_log = structlog.get_logger(__name__)
_BUS_ID_BYTES = 32


class GpuMemory:
    """Reader of the GPU's memory; needs the package ``nvidia-ml-py`` of the extra ``gpu``.

    The memory in use is that of all processes: inside a container the processes are not distinguishable.
    """

    def __init__(self) -> None:
        self._nvml: Any = None
        self._device: Any = None
        self._unavailable = False

    def read(self) -> tuple[int | None, int | None]:
        """Return bytes in use and all bytes of the GPU that ONNX Runtime uses; None if they are unknown."""
        if self._unavailable:
            return None, None
        try:
            if self._nvml is None:
                self._nvml, self._device = open_gpu()
            memory = self._nvml.nvmlDeviceGetMemoryInfo(self._device)
        except Exception as error:  # NVMLError, OSError or ImportError: only this metric is missing
            self._unavailable = True
            _log.warning("the GPU's memory is not measured", reason=f"{type(error).__name__}: {error}")
            return None, None
        return int(memory.used), int(memory.total)


def open_gpu() -> tuple[Any, Any]:
    """Return the module of NVML, and its handle of the GPU that ONNX Runtime uses.

    Raises
    ------
    Exception
        ImportError without the package ``nvidia-ml-py``, OSError without a driver, or an NVMLError.
    """
    import pynvml

    # CUDA numbers only the devices that this process may see; NVML numbers all.
    cuda = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    bus_id = ctypes.create_string_buffer(_BUS_ID_BYTES)
    if cuda.cuInit(0) != 0 or cuda.cuDeviceGetPCIBusId(bus_id, _BUS_ID_BYTES, 0) != 0:
        raise OSError("the driver does not report which GPU is the first")
    pynvml.nvmlInit()
    return pynvml, pynvml.nvmlDeviceGetHandleByPciBusId(bus_id.value)
