"""Changing the ensemble between two frames, and only for one that was verified and is warm."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from senoscope.engine import DeviceError, Ensemble, EnsembleError, read_manifest
from senoscope.engine.manifest import MANIFEST_NAME
from senoscope.engine.options import Device
from senoscope.loaded import Loaded
from senoscope.scheduler import Scheduler
from senoscope.settings import Settings
from senoscope_client.errors import Conflict, ModelRejected

_log = structlog.get_logger(__name__)
_SWAP_TIMEOUT_S = 120.0


def load_ensemble(directory: Path, settings: Settings, device: Device | None = None) -> Ensemble:
    """Load an ensemble as the settings say, verified and warm."""
    ensemble = Ensemble.load(
        directory,
        device=device or settings.device,
        threads=settings.threads,
        largest_batch=settings.batch_size,
        batch_within_ms=settings.deadline_ms,
    )
    for warning in ensemble.warnings:
        _log.warning("this ensemble has a fault", model=ensemble.manifest.name, fault=warning)
    return ensemble


class ModelSwitch:
    """Loads an ensemble beside the one in use, then lets it take over.

    Parameters
    ----------
    settings : Settings
    scheduler : Scheduler
    took_over : callable
        Told of the new ensemble as soon as the next batch is its.
    """

    def __init__(self, settings: Settings, scheduler: Scheduler, took_over: Callable[[Loaded], None]) -> None:
        self._settings = settings
        self._scheduler = scheduler
        self._took_over = took_over
        self._busy = threading.Lock()

    def change(self, name: str) -> Loaded:
        """Change to an ensemble of ``--models-dir``; returns when it computes.

        Raises
        ------
        ModelRejected
            If it cannot be loaded; the one in use was not touched.
        Conflict
            If another change is under way.
        """
        # A name that was found there, never a path: who may change the model need not see the rest of the
        # disk, and not every text can be asked for as a file.
        there = {path.name: path for path in _folders(self._settings.models_dir)}
        if name not in there:
            raise ModelRejected(
                f"{name[:80]!r} is no ensemble of the models folder; there are: {', '.join(there) or 'none'}"
            )
        return self._change(there[name], None)

    def fall_back(self, directory: Path) -> Loaded:
        """The same ensemble on the CPU, after a GPU was lost."""
        return self._change(directory, "cpu")

    def _change(self, directory: Path, device: Device | None) -> Loaded:
        if not self._busy.acquire(blocking=False):
            raise Conflict("another ensemble is being loaded; wait until it is done")
        try:
            try:
                ensemble = load_ensemble(directory, self._settings, device)
            except EnsembleError as error:
                where = error.path.relative_to(directory) if error.path != directory else Path(directory.name)
                raise ModelRejected(f"{where.as_posix()}: {error.problem}") from error
            except DeviceError as error:
                raise ModelRejected(str(error)) from error
            loaded = Loaded.of(ensemble, self._settings.deadline_ms)
            try:
                old = self._scheduler.swap(loaded).result(_SWAP_TIMEOUT_S)
            except BaseException:
                ensemble.close()
                raise
            self._took_over(loaded)
            old.ensemble.close()
            _log.info(
                "ensemble changed",
                before=f"{old.ensemble.manifest.name} {old.ensemble.manifest.version}",
                model=ensemble.manifest.name,
                version=ensemble.manifest.version,
                **ensemble.describe(),
            )
            return loaded
        finally:
            self._busy.release()


def list_ensembles(models_dir: Path) -> list[dict[str, Any]]:
    """Every ensemble in a folder, with what its manifest says, or why it cannot be read.

    Files are not verified: that takes seconds, and is done when one is loaded.
    """
    found: list[dict[str, Any]] = []
    for folder in _folders(models_dir):
        entry: dict[str, Any] = {"name": folder.name}
        try:
            manifest, digest = read_manifest(folder)
        except EnsembleError as error:
            entry["problem"] = error.problem
        else:
            entry |= {
                "title": manifest.name,
                "version": manifest.version,
                "digest": digest,
                "created": manifest.created.isoformat(),
                "networks": len(manifest.networks),
                "channels": list(manifest.input.channel_names),
                "height": manifest.input.height,
                "width": manifest.input.width,
                "for_science": manifest.for_science,
                "intended_use": manifest.intended_use,
                "metrics": manifest.metrics,
            }
        found.append(entry)
    return found


def _folders(models_dir: Path) -> list[Path]:
    return [path.parent for path in sorted(models_dir.glob(f"[!.]*/{MANIFEST_NAME}"))]
