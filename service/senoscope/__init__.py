"""Senoscope: which fields of view hold senescent cells, while the microscope still scans."""

from importlib.metadata import version

from senoscope.engine import Ensemble, Prediction

__all__ = ["Ensemble", "Prediction", "__version__"]
__version__ = version("senoscope")
