"""Lookup of the ensemble to use; the starter ensemble is built if it is named and missing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from senoscope.engine.errors import EnsembleError
from senoscope.engine.locations import find_ensemble
from senoscope.starter import STARTER_NAME

if TYPE_CHECKING:
    from senoscope.engine.devices import Device
    from senoscope.engine.ensemble import Ensemble
    from senoscope.engine.precision import PrecisionChoice

_NOTICE: Final = "Building the starter ensemble in {models_dir} (once): for demonstrations, not for science."
_log = logging.getLogger(__name__)


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
    notify: Callable[[str], object] = _log.warning,
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

    notify(_NOTICE.format(models_dir=models_dir))
    return build_starter(models_dir, progress).resolve()


def locate_by_name(model: str) -> Path:
    """Return the folder of an ensemble in the folder that the settings name; may build the starter."""
    from senoscope.settings import Settings

    return locate_ensemble(model, Settings().models_dir)


def load_ensemble(
    model: str | Path = STARTER_NAME,
    *,
    models_dir: Path | str | None = None,
    device: Device = "auto",
    precision: PrecisionChoice = "auto",
    threads: int | None = None,
) -> Ensemble:
    """Load an ensemble by its name or folder, as ``senoscope serve --model`` does.

    Parameters
    ----------
    model : str or path
        Name in ``models_dir``, or path of a folder. ``starter`` is built there if it is missing.
    models_dir : path, optional
        Folder of the named ensembles. Default: that of the service, which ``SENOSCOPE_MODELS_DIR`` sets.
    device, precision, threads
        See :meth:`senoscope.Ensemble.load`.

    Raises
    ------
    EnsembleError
        If there is no such ensemble, or one of its files is missing or wrong.
    StarterError
        If the starter ensemble cannot be built.
    DeviceError
        If the configured device cannot be used.
    """
    from senoscope.engine.ensemble import Ensemble

    name = str(model)
    folder = locate_by_name(name) if models_dir is None else locate_ensemble(name, Path(models_dir))
    return Ensemble.load(folder, device=device, precision=precision, threads=threads)
