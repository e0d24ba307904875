"""Senoscope: which fields of view hold senescent cells, while the microscope still scans."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from senoscope.engine import Ensemble, Prediction

__all__ = ["Ensemble", "Prediction", "__version__"]

try:
    __version__ = version("senoscope")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"


# The client's install has this package too, but nothing that the engine needs.
def __getattr__(name: str) -> Any:
    if name not in {"Ensemble", "Prediction"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("senoscope.engine"), name)
