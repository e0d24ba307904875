"""Frames of a simulated microscope through the real service, wire to wire."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final

from senoscope.bench.passport import Histogram, PostedStacks, Spread, StreamTimes
from senoscope.bench.service import MeasuredService
from senoscope.child_process import ChildProcess, child_process
from senoscope_client.errors import NotReady
from senoscope_client.models.result import Result
from senoscope_client.models.status import LiveLaneStatus

# After so long without a result, missing ones count as lost.
_QUIET_S: Final = 20.0
_POLL_S: Final = 0.25
_STACK_TIMEOUT_S: Final = 120.0
OnResult = Callable[[int, int], None]
"""Called with the number of results so far, and the number of frames."""


@dataclass(frozen=True)
class _Arrival:
    at_s: float
    compute_ms: float


@dataclass(frozen=True)
class StreamRun:
    """A series that was published and classified.

    Attributes
    ----------
    latencies_ms : list of float
        Wire to wire, by frame; frames without a result are missing.
    """

    rate_hz: float
    sent_s: list[float]
    latencies_ms: list[float]
    overheads_ms: list[float]
    late: int
    dropped: int
    failed: int
    stacks: PostedStacks | None = None

    @property
    def sent_hz(self) -> float:
        """At which rate the frames were published."""
        if len(self.sent_s) < 2:
            return self.rate_hz
        return (len(self.sent_s) - 1) / (self.sent_s[-1] - self.sent_s[0])

    def times(self) -> StreamTimes:
        """Return the part of the passport."""
        return StreamTimes(
            rate_hz=round(self.rate_hz, 4),
            sent_hz=round(self.sent_hz, 4),
            sent=len(self.sent_s),
            received=len(self.latencies_ms),
            late=self.late,
            dropped=self.dropped,
            failed=self.failed,
            latency_ms=Spread.of(self.latencies_ms),
            overhead_ms=Spread.of(self.overheads_ms),
            histogram=Histogram.of(self.latencies_ms),
            stacks=self.stacks,
        )


@dataclass
class StreamMeasurement:
    """Measures series of frames, one after the other.

    Parameters
    ----------
    service : MeasuredService
    on_result : callable
    """

    service: MeasuredService
    on_result: OnResult
    _series: int = field(default=0, init=False)

    def measure(self, rate_hz: float, frames: int, stack: int = 0) -> StreamRun:
        """Publish frames at a rate, and return the times until their results.

        Parameters
        ----------
        stack : int
            FOVs of the stacks that are posted meanwhile, one after the other; 0: none.

        Raises
        ------
        NotReady
            If the service or the simulated microscope ended.
        """
        self._series += 1
        name = f"bench-{self._series}"
        before = self.service.client.stream_status().live
        posting = self._posting(stack, frames / rate_hz) if stack else nullcontext(None)
        with tempfile.TemporaryFile() as output, posting as stacks:
            with child_process(
                "simulated microscope",
                "senoscope.bench.microscope",
                self._options(name, rate_hz, frames),
                self.service.environment,
                output,
            ) as microscope:
                arrivals = self._receive(name, microscope, frames, before)
            sent_s: list[float] = _read_json(output)
            after = self.service.client.stream_status().live
        results = [(sent_s[frame], arrivals[frame]) for frame in sorted(arrivals)]
        latencies_ms = [(arrival.at_s - at_s) * 1e3 for at_s, arrival in results]
        return StreamRun(
            rate_hz=rate_hz,
            sent_s=sent_s,
            latencies_ms=latencies_ms,
            overheads_ms=[
                latency - arrival.compute_ms
                for latency, (_, arrival) in zip(latencies_ms, results, strict=True)
            ],
            late=after.late - before.late,
            dropped=after.dropped - before.dropped,
            failed=after.failed - before.failed,
            stacks=None if stacks is None else _posted(stacks, stack),
        )

    def _options(self, series: str, rate_hz: float, frames: int) -> list[str]:
        height, width = self.service.size
        options = ["--endpoint", self.service.frames_at, "--series", series]
        options += ["--channels", ",".join(self.service.channels)]
        options += ["--height", str(height), "--width", str(width)]
        return [*options, "--frames", str(frames), "--rate", f"{rate_hz:.6f}"]

    def _receive(
        self, series: str, microscope: ChildProcess, frames: int, before: LiveLaneStatus
    ) -> dict[int, _Arrival]:
        arrivals: dict[int, _Arrival] = {}
        last_s = time.monotonic()
        with self.service.client.live(timeout_s=_POLL_S) as results:
            while len(arrivals) < frames:
                try:
                    result: Result = next(results)
                except StopIteration:
                    raise NotReady("the service stopped during the measurement") from None
                except TimeoutError:
                    self._require_running(microscope)
                    if microscope.poll() is None:
                        last_s = time.monotonic()
                    elif self._accounted(before) >= frames or time.monotonic() - last_s > _QUIET_S:
                        break
                    continue
                at_s = time.perf_counter()
                source = result.source
                if source.series_id == series and source.frame is not None:
                    arrivals[source.frame] = _Arrival(at_s, result.timing_ms.compute)
                    last_s = time.monotonic()
                    self.on_result(len(arrivals), frames)
        microscope.wait(_QUIET_S)
        return arrivals

    def _accounted(self, before: LiveLaneStatus) -> int:
        """Return how many frames were classified, dropped or failed, if all results have been received."""
        now = self.service.client.stream_status().live
        return sum(getattr(now, name) - getattr(before, name) for name in ("classified", "dropped", "failed"))

    def _require_running(self, microscope: ChildProcess) -> None:
        if self.service.process.poll() is not None:
            raise NotReady("the service ended during the measurement")
        if microscope.failed:
            raise NotReady("the simulated microscope ended during the measurement")

    @contextmanager
    def _posting(self, fovs: int, seconds: float) -> Iterator[dict[str, Any]]:
        """Post stacks within the block, and fill the yielded dictionary with the summary at its end."""
        summary: dict[str, Any] = {}
        load = ["load", self.service.url, "--seconds", f"{seconds:.3f}", "--json"]
        load += ["--fovs-per-request", str(fovs), "--timeout-s", f"{_STACK_TIMEOUT_S:g}"]
        with tempfile.TemporaryFile() as output:
            environment = self.service.environment
            with child_process("load", "senoscope_client.cli", load, environment, output) as process:
                yield summary
                process.wait(2 * _STACK_TIMEOUT_S)
            summary.update(_read_json(output))


def _read_json(output: BinaryIO) -> Any:
    output.seek(0)
    return json.loads(output.read())


def _posted(summary: dict[str, Any], fovs: int) -> PostedStacks:
    latency = summary["latency_ms"] or {}
    return PostedStacks(
        fovs_per_stack=fovs,
        succeeded=summary["succeeded"],
        failed=summary["due"] - summary["succeeded"],
        fovs_per_second=summary["fovs_per_second"],
        p50_ms=latency.get("p50"),
        max_ms=latency.get("max"),
    )
