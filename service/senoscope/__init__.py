"""Senoscope: which fields of view hold senescent cells, while the microscope still scans."""

from importlib.metadata import PackageNotFoundError, version

from senoscope.engine import Ensemble, Prediction

__all__ = ["Ensemble", "Prediction", "__version__"]

try:
    __version__ = version("senoscope")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"
