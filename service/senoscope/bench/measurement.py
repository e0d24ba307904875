"""All measurements of a passport, in their order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from senoscope.bench.engine import measure_engine
from senoscope.bench.machine import Machine
from senoscope.bench.passport import EnsembleRef, Passport, StreamTimes, Trial
from senoscope.bench.rate import RateSearch, problem_of
from senoscope.bench.service import MeasuredService, running_service
from senoscope.bench.stream import StreamMeasurement, StreamRun
from senoscope.engine import Ensemble

if TYPE_CHECKING:
    from senoscope.settings import Settings

STACK: Final = 16
_BATCHES: Final = (1, STACK)
# First rate of the search, as a fraction of what the engine alone could compute.
_FIRST: Final = 0.9
_STEP_DOWN, _MAX_STEPS = 0.92, 4
_MIN_FRAMES: Final = 10
_WARM_UP_FRAMES: Final = 3


class Progress(Protocol):
    """Where the state of the measurement is shown."""

    def begin(self, step: str) -> None:
        """Show that a step begins."""

    def count(self, done: int, total: int | None) -> None:
        """Show how far the step is, in batches or results."""


@dataclass(frozen=True)
class Effort:
    """How long each part is measured.

    Attributes
    ----------
    seconds : float
        Of each stream.
    batch_seconds : float
        Of each batch size of the engine.
    trial_s, trial_frames, resolution
        See `RateSearch`.
    """

    quick: bool
    seconds: float
    batch_seconds: float
    trial_s: float
    trial_frames: int
    resolution: float

    @classmethod
    def of(cls, quick: bool, seconds: float | None) -> Effort:
        """Return the effort of a quick or a full measurement; ``seconds`` replaces those of a stream."""
        if quick:
            return cls(True, seconds or 3.0, 0.5, 1.0, 9, 1.25)
        return cls(False, seconds or 15.0, 3.0, 2.0, 18, 1.1)


def measure_machine(
    settings: Settings, folder: Path, effort: Effort, rate_hz: float | None, progress: Progress
) -> Passport:
    """Measure the service, and then the engine alone, on the ensemble in a folder.

    Parameters
    ----------
    settings : Settings
        Of the engine and the service, except for its addresses, sources and outputs.
    rate_hz : float or None
        Of the stream; None: the highest that keeps the deadline at the 99th percentile, or without a deadline
        that the service follows without dropping frames.

    Raises
    ------
    NotReady
        If a process ends early.
    """
    machine = Machine.this()
    progress.begin("service: start")
    with running_service(settings, folder) as service:
        streams, search = _measure_streams(service, effort, rate_hz, progress)
    sizes = _BATCHES if effort.quick else sorted({*_BATCHES, *service.model.engine.batch_sizes})
    progress.begin("engine alone: load, verify, warm up")
    with Ensemble.load(
        folder,
        device=settings.device,
        precision=settings.precision,
        gate=settings.gate_limits,
        threads=settings.threads,
    ) as ensemble:
        progress.begin(f"engine alone: batches of {', '.join(map(str, sizes))}")
        batches = measure_engine(
            ensemble, sizes, effort.batch_seconds, lambda done: progress.count(done, None)
        )
    model, deadline_ms = service.model, service.deadline_ms
    engine = model.engine.model_dump(mode="json")
    alone = streams[0].latency_ms
    return Passport(
        made_at=datetime.now(UTC),
        quick=effort.quick,
        machine=machine,
        ensemble=EnsembleRef(name=model.name, version=model.version, digest=model.digest),
        device=model.engine.device,
        precision=model.engine.precision,
        engine=engine,
        deadline_ms=deadline_ms,
        deadline_kept=None if deadline_ms is None else alone is not None and alone.p99 <= deadline_ms,
        start_s=service.start_s,
        batches=batches,
        search=search,
        streams=streams,
    )


def _measure_streams(
    service: MeasuredService,
    effort: Effort,
    rate_hz: float | None,
    progress: Progress,
) -> tuple[tuple[StreamTimes, ...], tuple[Trial, ...]]:
    stream = StreamMeasurement(service, progress.count)
    search: tuple[Trial, ...] = ()
    one_ms = service.model.engine.compute_ms
    progress.begin("service: first frames, which do not count")
    stream.measure(rate_hz or _FIRST * 1000 / one_ms, _WARM_UP_FRAMES)

    def measure(rate: float, beside: str = "", stack: int = 0) -> StreamRun:
        progress.begin(f"stream of {rate:.3g} FOVs per second{beside}")
        return stream.measure(rate, max(_MIN_FRAMES, round(effort.seconds * rate)), stack)

    if rate_hz is None:
        deadline_ms = service.deadline_ms
        if deadline_ms is not None and one_ms > deadline_ms:
            deadline_ms = None  # no rate keeps it
        first_hz, search = _search(stream, deadline_ms, _FIRST * 1000 / one_ms, effort, progress)
        alone = _measure_held(measure, first_hz, deadline_ms)
    else:
        alone = measure(rate_hz)
    beside = measure(alone.rate_hz, f" with posted stacks of {STACK}", STACK)
    return (alone.times(), beside.times()), search


def _search(
    stream: StreamMeasurement, deadline_ms: float | None, first_hz: float, effort: Effort, progress: Progress
) -> tuple[float, tuple[Trial, ...]]:
    """Return the highest rate that was found, and all that were tried."""
    search = RateSearch(
        measure=stream.measure,
        deadline_ms=deadline_ms,
        resolution=effort.resolution,
        trial_s=effort.trial_s,
        trial_frames=effort.trial_frames,
        on_trial=lambda rate: progress.begin(f"search for the highest rate: {rate:.3g} FOVs per second"),
    )
    found_hz = search.highest(first_hz)
    return found_hz or search.trials[-1].rate_hz, tuple(search.trials)


def _measure_held(
    measure: Callable[[float], StreamRun], rate_hz: float, deadline_ms: float | None
) -> StreamRun:
    """Measure a rate for longer than the search did, and lower ones while it is too high."""
    for _ in range(_MAX_STEPS):
        run = measure(rate_hz)
        if problem_of(run, deadline_ms) is None:
            break
        rate_hz *= _STEP_DOWN
    return run
