"""The service: load an ensemble, start all parts, drain, close; nothing of HTTP."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy.typing as npt
import structlog
from prometheus_client import ProcessCollector

from senoscope.assembly import Assembly, Foundation, assemble
from senoscope.decisions.decider import DecisionSink
from senoscope.decisions.rules import read_rules
from senoscope.engine import Ensemble, EnsembleError
from senoscope.engine.cancellation import Cancellation
from senoscope.health import degraded_reasons, failed_part
from senoscope.metrics.registry import ServiceRegistry
from senoscope.metrics.results import ResultMetrics
from senoscope.outputs.stage_map import StageMaps
from senoscope.outputs.zeromq import ResultPublisher
from senoscope.results.delivery import ResultSink
from senoscope.results.lost_frames import LostFrames
from senoscope.results.recent import RecentRecords
from senoscope.runlog.entries import SeriesSnapshot
from senoscope.runlog.keeper import LogKeeper
from senoscope.runlog.places import OFF
from senoscope.runlog.store import RunLog
from senoscope.scheduling.active_ensemble import ActiveEnsemble, facts_for_log
from senoscope.scheduling.loading import Loading
from senoscope.scheduling.memory_budget import MemoryBudget
from senoscope.scheduling.model_switch import EnsembleList, ModelSwitch
from senoscope.scheduling.scheduler import Scheduler
from senoscope.scheduling.session_range import SessionRange
from senoscope.settings import Settings
from senoscope.starter.locate import locate_ensemble
from senoscope.stream.source import FrameSource
from senoscope.tracing import open_traces
from senoscope_client.errors import InvalidRequest, NotReady
from senoscope_client.models.status import (
    BatchLaneStatus,
    EngineInfo,
    EngineStatus,
    LiveLaneStatus,
    ModelInfo,
    PipelineStatus,
)

_log = structlog.get_logger(__name__)
_LARGEST_PIXEL_BYTES = 4  # of the pixel types of the stream
_LOADING = "the ensemble is being loaded, verified and warmed up"


class Service:
    """The classification of frames and stacks with an ensemble.

    The ensemble is loaded in the background, so that a server around the service answers from the first
    second; ``not_ready_reason`` returns None when it is ready.

    Parameters
    ----------
    settings : Settings
        The rule file is read at once.
    on_failure : callable, optional
        Called with the reason if the ensemble cannot be loaded or a socket cannot be bound: such a service
        never becomes ready.
    on_loaded : callable, optional
        Called when all parts have started, before the service becomes ready.
    loading : Loading, optional
        The load of the ensemble that the settings name, if it was begun before.

    Attributes
    ----------
    log : LogKeeper or None
        The run log; None if it is turned off.
    ensembles : EnsembleList
        The ensembles of the models folder.
    request_memory : MemoryBudget
        For bodies and pixels of requests.
    registry : ServiceRegistry
        The service's own metrics; a server adds its own.

    Raises
    ------
    OSError, RulesError
        If there is a rule file and it cannot be used.
    InvalidRequest
        If the address of the run log is invalid.
    LogUnavailable, NotReady
        If a package that the run log or traces need is not installed.
    """

    def __init__(
        self,
        settings: Settings,
        on_failure: Callable[[Exception], None] | None = None,
        on_loaded: Callable[[], None] | None = None,
        loading: Loading | None = None,
    ) -> None:
        self.settings = settings
        self.recent = RecentRecords(settings.remember_mib * 1024 * 1024)
        self.maps = StageMaps()
        self.request_memory = MemoryBudget(settings.request_memory_mib * 1024 * 1024)
        self.ensembles = EnsembleList(settings.models_dir)
        rules = read_rules(settings.rules) if settings.rules is not None else None
        self.log = self._open_log()
        self.range = SessionRange(self.log, settings.instrument_name, self._max_calibration_fovs)
        self.traces = open_traces(settings.otlp_endpoint)
        self.registry = ServiceRegistry()
        ProcessCollector(registry=self.registry)
        sinks: list[ResultSink] = [self.recent, self.maps]
        sinks += [self.traces.results] if self.traces is not None else []
        sinks += [ResultMetrics(self.registry, settings.deadline_ms)]
        self._foundation = Foundation(
            self.log, self.range, LostFrames(), rules, sinks, [], self.request_memory
        )
        self._assembly: Assembly | None = None
        self._assembling = threading.Lock()
        self._on_failure = on_failure
        self._on_loaded = on_loaded
        self._ready = threading.Event()
        self._closing = False
        self._failure: str | None = None
        self._loading = _LOADING
        self._falling_back = threading.Event()
        self._cancellation = Cancellation() if loading is None else loading.cancellation
        self._opening = loading
        self._loader = threading.Thread(target=self._load, name="loader", daemon=True)

    def add_sink(self, sink: ResultSink) -> None:
        """Add a sink of results, the first of its stage, as clients wait for it; before ``start`` only."""
        self._foundation.sinks.insert(0, sink)

    def add_decision_sink(self, sink: DecisionSink) -> None:
        """Add a sink of decisions; before ``start`` only."""
        self._foundation.decision_sinks.append(sink)

    def start(self) -> None:
        """Begin to load, and return at once."""
        if self.log is not None:
            self.log.start()
        self._loader.start()

    def drain(self, timeout_s: float) -> bool:
        """Become not ready, accept no more frames and stacks, and compute those that wait.

        Returns
        -------
        bool
            Whether all of them were computed in time.
        """
        assembly = self._stop_loading()
        return assembly is None or assembly.drain(timeout_s)

    def close(self) -> None:
        """Deliver what was computed, then stop and release everything; ``drain`` first to lose nothing."""
        assembly = self._stop_loading()
        if assembly is not None:
            assembly.stop_delivery()
        if self.log is not None:
            self.log.close()
        if assembly is not None:
            assembly.close_ensemble()
        if self.traces is not None:
            self.traces.close()
        _log.info("stopped")

    def _stop_loading(self) -> Assembly | None:
        """Cancel every load of an ensemble, and return the parts, which no load changes any more."""
        self._cancellation.cancel(NotReady("the service is stopping"))
        with self._assembling:  # what is being assembled is finished first
            self._closing = True
        if self._assembly is not None:
            self._assembly.models.close()
        return self._assembly

    def not_ready_reason(self) -> str | None:
        """Return why the service is not ready, or None when it is."""
        reason = self._not_serving_reason()
        if reason is None and self._assembly is not None:
            return self._assembly.scheduler.problem
        return reason

    def require_ready(self) -> None:
        """Raise if requests cannot be served.

        An engine that failed on the last FOVs is tried again: only its next success shows that it works.

        Raises
        ------
        NotReady
            With the reason.
        """
        reason = self._not_serving_reason()
        if reason is not None:
            raise NotReady(reason)

    def _not_serving_reason(self) -> str | None:
        if self._failure is not None:
            return self._failure
        if self._closing:
            return "the service is stopping"
        if self._assembly is None or not self._ready.is_set():
            return self._loading
        return failed_part(self._assembly)

    def degraded_reasons(self) -> list[str]:
        """Return what does not work although frames are classified."""
        return degraded_reasons(self._assembly, self.log)

    @property
    def loading(self) -> bool:
        """Whether the first ensemble is still being loaded, even if that was cancelled."""
        opening = self._opening
        abandoned = opening is not None and opening.thread.is_alive()
        return (self._loader.is_alive() or abandoned) and not self._ready.is_set()

    @property
    def changing(self) -> bool:
        """Whether another ensemble is being loaded, even if that was cancelled."""
        return self._assembly is not None and self._assembly.models.loading

    @property
    def failed(self) -> bool:
        """Whether the service could not start, and never becomes ready."""
        return self._failure is not None

    @property
    def assembled(self) -> bool:
        """Whether an ensemble was loaded and all parts were started, working or not."""
        return self._ready.is_set()

    @property
    def assembly(self) -> Assembly:
        """The parts of the service, which exist once an ensemble was loaded.

        Raises
        ------
        NotReady
            If no ensemble was loaded yet.
        """
        if self._assembly is None:
            raise NotReady(self._failure or self._loading)
        return self._assembly

    @property
    def publisher(self) -> ResultPublisher | None:
        """The publisher of results over ZeroMQ, or None."""
        return self._assembly.publisher if self._assembly is not None else None

    @property
    def active(self) -> ActiveEnsemble:
        """The ensemble in use; raises NotReady if none was loaded yet.

        Another one may take over at any time: read this once for each request, and pass it along.
        """
        return self.scheduler.active

    @property
    def models(self) -> ModelSwitch:
        """The part that changes the ensemble; raises NotReady if none was loaded yet."""
        return self.assembly.models

    @property
    def scheduler(self) -> Scheduler:
        """The queues of fields of view; raises NotReady if no ensemble was loaded yet."""
        return self.assembly.scheduler

    def calibrate(self, stack: npt.NDArray[Any], active: ActiveEnsemble) -> None:
        """Calibrate the intensity range from a stack that was arranged for an ensemble.

        Parameters
        ----------
        stack : array [N, C, H, W]
            Raw detector units, channels in the order of ``active.spec``.

        Raises
        ------
        Conflict, InvalidRequest
        NotReady
            If an ensemble that the range does not fit took over meanwhile; the range in force is unchanged.
        """
        self.range.calibrate(stack, active, self.scheduler.require_in_use)

    @staticmethod
    def model_info(active: ActiveEnsemble) -> ModelInfo:
        """Return the properties of an ensemble, and the device that it runs on."""
        ensemble = active.ensemble
        return ModelInfo(
            name=ensemble.manifest.name,
            version=ensemble.manifest.version,
            digest=ensemble.digest,
            engine=EngineInfo.model_validate(ensemble.describe()),
            manifest=ensemble.manifest.model_dump(mode="json"),
        )

    def status(self) -> PipelineStatus:
        """Return the state and the counters of all parts.

        Raises
        ------
        NotReady
            Before an ensemble was loaded.
        """
        parts = self.assembly
        counts = parts.scheduler.counts
        live, batch = parts.scheduler.depths()
        dropped = parts.scheduler.live_dropped
        threads = [*parts.threads, *(self.log.threads if self.log is not None else ())]
        optional = dict.fromkeys(("receiver", "decisions", "archive"))
        optional |= {source.part: source.status() for source in parts.sources}
        optional |= {sink.name: sink.status() for sink in parts.delivery.sinks if sink.name}
        return PipelineStatus(
            **optional,
            results_endpoint=parts.publisher.endpoint if parts.publisher is not None else None,
            results_subscribers=parts.publisher.subscribers if parts.publisher is not None else 0,
            results_refused=parts.publisher.refused if parts.publisher is not None else {},
            live=LiveLaneStatus(
                waiting=live,
                capacity=self.settings.live_queue,
                classified=counts.live_computed,
                dropped=sum(dropped.values()),
                dropped_reasons={**dropped},
                failed=counts.live_failed,
                late=parts.delivery.live_late,
                deadline_ms=parts.scheduler.active.deadline_ms,
            ),
            batch=BatchLaneStatus(
                waiting=batch, capacity=self.settings.batch_queue, classified=counts.batch_computed
            ),
            engine=EngineStatus(
                retried=counts.retried,
                results_failed=parts.delivery.failed,
                thread_deaths={thread.name: thread.deaths for thread in threads},
                thread_problems={thread.name: thread.problem for thread in threads if thread.problem},
            ),
            run_log=self.log.status() if self.log is not None else None,
            traces=self.traces.status() if self.traces is not None else None,
        )

    def series_snapshots(self) -> list[SeriesSnapshot]:
        """Return snapshots of the sources' current series, newest first; the run log has older ones."""
        return [snapshot for source in self._sources for snapshot in source.snapshots()]

    def _unsaved_series(self) -> list[SeriesSnapshot]:
        unsaved = [source for source in self._sources if not source.saves_series]
        return [snapshot for source in unsaved for snapshot in source.snapshots()]

    @property
    def _sources(self) -> tuple[FrameSource, ...]:
        return self._assembly.sources if self._assembly is not None else ()

    def _max_calibration_fovs(self) -> int:
        """Return how many frames of the stream a calibration may collect."""
        spec = self.active.spec
        fov_bytes = len(spec.channels) * spec.height * spec.width * _LARGEST_PIXEL_BYTES
        return self.settings.request_memory_mib * 1024 * 1024 // fov_bytes

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
            series=self._unsaved_series,
        )

    def _load(self) -> None:
        try:
            self._open_ensemble()
        except Exception as error:
            if isinstance(self._cancellation.error, NotReady):  # the service stops
                return
            # Shown to clients, which must not learn paths of this machine; the log has the whole error.
            self._failure = f"the service could not start ({type(error).__name__}); see its log"
            _log.error("cannot start", reason=str(error))
            if self._on_failure is not None:
                self._on_failure(error)

    def _open_ensemble(self) -> None:
        if self._opening is None:
            directory = locate_ensemble(self.settings.model, self.settings.models_dir, self._note_building)
            self._loading = _LOADING
            self._opening = Loading(directory, self.settings, self._cancellation)
        directory = self._opening.directory
        _log.info("loading ensemble", path=str(directory))
        within_s = self.settings.load_timeout_s
        too_late = EnsembleError(directory, f"was not loaded within {within_s:g} s (--load-timeout-s)")
        ensemble = self._opening.wait(within_s, too_late)
        with self._assembling:
            if self._closing:
                ensemble.close()
            else:
                self._start_parts(ensemble)

    def _note_building(self, notice: str) -> None:
        _log.warning(notice)
        self._loading = "the starter ensemble is being built"

    def _start_parts(self, ensemble: Ensemble) -> None:
        settings = self.settings
        self._assembly = assemble(ensemble, settings, self._foundation, self._on_device_error)
        self._assembly.start()
        if self._on_loaded is not None:
            self._on_loaded()
        self._ready.set()
        publisher = self._assembly.publisher
        _log.info(
            "ready",
            model=ensemble.manifest.name,
            version=ensemble.manifest.version,
            stream=settings.stream or None,
            watch=str(settings.watch) if settings.watch else None,
            results=publisher.endpoint if publisher is not None else None,
            deadline_ms=self._assembly.scheduler.active.deadline_ms,
            **facts_for_log(ensemble),
        )
        if not ensemble.manifest.for_science:
            _log.warning("this ensemble is not for science", intended_use=ensemble.manifest.intended_use)

    def _on_device_error(self, error: Exception) -> None:
        """Fall back to the CPU where the settings allow it; called on the scheduler's thread."""
        device = self.active.ensemble.device
        if self.settings.fallback != "cpu":
            _log.error(
                "the device failed", device=device, reason=str(error), remedy="restart, or --fallback cpu"
            )
        elif not self._falling_back.is_set():
            self._falling_back.set()
            _log.error("the device failed, continuing on the CPU", device=device, reason=str(error))
            threading.Thread(target=self._fall_back, name="fallback", daemon=True).start()

    def _fall_back(self) -> None:
        try:
            self.models.fall_back(self.active.ensemble)
        except Exception:
            _log.exception("continuing on the CPU failed too")
        finally:
            self._falling_back.clear()
