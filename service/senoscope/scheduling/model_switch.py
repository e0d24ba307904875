"""Changing the ensemble between two frames, for one that was verified and warmed up before."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Required, TypedDict

import structlog

from senoscope.engine import DeviceError, Ensemble, EnsembleError, read_manifest
from senoscope.engine.cancellation import Cancellation
from senoscope.engine.devices import Device
from senoscope.engine.manifest import MANIFEST_NAME
from senoscope.engine.precision import PrecisionChoice
from senoscope.scheduling.active_ensemble import ActiveEnsemble, facts_for_log
from senoscope.scheduling.loading import CANCEL_WAIT_S, Loading
from senoscope.scheduling.scheduler import Scheduler
from senoscope.settings import Settings
from senoscope_client.errors import Conflict, ModelRejected, NotReady

_log = structlog.get_logger(__name__)
_SWAP_TIMEOUT_S = 60.0
_LISTING_VALID_S = 1.0


class ModelSwitch:
    """The change of the ensemble: one is loaded while another one is in use, then takes over.

    The last request wins: it cancels a change that is still loading.
    """

    def __init__(self, settings: Settings, scheduler: Scheduler) -> None:
        self._settings = settings
        self._scheduler = scheduler
        self._lock = threading.Lock()  # of the next two
        self._last: Cancellation | None = None
        self._closed = False
        self._loading: Loading | None = None
        self._busy = threading.Lock()  # held by the change in progress

    @property
    def loading(self) -> bool:
        """Whether an ensemble is still being loaded, even if that was cancelled."""
        return self._loading is not None and self._loading.thread.is_alive()

    def change(self, name: str, precision: PrecisionChoice | None = None) -> ActiveEnsemble:
        """Change to an ensemble of ``--models-dir``, and return when it is in use.

        Parameters
        ----------
        precision : str, optional
            Default: that of the settings. The ensemble in use may be loaded again in another one.

        Raises
        ------
        ModelRejected
            If it cannot be loaded, or not in time, or the device does not offer the precision; the one in use
            stays.
        Conflict
            If a later change cancelled it, or another one cannot be stopped.
        NotReady
            If the service stops, or the ensemble in use does not finish its batch.
        """
        # Only names that were found in the folder, never paths: a client that may change the model must not
        # reach the rest of the disk.
        known = {path.name: path for path in _folders(self._settings.models_dir)}
        if name not in known:
            raise ModelRejected(
                f"{name[:80]!r} is not in the models folder, which holds: {', '.join(known) or 'nothing'}"
            )
        return self._change(known[name], precision=precision)

    def fall_back(self, lost: Ensemble) -> ActiveEnsemble:
        """Change to the same ensemble on the CPU, after another device failed.

        Raises
        ------
        ModelRejected
            If it cannot be loaded, or its folder now holds another ensemble.
        Conflict, NotReady
            As `change`.
        """
        # In auto: the CPU may not offer the precision of the GPU.
        return self._change(lost.directory, device="cpu", digest=lost.digest, precision="auto")

    def close(self) -> None:
        """Cancel a change in progress, and accept no more."""
        with self._lock:
            self._closed = True
            last = self._last
        if last is not None:
            last.cancel(NotReady("the service is stopping"))

    def _change(
        self,
        directory: Path,
        *,
        precision: PrecisionChoice | None,
        device: Device | None = None,
        digest: str | None = None,
    ) -> ActiveEnsemble:
        cancellation = Cancellation()
        with self._lock:
            if self._closed:
                raise NotReady("the service is stopping")
            earlier, self._last = self._last, cancellation
        if earlier is not None:
            earlier.cancel(Conflict("a later request for another ensemble cancelled this one"))
        if not self._busy.acquire(timeout=2 * CANCEL_WAIT_S):
            raise Conflict("another ensemble is taking over; try again in a moment")
        try:
            cancellation.require()
            if self.loading:
                raise Conflict("the cancelled load of an ensemble does not end; restart the service")
            self._loading = Loading(directory, self._settings, cancellation, device, precision)
            return self._load_and_swap(self._loading, directory, digest)
        finally:
            self._busy.release()

    def _load_and_swap(self, loading: Loading, directory: Path, digest: str | None) -> ActiveEnsemble:
        within_s = self._settings.load_timeout_s
        too_late = ModelRejected(f"{directory.name}: was not loaded within {within_s:g} s (--load-timeout-s)")
        try:
            ensemble = loading.wait(within_s, too_late)
        except EnsembleError as error:
            where = error.path.relative_to(directory) if error.path != directory else Path(directory.name)
            raise ModelRejected(f"{where.as_posix()}: {error.problem}") from error
        except DeviceError as error:
            raise ModelRejected(str(error)) from error
        active = ActiveEnsemble.of(ensemble, self._settings.deadline_ms)
        try:
            if digest is not None and ensemble.digest != digest:
                raise ModelRejected(f"{directory.name} holds another ensemble than the one in use")
            old = self._swap(active)
        except BaseException:
            ensemble.close()
            raise
        old.ensemble.close()
        _log.info(
            "ensemble changed",
            before=f"{old.ensemble.manifest.name} {old.ensemble.manifest.version}",
            model=ensemble.manifest.name,
            version=ensemble.manifest.version,
            deadline_ms=active.deadline_ms,
            **facts_for_log(ensemble),
        )
        return active

    def _swap(self, active: ActiveEnsemble) -> ActiveEnsemble:
        """Let an ensemble take over, and return the one before it."""
        taking_over = self._scheduler.swap(active)
        try:
            return taking_over.result(_SWAP_TIMEOUT_S)
        except TimeoutError:
            if self._scheduler.cancel_swap(taking_over):
                raise NotReady(
                    f"the ensemble in use did not finish its batch within {_SWAP_TIMEOUT_S:g} s; it stays in "
                    "use"
                ) from None
            return taking_over.result()


class EnsembleFacts(TypedDict, total=False):
    """An ensemble of the models folder, as ``/v1/models`` lists it; ``problem`` replaces all but the name."""

    name: Required[str]
    problem: str
    title: str
    version: str
    digest: str
    created: str
    networks: int
    channels: list[str]
    height: int
    width: int
    for_science: bool
    intended_use: str
    metrics: dict[str, float]


def facts_of(folder: Path) -> EnsembleFacts:
    """Return the facts of an ensemble, or why its manifest cannot be read.

    Files are not verified: that takes seconds, and is done when an ensemble is loaded.
    """
    try:
        manifest, digest = read_manifest(folder)
    except EnsembleError as error:
        return {"name": folder.name, "problem": error.problem}
    return {
        "name": folder.name,
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


class EnsembleList:
    """The ensembles of a folder, listed at most once per second for all requests.

    Listed on a daemon thread for which nothing waits: the folder may be on a disk that does not respond.
    """

    def __init__(self, models_dir: Path) -> None:
        self._models_dir = models_dir
        self._lock = threading.Lock()
        self._latest: Future[list[EnsembleFacts]] | None = None
        self._began_s = 0.0

    def request(self) -> Future[list[EnsembleFacts]]:
        """Return a future of the ensembles, at once."""
        with self._lock:
            latest = self._latest
            if latest is None or (latest.done() and time.monotonic() > self._began_s + _LISTING_VALID_S):
                latest = self._latest = Future()
                latest.set_running_or_notify_cancel()  # one caller cannot cancel it for the others
                self._began_s = time.monotonic()
                threading.Thread(target=self._list, args=(latest,), name="ensemble list", daemon=True).start()
            return latest

    def _list(self, listing: Future[list[EnsembleFacts]]) -> None:
        try:
            listing.set_result([facts_of(folder) for folder in _folders(self._models_dir)])
        except Exception as error:
            listing.set_exception(error)


def _folders(models_dir: Path) -> list[Path]:
    return [path.parent for path in sorted(models_dir.glob(f"[!.]*/{MANIFEST_NAME}"))]
