"""The starter ensemble: seven networks for demonstrations and tests, built from a recipe of a few megabytes.

Its backbones are random, so the files contain little besides the output of a bit generator: the graph, one
scale and one bias per channel, and the trained head. The package includes these as a *recipe*
(:mod:`~senoscope.starter.recipe`), from which NumPy rebuilds the ONNX files byte for byte
(:mod:`~senoscope.starter.build`). ``senoscope-train starter --recipe`` creates a new recipe.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from senoscope.starter.build import StarterError, build_starter
    from senoscope.starter.locate import locate_ensemble, require_ensemble

STARTER_NAME: Final = "starter"

__all__ = ["STARTER_NAME", "StarterError", "build_starter", "locate_ensemble", "require_ensemble"]
_MODULES = {
    "StarterError": "build",
    "build_starter": "build",
    "locate_ensemble": "locate",
    "require_ensemble": "locate",
}


# Imported on first use: only building needs NumPy.
def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
