"""Senoscope: find fields of view with senescent cells while the microscope scans."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from senoscope.engine import Ensemble, Prediction
    from senoscope.starter.locate import load_ensemble

    __version__: str

__all__ = ["Ensemble", "Prediction", "__version__", "load_ensemble"]


# Evaluated on first use: an installation of the client alone lacks the packages of the engine, and reading
# the version takes longer than most other steps of a command line's start.
def __getattr__(name: str) -> Any:
    value: Any
    if name == "__version__":
        value = _version()
    elif name in {"Ensemble", "Prediction"}:
        from senoscope import engine
        from senoscope.engine import locations
        from senoscope.starter.locate import locate_by_name

        # The engine does not import the starter, which Ensemble.load("starter") may have to build.
        locations.find_by_name = locate_by_name
        value = getattr(engine, name)
    elif name == "load_ensemble":
        from senoscope.starter import locate

        value = locate.load_ensemble
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("senoscope")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "0+unknown"
