"""What the parts of a service count by themselves, read when it is scraped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, get_args

from prometheus_client.metrics_core import Metric

from senoscope import __version__
from senoscope.metrics import catalogue
from senoscope.metrics.catalogue import Declared
from senoscope.metrics.device import GpuMemory
from senoscope.runlog.faults import LogState
from senoscope.service import Service
from senoscope.stream.receiver import UNFIT
from senoscope_client.wire.messages import WireFault

# Told from the first scrape on, so that the first of a kind shows as an increase.
_REJECTIONS: Final = (*(fault for fault in get_args(WireFault) if fault != "unknown_type"), *UNFIT)
_LOG_STATES: Final = ("ok", "opening", "stopped", *get_args(LogState))
Value = tuple[tuple[str, ...], float | int | None]
"""Values of the labels, and the metric's; None where it is not known now."""


def gathered(declared: Declared, values: Iterable[Value]) -> Metric:
    """A family of those values that are known."""
    family = declared.gather()
    for labels, value in values:
        if value is not None:
            family.add_metric(labels, float(value))
    return family


def by_key(counts: Mapping[str, int]) -> list[Value]:
    """One value for each key."""
    return [((key,), count) for key, count in counts.items()]


def single(value: float | None) -> list[Value]:
    """The value of a metric without labels."""
    return [((), value)]


class ServiceState:
    """The collector over a service.

    Parameters
    ----------
    service : Service
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._gpu = GpuMemory()

    def describe(self) -> list[Metric]:
        """Nothing beforehand: collecting asks parts that are not there yet."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All families, those without values too, so that what is there does not depend on the moment."""
        service = self._service
        ready = service.problem() is None
        now: dict[str, Any] = service.describe_stream() if service.assembled else {}
        yield catalogue.BUILD.inform({"version": __version__})
        yield catalogue.MODEL.inform(self._model() if service.assembled else None)
        yield gathered(catalogue.READY, single(ready))
        yield gathered(catalogue.DEGRADED, single(ready and bool(service.impairments())))
        yield gathered(catalogue.DEADLINE, single(service.settings.deadline_ms / 1e3))
        engine = now.get("engine", {})
        problems = engine.get("thread_problems", {})
        deaths = engine.get("thread_deaths", {})
        yield gathered(catalogue.THREAD_UP, [((name,), name not in problems) for name in deaths])
        yield gathered(catalogue.THREAD_DEATHS, by_key(deaths))
        yield from self._stream(now.get("receiver") or {})
        yield from self._lanes(now.get("live", {}), now.get("batch", {}), engine)
        yield from self._kept(now.get("archive") or {})
        yield from self._device()
        spans = now.get("traces") or {}
        yield gathered(catalogue.SPANS, single(spans.get("made")))
        yield gathered(catalogue.SPANS_SENT, single(spans.get("sent")))

    def _model(self) -> dict[str, str]:
        ensemble = self._service.loaded.ensemble
        return {
            "name": ensemble.manifest.name,
            "version": ensemble.manifest.version,
            "digest": ensemble.digest,
            "device": ensemble.device,
            "for_science": str(ensemble.manifest.for_science).lower(),
        }

    @staticmethod
    def _stream(receiver: dict[str, Any]) -> Iterator[Metric]:
        series = receiver.get("series", [])
        yield gathered(catalogue.CONNECTED, single(receiver.get("connected")))
        yield gathered(catalogue.CONNECTIONS, single(receiver.get("connections")))
        yield gathered(catalogue.STREAM_REFUSALS, single(receiver.get("refused")))
        yield gathered(catalogue.STREAM_FAULTS, by_key(receiver.get("faults", {})))
        yield gathered(catalogue.SILENCE, single(receiver.get("silent_s")))
        yield gathered(catalogue.MESSAGES, by_key(receiver.get("messages", {})))
        rejected = dict.fromkeys(_REJECTIONS, 0) | receiver["rejected"] if receiver else {}
        yield gathered(catalogue.REJECTED, by_key(rejected))
        missing = sum(one["missing"] for one in series) if receiver else None
        repeated = sum(one["repeated"] for one in series) if receiver else None
        yield gathered(catalogue.MISSING, single(missing))
        yield gathered(catalogue.REPEATED, single(repeated))

    @staticmethod
    def _lanes(live: dict[str, Any], batch: dict[str, Any], engine: dict[str, Any]) -> Iterator[Metric]:
        for declared, key in (
            (catalogue.WAITING, "waiting"),
            (catalogue.CAPACITY, "capacity"),
            (catalogue.COMPUTED, "classified"),
        ):
            yield gathered(declared, [(("live",), live.get(key)), (("batch",), batch.get(key))])
        yield gathered(catalogue.DROPPED, by_key(live.get("dropped_reasons", {})))
        yield gathered(catalogue.FAILED, single(live.get("failed")))
        yield gathered(catalogue.UNTOLD, single(engine.get("results_failed")))
        yield gathered(catalogue.RETRIES, single(engine.get("retried")))
        yield gathered(catalogue.MISSES, single(live.get("late")))

    def _kept(self, archive: dict[str, Any]) -> Iterator[Metric]:
        # The run log is opened, and can fail, before there is an ensemble.
        keeper = self._service.log
        log = keeper.describe() if keeper is not None else {}
        yield gathered(catalogue.LOG_WRITTEN, single(log.get("written")))
        yield gathered(catalogue.LOG_WAITING, single(log.get("waiting")))
        yield gathered(catalogue.LOG_LOST, single(log.get("lost")))
        states = [((state,), state == log["state"]) for state in _LOG_STATES] if log else []
        yield gathered(catalogue.LOG_STATE, states)
        up = archive["problem"] is None if archive else None
        yield gathered(catalogue.ARCHIVE_UP, single(up))
        yield gathered(catalogue.ARCHIVE_WRITTEN, single(archive.get("written")))
        yield gathered(catalogue.ARCHIVE_LOST, single(archive.get("lost")))

    def _device(self) -> Iterator[Metric]:
        service = self._service
        on_gpu = service.assembled and service.loaded.ensemble.device == "cuda"
        used, size = self._gpu.read() if on_gpu else (None, None)
        yield gathered(catalogue.MEMORY_USED, [(("0",), used)])
        yield gathered(catalogue.MEMORY_SIZE, [(("0",), size)])
