"""Facts about this machine on which the time of a computation depends."""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from senoscope.engine.sessions import usable_cores

_CPUINFO: Final = Path("/proc/cpuinfo")
_GOVERNOR: Final = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_PACKAGES: Final = (
    *("onnxruntime-gpu", "onnxruntime", "onnxruntime-ep-nv-tensorrt-rtx-cu13", "openvino"),
    *("numpy", "opencv-python-headless", "pyzmq", "fastapi", "uvicorn", "uvloop", "httptools", "orjson"),
    *("sqlalchemy", "pydantic"),
)


class Gpu(BaseModel):
    """A GPU, as its driver describes it.

    Attributes
    ----------
    name, driver : str
    max_clocks_mhz, clocks_mhz : dict of str to int
        Of the processor (``graphics``) and the memory: the highest, and those at the time of the request.
    power_limit_w : float or None
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    driver: str
    max_clocks_mhz: dict[str, int]
    clocks_mhz: dict[str, int]
    power_limit_w: float | None = None


class Machine(BaseModel):
    """A machine and its software.

    Attributes
    ----------
    cpu : str
        Its model, or the architecture where the system does not report it.
    cores : int
        That this process may use.
    governor : str or None
        How the system sets the clock of the first core; None where it does not report it.
    gpu : Gpu or None
    gpu_unknown : str or None
        Why there is none: no driver, or the package ``nvidia-ml-py`` is missing.
    versions : dict of str to str
        Of Senoscope, Python and packages.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    system: str
    cpu: str
    cores: int
    governor: str | None
    gpu: Gpu | None
    gpu_unknown: str | None
    versions: dict[str, str]

    @classmethod
    def this(cls) -> Machine:
        """Return the facts about this machine."""
        gpu = _gpu()
        return cls(
            system=platform.platform(),
            cpu=_cpu(),
            cores=usable_cores(),
            governor=_governor(),
            gpu=gpu if isinstance(gpu, Gpu) else None,
            gpu_unknown=gpu if isinstance(gpu, str) else None,
            versions=installed_versions(),
        )


def installed_versions() -> dict[str, str]:
    """Return the versions of Senoscope, Python and the packages on which speed depends."""
    from senoscope import __version__

    found = {"senoscope": __version__, "Python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _cpu() -> str:
    try:
        for line in _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _governor() -> str | None:
    try:
        return _GOVERNOR.read_text(encoding="utf-8").strip()
    except OSError:
        return None


def _gpu() -> Gpu | str:
    """Return the GPU, or why it cannot be described."""
    from senoscope.metrics.device import open_gpu

    try:
        nvml, device = open_gpu()
        kinds = {"graphics": nvml.NVML_CLOCK_GRAPHICS, "memory": nvml.NVML_CLOCK_MEM}
        power_mw = _supported(nvml, nvml.nvmlDeviceGetEnforcedPowerLimit, device)
        return Gpu(
            name=nvml.nvmlDeviceGetName(device),
            driver=nvml.nvmlSystemGetDriverVersion(),
            max_clocks_mhz=_clocks(nvml, nvml.nvmlDeviceGetMaxClockInfo, device, kinds),
            clocks_mhz=_clocks(nvml, nvml.nvmlDeviceGetClockInfo, device, kinds),
            power_limit_w=None if power_mw is None else power_mw / 1000,
        )
    except Exception as error:  # NVMLError, OSError or ImportError: no GPU, no driver, or no package
        return f"{type(error).__name__}: {error}"


def _clocks(nvml: Any, read: Callable[..., int], device: Any, kinds: dict[str, int]) -> dict[str, int]:
    found = {name: _supported(nvml, read, device, kind) for name, kind in kinds.items()}
    return {name: clock for name, clock in found.items() if clock is not None}


def _supported(nvml: Any, read: Callable[..., int], *arguments: Any) -> int | None:
    """Return a figure of the driver, or None if this GPU does not have it, such as a part of a shared one."""
    try:
        return read(*arguments)
    except nvml.NVMLError_NotSupported:
        return None
