"""Retries: when a failed request is sent again, and after how long."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

import httpx

_SAFE: Final = frozenset({"GET", "HEAD"})
# Statuses of a proxy that could not reach the service for a moment.
_TRANSIENT_STATUSES: Final = frozenset({502, 504})
# The request was not sent, so that the service cannot have processed it.
_NOT_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout)


@dataclass(frozen=True)
class Retries:
    """How often a client sends failed requests again.

    A request that only reads is sent again after every connection error, except a time-out while waiting for
    the response. A posted stack is sent again if the service was too busy to accept it, or if the connection
    could not be opened; never if it may have been classified.

    Attributes
    ----------
    times : int
        Maximum number of retries; 0: none.
    first_s : float
        The first pause in seconds; each further one is twice as long.
    longest_s : float
        The longest pause in seconds. If the service requires a longer one, the request is not sent again.
    """

    times: int = 3
    first_s: float = 0.25
    longest_s: float = 10.0

    def pause_s(self, sent: int, method: str, outcome: httpx.Response | httpx.TransportError) -> float | None:
        """Return the pause before the next attempt after ``sent`` attempts; None: do not send it again."""
        if sent > self.times:
            return None
        pause_s = min(self.longest_s, self.first_s * 2.0 ** (sent - 1))
        pause_s *= random.uniform(0.75, 1.25)  # noqa: S311 - so that clients do not all retry at once
        if isinstance(outcome, httpx.TransportError):
            if method in _SAFE:
                return None if isinstance(outcome, httpx.ReadTimeout) else pause_s
            return pause_s if isinstance(outcome, _NOT_SENT) else None
        if outcome.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            after = outcome.headers.get("Retry-After", "")
            if not after.isascii() or not after.isdigit() or float(after) > self.longest_s:
                return None
            return max(pause_s, float(after))
        return pause_s if method in _SAFE and outcome.status_code in _TRANSIENT_STATUSES else None


NO_RETRIES: Final = Retries(times=0)
