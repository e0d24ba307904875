"""What became of each request, and the summary of all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

_PERCENTILES: Final = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}
UNFINISHED: Final = "unfinished"
"""The code of a request that had no response when the run ended."""
NOT_SENT: Final = "not_sent"
"""The code of a request that was due, but not sent when the run ended."""
TIMEOUT: Final = "timeout"
"""The code of a request that had no response within the time limit."""
_WAITED: Final = frozenset({UNFINISHED, NOT_SENT, TIMEOUT})


@dataclass(frozen=True, slots=True)
class Outcome:
    """A request that was due.

    Attributes
    ----------
    due_s : float
        When it should have been sent, on the clock of the run.
    sent_s : float or None
        When it was sent; None if it was not.
    ended_s : float
        When its response was received, or the end of the run.
    fovs : int
        Fields of view in the response; 0 without a successful response.
    status : int or None
        HTTP status, if there was a response.
    code : str
        Empty for a success, else the code of the problem.
    retry_after_s : float or None
        Seconds after which the request may be sent again, as the service states.
    """

    due_s: float
    sent_s: float | None
    ended_s: float
    fovs: int = 0
    status: int | None = None
    code: str = ""
    retry_after_s: float | None = None

    @property
    def latency_ms(self) -> float:
        """Milliseconds from the time that it was due; without a response, how long it has waited at least."""
        return (self.ended_s - self.due_s) * 1e3


@dataclass(frozen=True)
class LoadError:
    """Requests that failed alike."""

    status: int | None
    code: str
    retry_after: bool
    count: int

    def __str__(self) -> str:
        status = "" if self.status is None else f"{self.status} "
        return f"{status}{self.code}{', with Retry-After' if self.retry_after else ''}: {self.count}"


@dataclass(frozen=True)
class LoadSummary:
    """The summary of a run.

    Attributes
    ----------
    due, succeeded, failed, unfinished, not_sent : int
        Requests. Every request that was due is in exactly one of the last four.
    fovs : int
        Fields of view that were classified.
    seconds : float
        From the first request to the last response, or to the end of the run.
    fovs_per_second : float
    latency_ms : dict of str to float, or None
        Percentiles from the time that a request was due to its response. Requests without a response count
        with the time that they have waited, rejected ones do not count. None if there is no such request.
    send_delay_ms : dict of str to float, or None
        Percentiles of how late requests were sent: large ones are caused by this program or its machine.
    errors : tuple of LoadError
    interrupted : bool
    """

    due: int
    succeeded: int
    failed: int
    unfinished: int
    not_sent: int
    fovs: int
    seconds: float
    fovs_per_second: float
    latency_ms: dict[str, float] | None
    send_delay_ms: dict[str, float] | None
    errors: tuple[LoadError, ...]
    interrupted: bool

    def problem(self, max_p99_ms: float | None) -> str | None:
        """Return why the run is not a success, or None."""
        if self.failed or self.unfinished or self.not_sent:
            return f"{self.due - self.succeeded} of {self.due} requests did not succeed"
        p99_ms = None if self.latency_ms is None else self.latency_ms["p99"]
        if p99_ms is None:
            return "no request was sent"
        if max_p99_ms is not None and p99_ms > max_p99_ms:
            return f"the p99 of {p99_ms:g} ms exceeds --max-p99-ms {max_p99_ms:g}"
        return None

    def document(self) -> dict[str, Any]:
        """Return the summary as JSON has it."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return the summary as lines of text."""
        rest = f"{self.failed} failed, {self.unfinished} unfinished, {self.not_sent} not sent"
        lines = [
            f"requests  {self.due} due: {self.succeeded} succeeded, {rest}",
            f"latency   {_text(self.latency_ms)}",
            f"sent late {_text(self.send_delay_ms)}",
            f"rate      {self.fovs_per_second:.1f} FOVs per second, {self.fovs} in {self.seconds:.1f} s",
        ]
        return [*lines, *(f"error     {error}" for error in self.errors)]


def summarize(outcomes: Sequence[Outcome], interrupted: bool) -> LoadSummary:
    """Return the summary of all requests that were due."""
    codes = Counter(outcome.code for outcome in outcomes)
    errors = Counter((o.status, o.code, o.retry_after_s is not None) for o in outcomes if o.code)
    timed = [outcome.latency_ms for outcome in outcomes if not outcome.code or outcome.code in _WAITED]
    delays = [(o.sent_s - o.due_s) * 1e3 for o in outcomes if o.sent_s is not None]
    seconds = max(o.ended_s for o in outcomes) - min(o.due_s for o in outcomes) if outcomes else 0.0
    fovs = sum(outcome.fovs for outcome in outcomes)
    return LoadSummary(
        due=len(outcomes),
        succeeded=codes[""],
        failed=len(outcomes) - codes[""] - codes[UNFINISHED] - codes[NOT_SENT],
        unfinished=codes[UNFINISHED],
        not_sent=codes[NOT_SENT],
        fovs=fovs,
        seconds=round(seconds, 3),
        fovs_per_second=round(fovs / seconds, 3) if seconds else 0.0,
        latency_ms=_percentiles(timed),
        send_delay_ms=_percentiles(delays),
        errors=tuple(LoadError(*kind, count) for kind, count in errors.most_common()),
        interrupted=interrupted,
    )


def _percentiles(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    # Measured values, none between two of them.
    found = np.percentile(values, list(_PERCENTILES.values()), method="higher")
    return {name: round(float(value), 3) for name, value in zip(_PERCENTILES, found, strict=True)}


def _text(percentiles: dict[str, float] | None) -> str:
    if percentiles is None:
        return "unknown"
    return ", ".join(f"{name} {value:.1f}" for name, value in percentiles.items()) + " ms"
