"""Changing the ensemble between two frames, and only for one that was verified and is warm."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import structlog

from senoscope.engine import DeviceError, Ensemble, EnsembleError, read_manifest
from senoscope.engine.cancellation import Cancellation
from senoscope.engine.manifest import MANIFEST_NAME
from senoscope.engine.options import Device
from senoscope.scheduling.active_ensemble import Loaded
from senoscope.scheduling.scheduler import Scheduler
from senoscope.settings import Settings
from senoscope_client.errors import Conflict, ModelRejected, NotReady

_log = structlog.get_logger(__name__)
_SWAP_TIMEOUT_S = 60.0
# What a loading that was cancelled may take to end: an operator of a graph, or a file that is being read.
_GIVE_UP_S = 10.0
_LISTED_FOR_S = 1.0


def load_ensemble(
    directory: Path,
    settings: Settings,
    device: Device | None = None,
    cancellation: Cancellation | None = None,
) -> Ensemble:
    """Load an ensemble as the settings say, verified and warm."""
    ensemble = Ensemble.load(
        directory,
        device=device or settings.device,
        threads=settings.threads,
        largest_batch=settings.batch_size,
        batch_within_ms=settings.deadline_ms,
        cancellation=cancellation,
    )
    for warning in ensemble.warnings:
        _log.warning("this ensemble has a fault", model=ensemble.manifest.name, fault=warning)
    return ensemble


class Loading:
    """An ensemble that is loaded on a thread of its own, which can be left behind.

    Python waits for other threads when it exits, and neither a graph that never ends nor a file that is read
    from a disk which does not answer may be interruptible.

    Parameters
    ----------
    load : callable
        Loads it; begins at once.
    cancellation : Cancellation
        What ``load`` looks at.
    """

    def __init__(self, load: Callable[[], Ensemble], cancellation: Cancellation) -> None:
        self._load = load
        self._cancellation = cancellation
        self._lock = threading.Lock()
        self._left = False
        self._outcome: Ensemble | BaseException | None = None
        self.thread = threading.Thread(target=self._run, name="model loader", daemon=True)
        self.thread.start()

    def wait(self, within_s: float, too_late: Exception) -> Ensemble:
        """The ensemble; raises why there is none, which is ``too_late`` after so many seconds."""
        limit_s = time.monotonic() + within_s
        while self.thread.is_alive() and self._cancellation.error is None and time.monotonic() < limit_s:
            self.thread.join(0.05)
        if self.thread.is_alive():
            self._cancellation.cancel(too_late)
            self.thread.join(_GIVE_UP_S)
        with self._lock:
            self._left = True
            outcome, self._outcome = self._outcome, None
        if isinstance(outcome, BaseException):
            raise outcome
        if outcome is not None and self._cancellation.error is not None:
            outcome.close()
        self._cancellation.require()
        assert outcome is not None
        return outcome

    def _run(self) -> None:
        outcome: Ensemble | BaseException
        try:
            outcome = self._load()
        except BaseException as error:
            outcome = error
        with self._lock:
            if not self._left:
                self._outcome = outcome
                return
        if isinstance(outcome, Ensemble):
            outcome.close()


class ModelSwitch:
    """Loads an ensemble beside the one in use, then lets it take over.

    What is asked for last counts: a change that is still loading is given up for it.

    Parameters
    ----------
    settings : Settings
    scheduler : Scheduler
    """

    def __init__(self, settings: Settings, scheduler: Scheduler) -> None:
        self._settings = settings
        self._scheduler = scheduler
        self._lock = threading.Lock()  # over the three below
        self._last: Cancellation | None = None
        self._loading: list[Loading] = []
        self._closed = False
        self._busy = threading.Lock()  # held by the one change that is under way

    @property
    def loading(self) -> bool:
        """Whether an ensemble is still being loaded, even if it was given up."""
        with self._lock:
            self._loading = [one for one in self._loading if one.thread.is_alive()]
            return bool(self._loading)

    def change(self, name: str) -> Loaded:
        """Change to an ensemble of ``--models-dir``; returns when it computes.

        Raises
        ------
        ModelRejected
            If it cannot be loaded, or not in time; the one in use was not touched.
        Conflict
            If it was given up for a later change, or another one cannot be stopped.
        NotReady
            If the service stops, or the one in use does not finish what it computes.
        """
        # A name that was found there, never a path: who may change the model need not see the rest of the
        # disk, and not every text can be asked for as a file.
        there = {path.name: path for path in _folders(self._settings.models_dir)}
        if name not in there:
            raise ModelRejected(
                f"{name[:80]!r} is no ensemble of the models folder; there are: {', '.join(there) or 'none'}"
            )
        return self._change(there[name], None)

    def fall_back(self, lost: Ensemble) -> Loaded:
        """Change to the same ensemble on the CPU, after a GPU was lost.

        Raises
        ------
        ModelRejected
            If it cannot be loaded, or its folder holds another ensemble by now.
        Conflict, NotReady
            As `change`.
        """
        return self._change(lost.directory, "cpu", lost.digest)

    def close(self) -> None:
        """Give up a change that is under way, and take no more."""
        with self._lock:
            self._closed = True
            last = self._last
        if last is not None:
            last.cancel(NotReady("the service is stopping"))

    def _change(self, directory: Path, device: Device | None, digest: str | None = None) -> Loaded:
        cancellation = Cancellation()
        with self._lock:
            if self._closed:
                raise NotReady("the service is stopping")
            earlier, self._last = self._last, cancellation
        if earlier is not None:
            earlier.cancel(Conflict("another ensemble was asked for while this one was loaded"))
        if not self._busy.acquire(timeout=2 * _GIVE_UP_S):
            raise Conflict("another ensemble is just taking over; try again in a moment")
        try:
            cancellation.require()
            if self.loading:
                raise Conflict("an ensemble that was given up cannot be stopped; restart the service")
            return self._load_and_swap(directory, device, digest, cancellation)
        finally:
            self._busy.release()

    def _load_and_swap(
        self, directory: Path, device: Device | None, digest: str | None, cancellation: Cancellation
    ) -> Loaded:
        loading = Loading(
            lambda: load_ensemble(directory, self._settings, device, cancellation),
            cancellation,
        )
        with self._lock:
            self._loading.append(loading)
        within_s = self._settings.load_timeout_s
        too_late = ModelRejected(f"{directory.name}: was not loaded within {within_s:g} s (--load-timeout-s)")
        try:
            ensemble = loading.wait(within_s, too_late)
        except EnsembleError as error:
            where = error.path.relative_to(directory) if error.path != directory else Path(directory.name)
            raise ModelRejected(f"{where.as_posix()}: {error.problem}") from error
        except DeviceError as error:
            raise ModelRejected(str(error)) from error
        loaded = Loaded.of(ensemble, self._settings.deadline_ms)
        try:
            if digest is not None and ensemble.digest != digest:
                raise ModelRejected(f"{directory.name} holds another ensemble than the one in use")
            old = self._swap(loaded)
        except BaseException:
            ensemble.close()
            raise
        old.ensemble.close()
        _log.info(
            "ensemble changed",
            before=f"{old.ensemble.manifest.name} {old.ensemble.manifest.version}",
            model=ensemble.manifest.name,
            version=ensemble.manifest.version,
            **ensemble.describe(),
        )
        return loaded

    def _swap(self, loaded: Loaded) -> Loaded:
        """Let an ensemble take over; the one before it."""
        taking_over = self._scheduler.swap(loaded)
        try:
            return taking_over.result(_SWAP_TIMEOUT_S)
        except TimeoutError:
            if self._scheduler.cancel_swap(taking_over):
                raise NotReady(
                    f"the ensemble in use did not finish what it computes within {_SWAP_TIMEOUT_S:g} s; it "
                    "stays in use"
                ) from None
            return taking_over.result()


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


class EnsembleList:
    """The ensembles of a folder, listed on one thread for all who ask, and anew when that is a second ago.

    Nothing waits for that thread: a folder may be on a disk that does not answer.

    Parameters
    ----------
    models_dir : Path
    """

    def __init__(self, models_dir: Path) -> None:
        self._models_dir = models_dir
        self._lock = threading.Lock()
        self._latest: Future[list[dict[str, Any]]] | None = None
        self._began_s = 0.0

    def ask(self) -> Future[list[dict[str, Any]]]:
        """What `list_ensembles` finds; returns at once."""
        with self._lock:
            latest = self._latest
            if latest is None or (latest.done() and time.monotonic() > self._began_s + _LISTED_FOR_S):
                latest = self._latest = Future()
                latest.set_running_or_notify_cancel()  # a caller that gives up does not cancel it for others
                self._began_s = time.monotonic()
                threading.Thread(target=self._list, args=(latest,), name="ensemble list", daemon=True).start()
            return latest

    def _list(self, listing: Future[list[dict[str, Any]]]) -> None:
        try:
            listing.set_result(list_ensembles(self._models_dir))
        except Exception as error:
            listing.set_exception(error)


def _folders(models_dir: Path) -> list[Path]:
    return [path.parent for path in sorted(models_dir.glob(f"[!.]*/{MANIFEST_NAME}"))]
