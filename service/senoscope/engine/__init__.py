"""The engine: computes predictions from arrays and a manifest, independent of transport and storage."""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# Turns the telemetry of ONNX Runtime off; must be set before its import. Set it to 0 to allow telemetry.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from senoscope.engine.ensemble import Ensemble, Prediction
    from senoscope.engine.errors import DeviceError, EnsembleError
    from senoscope.engine.gate import GateLimits
    from senoscope.engine.intensity import IntensityRange, fit_range
    from senoscope.engine.manifest import Manifest, read_manifest

__all__ = [
    "DeviceError",
    "Ensemble",
    "EnsembleError",
    "GateLimits",
    "IntensityRange",
    "Manifest",
    "Prediction",
    "fit_range",
    "read_manifest",
]

_MODULES = {
    "DeviceError": "errors",
    "Ensemble": "ensemble",
    "EnsembleError": "errors",
    "GateLimits": "gate",
    "IntensityRange": "intensity",
    "Manifest": "manifest",
    "Prediction": "ensemble",
    "fit_range": "intensity",
    "read_manifest": "manifest",
}


# ONNX Runtime and OpenCV are imported with the first name that needs them, so that a command which only looks
# up the folder of an ensemble starts quickly.
def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return value
