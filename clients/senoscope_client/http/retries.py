"""When a request may be sent once more, and after how long."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

import httpx

_SAFE: Final = frozenset({"GET", "HEAD"})
# Of a proxy in between, which lost the service for a moment.
_PASSING: Final = frozenset({502, 504})
# So far nothing was sent, so nothing can have been done twice.
_NOT_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout)


@dataclass(frozen=True)
class Retries:
    """How patient a client is.

    What only asks is sent again after every fault of the connection; only a time-out while waiting for the
    answer, which took long enough, is not. A posted stack is sent again where the service was too busy to
    take it, or where there was no connection to send it over; never where it may have been classified.

    Attributes
    ----------
    times : int
        How often at most; 0: never.
    first_s : float
        The first pause; each further one is twice as long.
    longest_s : float
        No pause is longer. A service that asks for more patience than that is not asked again.
    """

    times: int = 3
    first_s: float = 0.25
    longest_s: float = 10.0

    def pause_s(self, sent: int, method: str, outcome: httpx.Response | httpx.TransportError) -> float | None:
        """How long to wait before a request that was sent so often is sent again; None: it is not."""
        if sent > self.times:
            return None
        pause_s = min(self.longest_s, self.first_s * 2.0 ** (sent - 1))
        pause_s *= random.uniform(0.75, 1.25)  # noqa: S311 - so that many clients do not come at once
        if isinstance(outcome, httpx.TransportError):
            if method in _SAFE:
                return None if isinstance(outcome, httpx.ReadTimeout) else pause_s
            return pause_s if isinstance(outcome, _NOT_SENT) else None
        if outcome.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            after = outcome.headers.get("Retry-After", "")
            if not after.isascii() or not after.isdigit() or float(after) > self.longest_s:
                return None
            return max(pause_s, float(after))
        return pause_s if method in _SAFE and outcome.status_code in _PASSING else None


NO_RETRIES: Final = Retries(times=0)
