"""The engine: arrays and a manifest in, predictions out; it knows nothing of transport or storage."""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# ONNX Runtime tells its makers of sessions over the network, unless it is told before it is loaded that
# nobody wants that; who does can set the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from senoscope.engine.ensemble import Ensemble, Prediction
    from senoscope.engine.errors import DeviceError, EnsembleError
    from senoscope.engine.intensity import IntensityRange, fit_range
    from senoscope.engine.manifest import Manifest, read_manifest

__all__ = [
    "DeviceError",
    "Ensemble",
    "EnsembleError",
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
    "IntensityRange": "intensity",
    "Manifest": "manifest",
    "Prediction": "ensemble",
    "fit_range": "intensity",
    "read_manifest": "manifest",
}


# ONNX Runtime and OpenCV are imported with the first name that needs them: a command that only looks for the
# folder of an ensemble does not wait for them.
def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return value
