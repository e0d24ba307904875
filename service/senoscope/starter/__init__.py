"""The starter ensemble: seven networks for demonstrations and tests, built from a recipe of a few megabytes.

Its backbones are random, so what a file of them holds beyond a bit generator's output is small: the graph,
one scale and one bias per channel, and the trained head. The package ships that as a *recipe*
(:mod:`~senoscope.starter.recipe`), from which NumPy alone rebuilds the ONNX files byte for byte
(:mod:`~senoscope.starter.build`). ``senoscope-train starter --recipe`` makes the recipe anew.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from senoscope.starter.build import StarterError, build_starter
    from senoscope.starter.locate import locate_ensemble, require_ensemble

STARTER_NAME: Final = "starter"

__all__ = ["STARTER_NAME", "StarterError", "build_starter", "locate_ensemble", "require_ensemble"]
_HOMES = {
    "StarterError": "build",
    "build_starter": "build",
    "locate_ensemble": "locate",
    "require_ensemble": "locate",
}


# Looking for an ensemble needs no NumPy; building one does.
def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
