"""Metrics of the state and the counters of a service, read at each scrape."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, get_args

from prometheus_client.metrics_core import Metric

from senoscope import __version__
from senoscope.metrics import catalogue
from senoscope.metrics.catalogue import Declared
from senoscope.metrics.device import GpuMemory
from senoscope.runlog.faults import LogState
from senoscope.service import Service
from senoscope.stream.receiver import UNFIT
from senoscope_client.models.status import (
    ArchiveStatus,
    EngineStatus,
    PipelineStatus,
    ReceiverStatus,
    RunLogStatus,
    WatchStatus,
)
from senoscope_client.wire.messages import WireFault

# Present from the first scrape on, so that the first rejection of a kind is visible as an increase.
_REJECTIONS: Final = (*(fault for fault in get_args(WireFault) if fault != "unknown_type"), *UNFIT)
_LOG_STATES: Final = ("ok", "opening", "stopped", *get_args(LogState))
_OF_RECEIVER: Final = (
    *(catalogue.CONNECTED, catalogue.CONNECTIONS, catalogue.STREAM_REFUSALS, catalogue.STREAM_FAULTS),
    *(catalogue.SILENCE, catalogue.MESSAGES, catalogue.REJECTED, catalogue.MISSING, catalogue.REPEATED),
)
Value = tuple[tuple[str, ...], float | int | None]
"""Values of the labels, and the value of the metric, or None if it is unknown."""


def gathered(declared: Declared, values: Iterable[Value]) -> Metric:
    """Return a metric family of the values that are not None."""
    family = declared.gather()
    for labels, value in values:
        if value is not None:
            family.add_metric(labels, float(value))
    return family


def by_key(counts: Mapping[str, int]) -> list[Value]:
    """Return one value for each key."""
    return [((key,), count) for key, count in counts.items()]


def single(value: float | None) -> list[Value]:
    """Return the value of a metric without labels."""
    return [((), value)]


class ServiceMetrics:
    """The collector of a service's state and counters, read at each scrape.

    Parameters
    ----------
    service : Service
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._gpu = GpuMemory()

    def describe(self) -> list[Metric]:
        """Return no families before they are collected: parts of the service may not exist yet."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Collect all families, those without values included, so that a scrape always has the same."""
        service = self._service
        ready = service.not_ready_reason() is None
        now = service.status() if service.assembled else None
        yield catalogue.BUILD.inform({"version": __version__})
        yield catalogue.MODEL.inform(self._model() if service.assembled else None)
        yield gathered(catalogue.READY, single(ready))
        yield gathered(catalogue.DEGRADED, single(ready and bool(service.degraded_reasons())))
        yield gathered(catalogue.DEADLINE, single(service.settings.deadline_ms / 1e3))
        yield from self._engine(now.engine if now is not None else None)
        yield from self._stream(now.receiver if now is not None else None)
        yield from self._watch(now.watch if now is not None else None)
        yield from self._lanes(now)
        # The run log is opened, and can fail, before there is an ensemble.
        yield from self._run_log(service.log.status() if service.log is not None else None)
        yield from self._archive(now.archive if now is not None else None)
        yield from self._device()
        traces = now.traces if now is not None else None
        yield gathered(catalogue.SPANS, single(traces.made if traces is not None else None))
        yield gathered(catalogue.SPANS_SENT, single(traces.sent if traces is not None else None))

    def _model(self) -> dict[str, str]:
        ensemble = self._service.active.ensemble
        return {
            "name": ensemble.manifest.name,
            "version": ensemble.manifest.version,
            "digest": ensemble.digest,
            "device": ensemble.device,
            "for_science": str(ensemble.manifest.for_science).lower(),
        }

    @staticmethod
    def _engine(engine: EngineStatus | None) -> Iterator[Metric]:
        deaths = engine.thread_deaths if engine is not None else {}
        problems = engine.thread_problems if engine is not None else {}
        yield gathered(catalogue.THREAD_UP, [((name,), name not in problems) for name in deaths])
        yield gathered(catalogue.THREAD_DEATHS, by_key(deaths))

    @staticmethod
    def _stream(receiver: ReceiverStatus | None) -> Iterator[Metric]:
        if receiver is None:
            for declared in _OF_RECEIVER:
                yield gathered(declared, [])
            return
        yield gathered(catalogue.CONNECTED, single(receiver.connected))
        yield gathered(catalogue.CONNECTIONS, single(receiver.connections))
        yield gathered(catalogue.STREAM_REFUSALS, single(receiver.refused))
        yield gathered(catalogue.STREAM_FAULTS, by_key(receiver.faults))
        yield gathered(catalogue.SILENCE, single(receiver.silent_s))
        yield gathered(catalogue.MESSAGES, by_key(receiver.messages))
        yield gathered(catalogue.REJECTED, by_key(dict.fromkeys(_REJECTIONS, 0) | receiver.rejected))
        yield gathered(catalogue.MISSING, single(sum(series.missing for series in receiver.series)))
        yield gathered(catalogue.REPEATED, single(sum(series.repeated for series in receiver.series)))

    @staticmethod
    def _watch(watch: WatchStatus | None) -> Iterator[Metric]:
        outcomes = ("classified", "unreadable", "changed") if watch is not None else ()
        yield gathered(catalogue.WATCHED, [((name,), getattr(watch, name)) for name in outcomes])
        yield gathered(catalogue.WATCHED_WAITING, single(watch.waiting if watch is not None else None))

    @staticmethod
    def _lanes(now: PipelineStatus | None) -> Iterator[Metric]:
        lanes = {"live": now.live, "batch": now.batch} if now is not None else {}
        for declared, name in (
            (catalogue.WAITING, "waiting"),
            (catalogue.CAPACITY, "capacity"),
            (catalogue.COMPUTED, "classified"),
        ):
            yield gathered(declared, [((lane,), getattr(status, name)) for lane, status in lanes.items()])
        yield gathered(catalogue.DROPPED, by_key(now.live.dropped_reasons if now is not None else {}))
        yield gathered(catalogue.FAILED, single(now.live.failed if now is not None else None))
        yield gathered(
            catalogue.RESULTS_FAILED, single(now.engine.results_failed if now is not None else None)
        )
        yield gathered(catalogue.RETRIES, single(now.engine.retried if now is not None else None))
        yield gathered(catalogue.MISSES, single(now.live.late if now is not None else None))

    @staticmethod
    def _run_log(log: RunLogStatus | None) -> Iterator[Metric]:
        yield gathered(catalogue.LOG_WRITTEN, single(log.written if log is not None else None))
        yield gathered(catalogue.LOG_WAITING, single(log.waiting if log is not None else None))
        yield gathered(catalogue.LOG_LOST, single(log.lost if log is not None else None))
        states = [((state,), state == log.state) for state in _LOG_STATES] if log is not None else []
        yield gathered(catalogue.LOG_STATE, states)

    @staticmethod
    def _archive(archive: ArchiveStatus | None) -> Iterator[Metric]:
        yield gathered(catalogue.ARCHIVE_UP, single(archive.problem is None if archive is not None else None))
        yield gathered(catalogue.ARCHIVE_WRITTEN, single(archive.written if archive is not None else None))
        yield gathered(catalogue.ARCHIVE_LOST, single(archive.lost if archive is not None else None))

    def _device(self) -> Iterator[Metric]:
        service = self._service
        on_gpu = service.assembled and service.active.ensemble.device == "cuda"
        used, size = self._gpu.read() if on_gpu else (None, None)
        yield gathered(catalogue.MEMORY_USED, [(("0",), used)])
        yield gathered(catalogue.MEMORY_SIZE, [(("0",), size)])
