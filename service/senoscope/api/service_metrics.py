"""Metrics of the state and the counters of a service and of its clients, read at each scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar, get_args

from prometheus_client.metrics_core import Metric

from senoscope import __version__
from senoscope.api.middleware.guard import REASONS, Refusals
from senoscope.api.routes.live import LiveHub
from senoscope.metrics import catalogue
from senoscope.metrics.catalogue import Declared, Values
from senoscope.metrics.device import GpuMemory
from senoscope.runlog.dialects import LogState
from senoscope.service import Service
from senoscope.stream.receiver import UNFIT
from senoscope_client.models.status import (
    ArchiveStatus,
    EngineStatus,
    PipelineStatus,
    ReceiverStatus,
    RunLogStatus,
    TracesStatus,
    WatchStatus,
)
from senoscope_client.wire.messages import WireFault

_T = TypeVar("_T")
# Present from the first scrape on, so that the first rejection of a kind is visible as an increase.
_REJECTIONS: Final = (*(fault for fault in get_args(WireFault) if fault != "unknown_type"), *UNFIT)
_LOG_STATES: Final = ("ok", "opening", "stopped", *get_args(LogState))

_Readers = Mapping[Declared, Callable[[_T], Values]]
"""Metrics of a part of the service, with functions that return their values from its status."""

_ENGINE: Final[_Readers[EngineStatus]] = {
    catalogue.THREAD_UP: lambda engine: {
        name: name not in engine.thread_problems for name in engine.thread_deaths
    },
    catalogue.THREAD_DEATHS: lambda engine: engine.thread_deaths,
    catalogue.RESULTS_FAILED: lambda engine: engine.results_failed,
    catalogue.RETRIES: lambda engine: engine.retried,
}
_RECEIVER: Final[_Readers[ReceiverStatus]] = {
    catalogue.CONNECTED: lambda receiver: receiver.connected,
    catalogue.CONNECTIONS: lambda receiver: receiver.connections,
    catalogue.STREAM_REFUSALS: lambda receiver: receiver.refused,
    catalogue.STREAM_FAULTS: lambda receiver: receiver.faults,
    catalogue.SILENCE: lambda receiver: receiver.silent_s,
    catalogue.MESSAGES: lambda receiver: receiver.messages,
    catalogue.REJECTED: lambda receiver: dict.fromkeys(_REJECTIONS, 0) | receiver.rejected,
    catalogue.MISSING: lambda receiver: sum(series.missing for series in receiver.series),
    catalogue.REPEATED: lambda receiver: sum(series.repeated for series in receiver.series),
}
_WATCH: Final[_Readers[WatchStatus]] = {
    catalogue.WATCHED: lambda watch: {
        outcome: getattr(watch, outcome) for outcome in ("classified", "unreadable", "changed")
    },
    catalogue.WATCHED_WAITING: lambda watch: watch.waiting,
}
_LANES: Final[_Readers[PipelineStatus]] = {
    catalogue.WAITING: lambda now: {"live": now.live.waiting, "batch": now.batch.waiting},
    catalogue.CAPACITY: lambda now: {"live": now.live.capacity, "batch": now.batch.capacity},
    catalogue.COMPUTED: lambda now: {"live": now.live.classified, "batch": now.batch.classified},
    catalogue.DROPPED: lambda now: now.live.dropped_reasons,
    catalogue.FAILED: lambda now: now.live.failed,
    catalogue.MISSES: lambda now: now.live.late,
}
_RUN_LOG: Final[_Readers[RunLogStatus]] = {
    catalogue.LOG_WRITTEN: lambda log: log.written,
    catalogue.LOG_WAITING: lambda log: log.waiting,
    catalogue.LOG_LOST: lambda log: log.lost,
    catalogue.LOG_STATE: lambda log: {state: state == log.state for state in _LOG_STATES},
}
_ARCHIVE: Final[_Readers[ArchiveStatus]] = {
    catalogue.ARCHIVE_UP: lambda archive: archive.problem is None,
    catalogue.ARCHIVE_WRITTEN: lambda archive: archive.written,
    catalogue.ARCHIVE_LOST: lambda archive: archive.lost,
}
_TRACES: Final[_Readers[TracesStatus]] = {
    catalogue.SPANS: lambda traces: traces.made,
    catalogue.SPANS_SENT: lambda traces: traces.sent,
}


@dataclass(frozen=True, eq=False)
class ServiceMetrics:
    """The collector of the state and the counters, read at each scrape."""

    service: Service
    hub: LiveHub
    refusals: Refusals
    gpu: GpuMemory = field(default_factory=GpuMemory)

    def collect(self) -> Iterator[Metric]:
        """Collect all families, those without values included, so that a scrape always has the same."""
        service = self.service
        ready = service.not_ready_reason() is None
        now = service.status() if service.assembled else None
        # The run log is opened, and can fail, before there is an ensemble.
        log = service.log.status() if service.log is not None else None
        yield catalogue.BUILD.inform({"version": __version__})
        yield catalogue.MODEL.inform(self._model() if now is not None else None)
        yield catalogue.READY.gather(ready)
        yield catalogue.DEGRADED.gather(ready and bool(service.degraded_reasons()))
        yield catalogue.DEADLINE.gather(service.settings.deadline_ms / 1e3)
        yield from _gather_all(_ENGINE, None if now is None else now.engine)
        yield from _gather_all(_RECEIVER, None if now is None else now.receiver)
        yield from _gather_all(_WATCH, None if now is None else now.watch)
        yield from _gather_all(_LANES, now)
        yield from _gather_all(_RUN_LOG, log)
        yield from _gather_all(_ARCHIVE, None if now is None else now.archive)
        yield from self._clients()
        yield from _gather_all(_TRACES, None if now is None else now.traces)
        on_gpu = now is not None and service.active.ensemble.device == "cuda"
        used, size = self.gpu.read() if on_gpu else (None, None)
        yield catalogue.MEMORY_USED.gather({"0": used})
        yield catalogue.MEMORY_SIZE.gather({"0": size})

    def _clients(self) -> Iterator[Metric]:
        hub, publisher = self.hub, self.service.publisher
        connected: dict[str, float | None] = {"websocket": hub.clients}
        refused: dict[tuple[str, ...], float | None] = {("websocket", "too_many"): hub.refused}
        if publisher is not None:
            connected["zeromq"] = publisher.subscribers
            reasons = publisher.gate.refused if publisher.gate else {}
            refused |= {("zeromq", reason): count for reason, count in dict(reasons).items()}
        yield catalogue.SUBSCRIBERS.gather(connected)
        yield catalogue.SUBSCRIBERS_REFUSED.gather(refused)
        yield catalogue.SUBSCRIBERS_LOST.gather({"websocket": hub.lost})
        yield catalogue.REQUESTS_REFUSED.gather(dict.fromkeys(REASONS, 0) | self.refusals.counts)

    def _model(self) -> dict[str, str]:
        ensemble = self.service.active.ensemble
        return {
            "name": ensemble.manifest.name,
            "version": ensemble.manifest.version,
            "digest": ensemble.digest,
            "device": ensemble.device,
            "precision": ensemble.precision,
            "for_science": str(ensemble.manifest.for_science).lower(),
        }


def _gather_all(readers: _Readers[_T], status: _T | None) -> Iterator[Metric]:
    """Return the families of a part of the service; without values if it has no status."""
    for declared, read in readers.items():
        yield declared.gather(None if status is None else read(status))
