"""The engine: arrays and a manifest in, predictions out; it knows nothing of transport or storage."""

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
