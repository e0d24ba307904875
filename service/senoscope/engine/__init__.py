"""The engine: arrays and a manifest in, predictions out; it knows nothing of transport or storage."""

import os

# ONNX Runtime tells its makers of sessions over the network, unless it is told before it is loaded that
# nobody wants that; who does can set the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

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
