"""The parts of a service that has an ensemble: made, connected, started and stopped together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from senoscope.decisions.decider import Decider, DecisionSink
from senoscope.decisions.rules import RuleSet
from senoscope.engine import Ensemble
from senoscope.fov import Fov
from senoscope.outputs.zeromq import ResultPublisher
from senoscope.results.delivery import Delivery, ResultSink
from senoscope.results.lost_frames import LostFrames
from senoscope.runlog.keeper import LogKeeper
from senoscope.runlog.store import RunLog
from senoscope.scheduling.active_ensemble import ActiveEnsemble
from senoscope.scheduling.memory_budget import MemoryBudget
from senoscope.scheduling.model_switch import ModelSwitch
from senoscope.scheduling.scheduler import Scheduler
from senoscope.scheduling.session_range import SessionRange
from senoscope.settings import Settings
from senoscope.stream.receiver import Receiver
from senoscope.stream.series import Series
from senoscope.stream.source import FrameSource
from senoscope.watched_thread import WatchedThread
from senoscope_client.errors import LogUnavailable
from senoscope_client.zeromq.curve_keys import CurveClient

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Foundation:
    """The parts of a service that exist before an ensemble is loaded."""

    log: LogKeeper | None
    session_range: SessionRange
    lost: LostFrames
    rules: RuleSet | None
    sinks: list[ResultSink]
    decision_sinks: list[DecisionSink]
    memory: MemoryBudget  # for pixels that wait, of requests and of the watched folder


@dataclass(frozen=True)
class Assembly:
    """The parts of a service that has an ensemble."""

    scheduler: Scheduler
    delivery: Delivery
    models: ModelSwitch
    sources: tuple[FrameSource, ...]
    publisher: ResultPublisher | None

    @property
    def threads(self) -> list[WatchedThread]:
        """All threads of the parts; those that take results come before those that produce them."""
        found = [sink.thread for sink in self.delivery.sinks if sink.thread is not None]
        return [*found, self.delivery.thread, self.scheduler.thread, *(one.thread for one in self.sources)]

    def start(self) -> None:
        """Start all parts."""
        for thread in self.threads:
            thread.start()

    def drain(self, timeout_s: float) -> bool:
        """Receive nothing more, and return whether all that waited was computed in time."""
        self.stop_receiving()
        live, batch = self.scheduler.depths()
        _log.info("stopping", live_waiting=live, batch_waiting=batch, drain_s=timeout_s)
        drained = self.scheduler.drain(timeout_s)
        if not drained:
            live, batch = self.scheduler.depths()
            _log.warning("stopping although fields of view wait", live_waiting=live, batch_waiting=batch)
        return drained

    def stop_receiving(self) -> None:
        """Close the stream, and take no more files of the watched folder."""
        for source in self.sources:
            source.close()

    def stop_delivery(self) -> None:
        """Stop computing, deliver what was computed, and close the sinks."""
        self.stop_receiving()
        self.scheduler.close()
        self.delivery.close()

    def close_ensemble(self) -> None:
        """Release the ensemble's memory."""
        self.scheduler.active.ensemble.close()


def assemble(
    ensemble: Ensemble,
    settings: Settings,
    foundation: Foundation,
    on_device_error: Callable[[Exception], None],
) -> Assembly:
    """Make and connect all parts for an ensemble; none is started.

    Parameters
    ----------
    on_device_error : callable
        Called on the scheduler's thread when a device other than the CPU failed on the same FOVs in two
        consecutive attempts.

    Raises
    ------
    OSError, ValueError
        If an endpoint cannot be bound, or a key file or the archive's folder cannot be used.
    """
    sinks, decision_sinks = list(foundation.sinks), list(foundation.decision_sinks)
    publisher = _publisher(settings)
    if publisher is not None:
        sinks.append(publisher)
        decision_sinks.append(publisher)
    if settings.archive is not None:
        from senoscope.outputs.archive import Archive  # imports tifffile

        sinks.append(Archive(settings.archive))
    if foundation.rules is not None:
        sinks.append(Decider(foundation.rules, decision_sinks, foundation.log))
    foundation.session_range.restore()
    delivery = Delivery(sorted(sinks, key=lambda sink: sink.stage), foundation.log, foundation.lost)
    scheduler = Scheduler(
        ActiveEnsemble.of(ensemble, settings.deadline_ms),
        foundation.session_range.for_ensemble,
        delivery.deliver,
        on_device_error,
        largest_batch=settings.batch_size,
        live_depth=settings.live_queue,
        batch_depth=settings.batch_queue,
        lost=foundation.lost,
    )
    return Assembly(
        scheduler=scheduler,
        delivery=delivery,
        models=ModelSwitch(settings, scheduler),
        sources=(*_sources(settings, foundation, scheduler),),
        publisher=publisher,
    )


def _publisher(settings: Settings) -> ResultPublisher | None:
    if not settings.results:
        return None
    return ResultPublisher(
        settings.results, settings.results_cam, settings.curve_keypair, settings.results_allowed_keys
    )


def _sources(settings: Settings, foundation: Foundation, scheduler: Scheduler) -> Iterator[FrameSource]:
    if settings.stream:
        yield _receiver(settings, foundation, scheduler)
    if settings.watch is not None and foundation.log is not None:
        yield _watched_folder(settings, foundation, foundation.log, scheduler)


def _watched_folder(
    settings: Settings, foundation: Foundation, log: LogKeeper, scheduler: Scheduler
) -> FrameSource:
    from senoscope.stream.watched_folder import WatchedFolder  # imports what lists and sorts files

    @contextmanager
    def reserve(count: int) -> Iterator[None]:
        with foundation.memory.share() as share:
            share.reserve(count)
            yield

    return WatchedFolder(
        settings,
        lambda: scheduler.active.spec,
        scheduler.require_room,
        scheduler.submit_stack,
        reserve,
        log,
    )


def _receiver(settings: Settings, foundation: Foundation, scheduler: Scheduler) -> Receiver:
    curve = None
    if settings.stream_server_key is not None:
        curve = CurveClient.load(settings.stream_server_key, settings.curve_keypair)
    session_range = foundation.session_range

    def classify(fov: Fov) -> None:
        if scheduler.submit_live(fov):
            session_range.observe(fov, scheduler.active, scheduler.require_in_use)

    return Receiver(
        settings.stream,
        lambda: scheduler.active.spec,
        classify,
        curve,
        _earlier_series(foundation.log, foundation.lost),
        foundation.lost,
    )


def _earlier_series(log: LogKeeper | None, lost: LostFrames) -> Sequence[Series]:
    """Return the series of an earlier process, some of which may continue."""
    if log is None:
        return ()
    try:
        earlier = log.query(RunLog.latest_series)
    except LogUnavailable as error:
        _log.warning("series that continue are counted from now on only", reason=str(error))
        return ()
    for snapshot, _ in reversed(earlier):
        lost.restore(snapshot.series_uid, snapshot.lost)
    return [Series.from_snapshot(snapshot, logged) for snapshot, logged in earlier]
