"""How often a log line of one kind is written, where any client can cause it."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass


@dataclass
class _Kind:
    interval_s: float
    last_s: float = -math.inf
    suppressed: int = 0


class RateLimiter:
    """Suppresses log lines of a kind that follow each other too fast, and counts them.

    May be used from any thread.

    Parameters
    ----------
    interval_s : float
        Seconds between two lines of a kind.
    max_interval_s : float, optional
        While lines keep being suppressed, the interval doubles up to this.
    """

    def __init__(self, interval_s: float, max_interval_s: float | None = None) -> None:
        self._interval_s = interval_s
        self._max_interval_s = max_interval_s or interval_s
        self._lock = threading.Lock()
        self._kinds: dict[str, _Kind] = {}

    def suppressed_since_last(self, kind: str = "") -> int | None:
        """Return how many lines were suppressed since the last one, or None if this one is to be suppressed.

        Parameters
        ----------
        kind : str
            One of a few: each is remembered.
        """
        now_s = time.monotonic()
        with self._lock:
            known = self._kinds.setdefault(kind, _Kind(self._interval_s))
            if now_s - known.last_s < known.interval_s:
                known.suppressed += 1
                return None
            doubled_s = min(2 * known.interval_s, self._max_interval_s)
            self._kinds[kind] = _Kind(doubled_s if known.suppressed else self._interval_s, now_s)
            return known.suppressed
