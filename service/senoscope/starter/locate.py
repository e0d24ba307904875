"""Lookup of the ensemble to use; the starter ensemble is built if it is named and missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from senoscope.engine.errors import EnsembleError
from senoscope.engine.locations import find_ensemble
from senoscope.starter import STARTER_NAME

NOTICE = "Building the starter ensemble in {models_dir} (once): for demonstrations, not for science."


def require_ensemble(model: str, models_dir: Path) -> Path | None:
    """Return the folder of an ensemble, or None for the starter ensemble if it is not built yet.

    Raises
    ------
    EnsembleError
        If there is no such ensemble.
    """
    try:
        return find_ensemble(model, models_dir)
    except EnsembleError:
        if model != STARTER_NAME:
            raise
        return None


def locate_ensemble(
    model: str,
    models_dir: Path,
    notify: Callable[[str], object],
    progress: Callable[[int, int], object] = lambda _done, _total: None,
) -> Path:
    """Return the folder of an ensemble; builds the starter ensemble if it is named and missing.

    Parameters
    ----------
    model, models_dir
        See :func:`senoscope.engine.locations.find_ensemble`.
    notify : callable
        Called with a line of text before a build.
    progress : callable
        See :func:`senoscope.starter.build.build_starter`.

    Raises
    ------
    EnsembleError
        If there is no such ensemble.
    StarterError
        If the starter ensemble cannot be built.
    """
    found = require_ensemble(model, models_dir)
    if found is not None:
        return found
    from senoscope.starter.build import build_starter

    notify(NOTICE.format(models_dir=models_dir))
    return build_starter(models_dir, progress).resolve()
