"""The service: every part made, connected, started and stopped, and nothing of HTTP."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from senoscope.delivery import Delivery, Sink
from senoscope.engine import Ensemble
from senoscope.engine.locations import find_ensemble
from senoscope.fov import Fov
from senoscope.publisher import ResultPublisher
from senoscope.receiver import Receiver
from senoscope.records import RecentRecords, ResultMaker
from senoscope.runlog.keeper import LogKeeper
from senoscope.runlog.places import OFF
from senoscope.runlog.store import RunLog
from senoscope.scheduler import Scheduler, Stack
from senoscope.settings import Settings
from senoscope.threads import WatchedThread
from senoscope_client.errors import NotReady
from senoscope_client.images import FovSpec

_log = structlog.get_logger(__name__)


def fov_spec_of(ensemble: Ensemble) -> FovSpec:
    """What an ensemble takes, in the image reader's terms."""
    spec = ensemble.manifest.input
    return FovSpec(channels=spec.channel_names, height=spec.height, width=spec.width)


class Service:
    """One ensemble at work: stream in, results out.

    It loads in the background, so that a server around it answers from the first second; ``problem``
    tells when it is ready.

    Parameters
    ----------
    settings : Settings
    on_failure : callable, optional
        Told why, if the ensemble cannot be loaded or a socket cannot be bound: such a service never
        becomes ready.
    """

    def __init__(self, settings: Settings, on_failure: Callable[[Exception], None] | None = None) -> None:
        self.settings = settings
        self.recent = RecentRecords(settings.remember_mib * 1024 * 1024)
        self.log = self._open_log()
        self._on_failure = on_failure
        self._sinks: list[Sink] = []
        self._ensemble: Ensemble | None = None
        self._scheduler: Scheduler | None = None
        self._delivery: Delivery | None = None
        self._receiver: Receiver | None = None
        self._publisher: ResultPublisher | None = None
        self._ready = threading.Event()
        self._closing = False
        self._assembling = threading.Lock()
        self._failure: str | None = None
        self._loader = threading.Thread(target=self._load, name="loader", daemon=True)

    def add_sink(self, sink: Sink) -> None:
        """Tell a further sink of results; before ``start`` only."""
        self._sinks.append(sink)

    def start(self) -> None:
        """Begin to load; returns at once."""
        if self.log is not None:
            self.log.start()
        self._loader.start()

    def close(self) -> None:
        """Stop: no more frames are taken, what was computed is told, then everything is let go."""
        _log.info("stopping")
        with self._assembling:  # what is being put together is finished first, what only loads is let be
            self._closing = True
        self._ready.clear()
        if self._receiver is not None:
            self._receiver.close()
        if self._scheduler is not None:
            self._scheduler.close()
        if self._delivery is not None:
            self._delivery.close()
        if self.log is not None:
            self.log.close()
        if self._ensemble is not None:
            self._ensemble.close()
        _log.info("stopped")

    def problem(self) -> str | None:
        """Why the service is not ready, or None when it is."""
        if self._failure is not None:
            return self._failure
        if self._closing:
            return "the service is stopping"
        if not self._ready.is_set():
            return "the ensemble is being loaded, verified and warmed up"
        return next((thread.problem for thread in self._threads() if thread.problem), None)

    def require_ready(self) -> None:
        """Raise if requests cannot be served now.

        Raises
        ------
        NotReady
            With the reason.
        """
        problem = self.problem()
        if problem is not None:
            raise NotReady(problem)

    @property
    def loading(self) -> bool:
        """Whether the ensemble is still being loaded, even though nobody may want it any more."""
        return self._loader.is_alive()

    @property
    def ensemble(self) -> Ensemble:
        """The ensemble in use; only when ready."""
        assert self._ensemble is not None
        return self._ensemble

    @property
    def fov_spec(self) -> FovSpec:
        """What the ensemble takes; only when ready."""
        return fov_spec_of(self.ensemble)

    def submit_stack(self, fovs: Sequence[Fov]) -> Stack:
        """Queue a stack for classification; its future brings the records.

        Raises
        ------
        Busy, NotReady
        """
        assert self._scheduler is not None
        return self._scheduler.submit_stack(fovs)

    def describe_model(self) -> dict[str, Any]:
        """The ensemble in use and the device that it runs on."""
        ensemble = self.ensemble
        return {
            "name": ensemble.manifest.name,
            "version": ensemble.manifest.version,
            "digest": ensemble.digest,
            "engine": ensemble.describe(),
            "manifest": ensemble.manifest.model_dump(mode="json"),
        }

    def describe_stream(self) -> dict[str, Any]:
        """The receiver's state and counters, and the lanes behind it."""
        assert self._scheduler is not None
        counts = self._scheduler.counts
        live, batch = self._scheduler.depths()
        return {
            "receiver": self._receiver.describe() if self._receiver else None,
            "results_endpoint": self._publisher.endpoint if self._publisher else None,
            "live": {
                "waiting": live,
                "classified": counts.live_computed,
                "dropped": counts.live_dropped,
                "failed": counts.live_failed,
            },
            "batch": {"waiting": batch, "classified": counts.batch_computed},
            "run_log": self.log.describe() if self.log else None,
        }

    def describe_series(self) -> list[dict[str, Any]]:
        """The stream's series that are remembered, newest first; those before are in the run log."""
        return self._receiver.series() if self._receiver else []

    def _threads(self) -> list[WatchedThread]:
        parts = (self._scheduler, self._delivery, self._receiver)
        threads = [part.thread for part in parts if part is not None]
        return [*threads, *(self.log.threads if self.log else ())]

    def _open_log(self) -> LogKeeper | None:
        settings = self.settings
        if settings.database_url == OFF:
            return None
        return LogKeeper(
            RunLog(settings.database_url),
            keep_days=settings.keep_days,
            keep_mib=settings.keep_mib,
            series=self.describe_series,
        )

    def _load(self) -> None:
        try:
            self._open()
        except Exception as error:
            self._failure = str(error)
            _log.error("cannot start", reason=str(error))
            if self._on_failure is not None:
                self._on_failure(error)

    def _open(self) -> None:
        settings = self.settings
        directory = find_ensemble(settings.model, settings.models_dir)
        _log.info("loading ensemble", path=str(directory))
        ensemble = Ensemble.load(directory, device=settings.device, threads=settings.threads)
        with self._assembling:
            if self._closing:
                ensemble.close()
            else:
                self._assemble(ensemble)

    def _assemble(self, ensemble: Ensemble) -> None:
        settings = self.settings
        self._ensemble = ensemble
        if settings.results:
            self._publisher = ResultPublisher(settings.results, settings.results_cam)
            self._sinks.append(self._publisher)
        maker = ResultMaker(ensemble, settings.deadline_ms, linked=True)
        self._delivery = Delivery(maker, self.recent, self._sinks, self.log)
        self._scheduler = Scheduler(
            ensemble,
            self._delivery.deliver,
            live_depth=settings.live_queue,
            batch_depth=settings.batch_queue,
            batch_size=settings.batch_size,
        )
        self._delivery.start()
        self._scheduler.start()
        if settings.stream:
            self._receiver = Receiver(settings.stream, fov_spec_of(ensemble), self._scheduler.submit_live)
            self._receiver.start()
        # What was loaded stays: the collector need not walk it again and again between two frames.
        gc.collect()
        gc.freeze()
        self._ready.set()
        _log.info(
            "ready",
            model=ensemble.manifest.name,
            version=ensemble.manifest.version,
            stream=settings.stream or None,
            results=self._publisher.endpoint if self._publisher else None,
            **ensemble.describe(),
        )
        if not ensemble.manifest.for_science:
            _log.warning("this ensemble is not for science", intended_use=ensemble.manifest.intended_use)
