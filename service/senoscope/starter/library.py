"""The engine as a library: load ensembles by name, and build the starter ensemble if it is missing."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from senoscope.starter import STARTER_NAME
from senoscope.starter.locate import locate_ensemble

if TYPE_CHECKING:
    from senoscope.engine.devices import Device
    from senoscope.engine.ensemble import Ensemble

_log = logging.getLogger(__name__)


def load_ensemble(
    model: str | Path = STARTER_NAME,
    *,
    models_dir: Path | str | None = None,
    device: Device = "auto",
    threads: int | None = None,
) -> Ensemble:
    """Load an ensemble by its name or folder, as ``senoscope serve --model`` does.

    Parameters
    ----------
    model : str or path
        Name in ``models_dir``, or path of a folder. ``starter`` is built there if it is missing.
    models_dir : path, optional
        Folder of the named ensembles. Default: that of the service, which ``SENOSCOPE_MODELS_DIR`` sets.
    device, threads
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

    folder = locate(str(model), Path(models_dir) if models_dir is not None else None)
    return Ensemble.load(folder, device=device, threads=threads)


def locate(model: str, models_dir: Path | None = None) -> Path:
    """Return the folder of an ensemble; builds the starter ensemble if it is named and missing."""
    if models_dir is None:
        from senoscope.settings import Settings

        models_dir = Settings().models_dir
    return locate_ensemble(model, models_dir, _log.warning)
