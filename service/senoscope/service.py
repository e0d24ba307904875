"""The service: every part made, connected, started and stopped, and nothing of HTTP."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy.typing as npt
import structlog
from prometheus_client import ProcessCollector

from senoscope.decisions.decider import Decider, DecisionSink
from senoscope.decisions.rules import read_rules
from senoscope.engine import Ensemble, EnsembleError
from senoscope.engine.cancellation import Cancellation
from senoscope.fov import Fov
from senoscope.metrics.registry import ServiceRegistry
from senoscope.metrics.results import ResultMetrics
from senoscope.outputs.stage_map import StageMaps
from senoscope.outputs.zeromq import ResultPublisher
from senoscope.results.delivery import Delivery, Sink, Stack
from senoscope.results.lost_frames import LostFrames
from senoscope.results.record import RecentRecords
from senoscope.runlog.keeper import LogKeeper
from senoscope.runlog.places import OFF
from senoscope.runlog.store import RunLog
from senoscope.scheduling.active_ensemble import Loaded
from senoscope.scheduling.memory_budget import MemoryBudget
from senoscope.scheduling.model_switch import EnsembleList, Loading, ModelSwitch, load_ensemble
from senoscope.scheduling.scheduler import Scheduler
from senoscope.scheduling.session_range import SessionRange
from senoscope.settings import Settings
from senoscope.starter import locate_ensemble
from senoscope.stream.receiver import Receiver
from senoscope.stream.series import Series
from senoscope.tracing import open_traces
from senoscope.watched_thread import WatchedThread
from senoscope_client.errors import InvalidRequest, LogUnavailable, NotReady
from senoscope_client.zeromq.curve_keys import CurveClient

if TYPE_CHECKING:
    from senoscope.outputs.archive import Archive

_log = structlog.get_logger(__name__)
_MOST_BYTES_OF_A_VALUE = 4  # of a frame of the stream
_LOADING = "the ensemble is being loaded, verified and warmed up"


class Service:
    """One ensemble at work: stream in, results out.

    It loads in the background, so that a server around it answers from the first second; ``problem``
    tells when it is ready.

    Parameters
    ----------
    settings : Settings
        Its rule file is read at once.
    on_failure : callable, optional
        Called with the reason if the ensemble cannot be loaded or a socket cannot be bound: such a service
        never becomes ready.
    on_loaded : callable, optional
        Called when all parts were made, before the service becomes ready.

    Attributes
    ----------
    ensembles : EnsembleList
        Of the models folder.
    request_memory : MemoryBudget
        For bodies and pixels of requests.
    registry : ServiceRegistry
        The service's own metrics; whoever is around it may add theirs.
    traces : Traces or None

    Raises
    ------
    OSError, RulesError
        If there is a rule file and it cannot be used.
    InvalidRequest
        If the address of the run log cannot be read.
    LogUnavailable, NotReady
        If what the run log, or traces that are asked for, need is not installed.
    """

    def __init__(
        self,
        settings: Settings,
        on_failure: Callable[[Exception], None] | None = None,
        on_loaded: Callable[[], None] | None = None,
    ) -> None:
        self.settings = settings
        self.recent = RecentRecords(settings.remember_mib * 1024 * 1024)
        self.maps = StageMaps()
        self.request_memory = MemoryBudget(settings.request_memory_mib * 1024 * 1024)
        self.ensembles = EnsembleList(settings.models_dir)
        self._lost = LostFrames()
        self._rules = read_rules(settings.rules) if settings.rules is not None else None
        self.log = self._open_log()
        self.range = SessionRange(self.log, settings.instrument_name, self._most_calibrated_on)
        self._on_failure = on_failure
        self._on_loaded = on_loaded
        self.traces = open_traces(settings.otlp_endpoint)
        self.registry = ServiceRegistry()
        self._metrics = ResultMetrics(self.registry, settings.deadline_ms)
        self._sinks: list[Sink] = [self.maps]
        self._decision_sinks: list[DecisionSink] = []
        self._decider: Decider | None = None
        self._models: ModelSwitch | None = None
        self._scheduler: Scheduler | None = None
        self._delivery: Delivery | None = None
        self._receiver: Receiver | None = None
        self._publisher: ResultPublisher | None = None
        self._archive: Archive | None = None
        self._ready = threading.Event()
        self._closing = False
        self._assembling = threading.Lock()
        self._failure: str | None = None
        self._loading = _LOADING
        self._falling_back = threading.Event()
        self._cancellation = Cancellation()
        self._opening: Loading | None = None
        self._loader = threading.Thread(target=self._load, name="loader", daemon=True)
        ProcessCollector(registry=self.registry)

    def add_sink(self, sink: Sink) -> None:
        """Tell a further sink of results; before ``start`` only."""
        self._sinks.append(sink)

    def add_decision_sink(self, sink: DecisionSink) -> None:
        """Tell a further sink of decisions; before ``start`` only."""
        self._decision_sinks.append(sink)

    def start(self) -> None:
        """Begin to load; returns at once."""
        if self.log is not None:
            self.log.start()
        self._loader.start()

    def drain(self, timeout_s: float) -> bool:
        """Stop being ready, take no more frames and stacks, and compute what waits.

        Returns
        -------
        bool
            Whether all of it was computed in time.
        """
        self._stop_loading()
        with self._assembling:  # what is being put together is finished first
            self._closing = True
        if self._receiver is not None:
            self._receiver.close()
        if self._scheduler is None:
            return True
        live, batch = self._scheduler.depths()
        _log.info("stopping", live_waiting=live, batch_waiting=batch, drain_s=timeout_s)
        drained = self._scheduler.drain(timeout_s)
        if not drained:
            live, batch = self._scheduler.depths()
            _log.warning("stopping although fields of view wait", live_waiting=live, batch_waiting=batch)
        return drained

    def close(self) -> None:
        """Stop: what was computed is told, then everything is let go; ``drain`` first to lose nothing."""
        self._stop_loading()
        with self._assembling:
            self._closing = True
        if self._receiver is not None:
            self._receiver.close()
        if self._scheduler is not None:
            self._scheduler.close()
        if self._delivery is not None:
            self._delivery.close()
        if self.log is not None:
            self.log.close()
        if self._scheduler is not None:
            self._scheduler.loaded.ensemble.close()
        if self.traces is not None:
            self.traces.close()
        _log.info("stopped")

    def _stop_loading(self) -> None:
        self._cancellation.cancel(NotReady("the service is stopping"))
        if self._models is not None:
            self._models.close()

    def problem(self) -> str | None:
        """Why the service is not ready, or None when it is."""
        reason = self._hindrance()
        if reason is None and self._scheduler is not None:
            return self._scheduler.problem
        return reason

    def require_ready(self) -> None:
        """Raise if requests cannot be served now.

        An engine that failed on the last FOVs is asked again: only its next success tells that it is well.

        Raises
        ------
        NotReady
            With the reason.
        """
        reason = self._hindrance()
        if reason is not None:
            raise NotReady(reason)

    def _hindrance(self) -> str | None:
        if self._failure is not None:
            return self._failure
        if self._closing:
            return "the service is stopping"
        if not self._ready.is_set():
            return self._loading
        parts = (self._scheduler, self._delivery, self._receiver)
        watched = [
            *(part.thread for part in parts if part),
            *([self._publisher.gate] if self._publisher else []),
        ]
        return next((one.problem for one in watched if one is not None and one.problem), None)

    def impairments(self) -> list[str]:
        """What does not work although frames are classified: results that are not logged, for one."""
        found = [part.problem for part in (self._receiver, self.log, self._archive) if part is not None]
        found += [thread.problem for thread in self._threads()]
        return list(dict.fromkeys(text for text in found if text))

    @property
    def loading(self) -> bool:
        """Whether the ensemble is still being loaded, even though nobody may want it any more."""
        opening = self._opening
        left_behind = opening is not None and opening.thread.is_alive()
        return (self._loader.is_alive() or left_behind) and not self._ready.is_set()

    @property
    def changing(self) -> bool:
        """Whether another ensemble is being loaded, even if it was given up."""
        return self._models is not None and self._models.loading

    @property
    def failed(self) -> bool:
        """Whether the service could not start, and never becomes ready."""
        return self._failure is not None

    @property
    def publisher(self) -> ResultPublisher | None:
        """What publishes results over ZeroMQ, where that is asked for."""
        return self._publisher

    @property
    def assembled(self) -> bool:
        """Whether an ensemble was loaded and all parts are there, be they well or not."""
        return self._ready.is_set()

    @property
    def loaded(self) -> Loaded:
        """The ensemble in use and what is derived from it; only when ready.

        Another one may take over at any time: read this once for each request, and pass it along.
        """
        assert self._scheduler is not None
        return self._scheduler.loaded

    @property
    def models(self) -> ModelSwitch:
        """What changes the ensemble; only when ready."""
        assert self._models is not None
        return self._models

    def require_room(self) -> None:
        """Raise if no stack could be queued now.

        Raises
        ------
        Busy, NotReady
        """
        assert self._scheduler is not None
        self._scheduler.require_room()

    def calibrate(self, stack: npt.NDArray[Any], loaded: Loaded) -> None:
        """Calibrate the intensity range from a stack that was arranged for an ensemble.

        Parameters
        ----------
        stack : array [N, C, H, W]
            Raw detector units, channels in the order of ``loaded.spec``.

        Raises
        ------
        Conflict, InvalidRequest
        NotReady
            If an ensemble that the range does not fit took over meanwhile; the range in force is unchanged.
        """
        assert self._scheduler is not None
        self.range.calibrate(stack, loaded, self._require_in_use)

    def _require_in_use(self, loaded: Loaded) -> None:
        assert self._scheduler is not None
        self._scheduler.require_spec(loaded.spec)
        if self.loaded.ensemble.manifest.normalization.k_iqr != loaded.ensemble.manifest.normalization.k_iqr:
            raise NotReady("an ensemble of another range took over")

    def _most_calibrated_on(self) -> int:
        """Frames of the stream that a calibration may collect."""
        spec = self.loaded.spec
        fov_bytes = len(spec.channels) * spec.height * spec.width * _MOST_BYTES_OF_A_VALUE
        return self.settings.request_memory_mib * 1024 * 1024 // fov_bytes

    def submit_stack(self, fovs: Sequence[Fov]) -> Stack:
        """Queue a stack for classification; its future brings the records.

        Raises
        ------
        Busy, NotReady
        """
        assert self._scheduler is not None
        return self._scheduler.submit_stack(fovs)

    @staticmethod
    def describe_model(loaded: Loaded) -> dict[str, Any]:
        """An ensemble, and the device that it runs on."""
        ensemble = loaded.ensemble
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
        assert self._delivery is not None
        counts = self._scheduler.counts
        live, batch = self._scheduler.depths()
        dropped = self._scheduler.live_dropped
        return {
            "receiver": self._receiver.describe() if self._receiver else None,
            "results_endpoint": self._publisher.endpoint if self._publisher else None,
            "results_subscribers": self._publisher.subscribers if self._publisher else 0,
            "results_refused": self._publisher.refused if self._publisher else {},
            "live": {
                "waiting": live,
                "capacity": self.settings.live_queue,
                "classified": counts.live_computed,
                "dropped": sum(dropped.values()),
                "dropped_reasons": dropped,
                "failed": counts.live_failed,
                "late": self._delivery.live_late,
                "deadline_ms": self.settings.deadline_ms,
            },
            "batch": {
                "waiting": batch,
                "capacity": self.settings.batch_queue,
                "classified": counts.batch_computed,
            },
            "engine": {
                "retried": counts.retried,
                "results_failed": self._delivery.failed,
                "thread_deaths": {thread.name: thread.deaths for thread in self._threads()},
                "thread_problems": {
                    thread.name: thread.problem for thread in self._threads() if thread.problem
                },
            },
            "decisions": self._decider.describe() if self._decider else None,
            "archive": self._archive.describe() if self._archive else None,
            "run_log": self.log.describe() if self.log else None,
            "traces": self.traces.describe() if self.traces else None,
        }

    def describe_series(self) -> list[dict[str, Any]]:
        """The stream's series that are remembered, newest first; those before are in the run log."""
        return self._receiver.series() if self._receiver else []

    def _threads(self) -> list[WatchedThread]:
        parts = (self._scheduler, self._delivery, self._receiver)
        threads = [part.thread for part in (*parts, self._archive, self._decider) if part]
        return [*threads, *(self.log.threads if self.log else ())]

    def _open_log(self) -> LogKeeper | None:
        settings = self.settings
        if settings.database_url == OFF:
            return None
        try:
            log = RunLog(settings.database_url)
        except ValueError as error:
            raise InvalidRequest(f"--database-url: {error}") from None
        return LogKeeper(
            log,
            keep_days=settings.keep_days,
            keep_mib=settings.keep_mib,
            series=self.describe_series,
        )

    def _load(self) -> None:
        try:
            self._open()
        except Exception as error:
            if isinstance(self._cancellation.error, NotReady):  # the service stops
                return
            # Whoever asks from outside need not know this machine's folders; the log tells.
            self._failure = f"the service could not start ({type(error).__name__}); its log tells why"
            _log.error("cannot start", reason=str(error))
            if self._on_failure is not None:
                self._on_failure(error)

    def _open(self) -> None:
        directory = locate_ensemble(self.settings.model, self.settings.models_dir, self._building)
        self._loading = _LOADING
        _log.info("loading ensemble", path=str(directory))
        within_s = self.settings.load_timeout_s
        too_late = EnsembleError(directory, f"was not loaded within {within_s:g} s (--load-timeout-s)")
        self._opening = Loading(
            lambda: load_ensemble(directory, self.settings, cancellation=self._cancellation),
            self._cancellation,
        )
        ensemble = self._opening.wait(within_s, too_late)
        with self._assembling:
            if self._closing:
                ensemble.close()
            else:
                self._assemble(ensemble)

    def _building(self, notice: str) -> None:
        _log.warning(notice)
        self._loading = "the starter ensemble is being built"

    def _assemble(self, ensemble: Ensemble) -> None:
        settings = self.settings
        loaded = Loaded.of(ensemble, settings.deadline_ms)
        if settings.results:
            self._publisher = ResultPublisher(
                settings.results, settings.results_cam, settings.curve_keypair, settings.results_allowed_keys
            )
            self._sinks.append(self._publisher)
        if settings.archive is not None:
            from senoscope.outputs.archive import Archive  # and with it tifffile

            self._archive = Archive(settings.archive)
            self._archive.start()
            self._sinks.append(self._archive)
        if self._rules is not None:
            if self._publisher is not None:
                self._decision_sinks.append(self._publisher)
            self._decider = Decider(self._rules, self._decision_sinks, self.log)
            self._decider.start()
            self._sinks.append(self._decider)  # behind the others: a result is told before it is judged
        self.range.restore()
        told = [self._metrics.told, *([self.traces.told] if self.traces else [])]
        self._sinks.append(self._metrics)  # last: whoever waits for results comes first
        self._delivery = Delivery(self.recent, self._sinks, self.log, told, self._lost)
        self._scheduler = Scheduler(
            loaded,
            self.range.for_ensemble,
            self._delivery.deliver,
            self._on_device_error,
            deadline_ms=settings.deadline_ms,
            live_depth=settings.live_queue,
            batch_depth=settings.batch_queue,
            lost=self._lost,
        )
        self._models = ModelSwitch(settings, self._scheduler)
        self._delivery.start()
        self._scheduler.start()
        if settings.stream:
            curve = None
            if settings.stream_server_key is not None:
                curve = CurveClient.load(settings.stream_server_key, settings.curve_keypair)
            self._receiver = Receiver(
                settings.stream,
                lambda: self.loaded.spec,
                self._take_live,
                curve,
                self._earlier_series(),
                self._lost,
            )
            self._receiver.start()
        if self._on_loaded is not None:
            self._on_loaded()
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

    def _earlier_series(self) -> list[Series]:
        """The series of an earlier process, some of which may go on."""
        if self.log is None:
            return []
        try:
            earlier = self.log.latest_series()
            for snapshot, _ in reversed(earlier):
                self._lost.restore(UUID(snapshot["series_uid"]), snapshot.get("lost", {}))
            return [Series.recalled(snapshot, logged) for snapshot, logged in earlier]
        except LogUnavailable as error:
            _log.warning("series that go on are counted from now on only", reason=str(error))
            return []

    def _take_live(self, fov: Fov) -> None:
        assert self._scheduler is not None
        if self._scheduler.submit_live(fov):
            self.range.observe(fov, self.loaded, self._require_in_use)

    def _on_device_error(self, error: Exception) -> None:
        """The GPU failed on the same FOVs twice; called on the scheduler's thread."""
        if self.settings.fallback != "cpu":
            _log.error("the GPU failed", reason=str(error), remedy="restart, or --fallback cpu")
        elif not self._falling_back.is_set():
            self._falling_back.set()
            _log.error("the GPU failed, going on with the CPU", reason=str(error))
            threading.Thread(target=self._fall_back, name="fallback", daemon=True).start()

    def _fall_back(self) -> None:
        try:
            self.models.fall_back(self.loaded.ensemble)
        except Exception:
            _log.exception("going on with the CPU failed too")
        finally:
            self._falling_back.clear()
