"""The search for the highest rate of a stream that the service follows and that keeps the deadline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from senoscope.bench.passport import Spread, Trial
from senoscope.bench.stream import StreamRun

_FASTER, _SLOWER = 1.25, 0.7
_MAX_TRIALS: Final = 10
_HELD: Final = 0.97  # of the rate, which the simulated microscope must reach


def problem_of(run: StreamRun, deadline_ms: float | None) -> str | None:
    """Return why a rate is too high, or None.

    Parameters
    ----------
    deadline_ms : float or None
        That 99 % of the frames must keep; None: frames must not be dropped, and must not wait longer and
        longer.
    """
    if run.sent_hz < _HELD * run.rate_hz:
        return f"the simulated microscope sent only {run.sent_hz:.3g} FOVs per second"
    missing = len(run.sent_s) - len(run.latencies_ms)
    if missing:
        return f"{missing} of {len(run.sent_s)} frames have no result"
    latency = Spread.of(run.latencies_ms)
    if deadline_ms is not None and latency is not None and latency.p99 > deadline_ms:
        return f"the p99 is {latency.p99:.1f} ms, the deadline {deadline_ms:g} ms"
    if _growth_ms(run.latencies_ms) > 500 / run.rate_hz:
        return "results fall behind the frames"
    return None


def _growth_ms(latencies_ms: Sequence[float]) -> float:
    """Return by how much the last third of the frames waited longer than the first."""
    third = len(latencies_ms) // 3
    return median(latencies_ms[-third:]) - median(latencies_ms[:third]) if third else 0.0


@dataclass
class RateSearch:
    """A search by doubling and halving intervals, on a logarithmic scale.

    Parameters
    ----------
    measure : callable
        Measures a rate with a number of frames.
    deadline_ms : float or None
        See `problem_of`.
    resolution : float
        Ends when the lowest rate that is too high is as many times the highest that is not.
    trial_s : float
        Seconds of a trial; longer if these would be fewer frames than ``trial_frames``.
    trial_frames : int
    on_trial : callable
        Called before each trial with its rate.

    Attributes
    ----------
    trials : list of Trial
    """

    measure: Callable[[float, int], StreamRun]
    deadline_ms: float | None
    resolution: float
    trial_s: float
    trial_frames: int
    on_trial: Callable[[float], None]
    trials: list[Trial] = field(default_factory=list, init=False)

    def highest(self, first_hz: float) -> float | None:
        """Return the highest rate without a problem; None if each one had one."""
        rate_hz, kept_hz, failed_hz = first_hz, None, None
        for _ in range(_MAX_TRIALS):
            if self._try(rate_hz, max(self.trial_frames, round(self.trial_s * rate_hz))) is None:
                kept_hz = rate_hz
            else:
                failed_hz = rate_hz
            if kept_hz is None:
                rate_hz *= _SLOWER
            elif failed_hz is None:
                rate_hz *= _FASTER
            elif failed_hz / kept_hz <= self.resolution:
                break
            else:
                rate_hz = (kept_hz * failed_hz) ** 0.5
        return kept_hz

    def _try(self, rate_hz: float, frames: int) -> str | None:
        self.on_trial(rate_hz)
        run = self.measure(rate_hz, frames)
        problem = problem_of(run, self.deadline_ms)
        latency = Spread.of(run.latencies_ms)
        p99_ms = None if latency is None else latency.p99
        self.trials.append(Trial(rate_hz=round(rate_hz, 4), frames=frames, p99_ms=p99_ms, problem=problem))
        return problem
