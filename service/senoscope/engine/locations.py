"""Locations of ensembles on this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import platformdirs

import senoscope.engine
from senoscope.engine.errors import EnsembleError


def default_models_dir() -> Path:
    """Return ``models/`` of the clone that the package was installed from, or of the user's data folder."""
    clone = Path(senoscope.engine.__file__).resolve().parents[3]
    if (clone / "pyproject.toml").is_file() and (clone / "models").is_dir():
        return clone / "models"
    return platformdirs.user_data_path("senoscope", appauthor=False) / "models"


def _find_in_default(model: str) -> Path:
    return find_ensemble(model, default_models_dir())


find_by_name: Callable[[str], Path] = _find_in_default
"""Finds an ensemble by name in the default folder; ``senoscope`` replaces it to build the starter."""


def find_ensemble(model: str, models_dir: Path) -> Path:
    """Return the folder of an ensemble.

    Parameters
    ----------
    model : str
        Name in ``models_dir``, or path of a folder.
    models_dir : Path
        Folder of the named ensembles.

    Raises
    ------
    EnsembleError
        If there is no such ensemble; the message lists the available names.
    """
    from senoscope.engine.manifest import MANIFEST_NAME

    named = models_dir / model
    for candidate in (named, Path(model)):
        if (candidate / MANIFEST_NAME).is_file():
            return candidate.resolve()
    present = sorted(path.parent.name for path in models_dir.glob(f"*/{MANIFEST_NAME}"))
    available = f"there are: {', '.join(present)}" if present else "that folder has none yet"
    raise EnsembleError(
        Path(model) if Path(model).is_dir() else named,
        f"no ensemble here; {available}. --model takes the name of an ensemble in --models-dir, or the "
        "path of its folder; without it, the starter ensemble is built",
    )
