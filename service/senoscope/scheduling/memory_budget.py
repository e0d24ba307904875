"""A limit on the memory of all requests together, for bodies and pixels."""

from __future__ import annotations

import threading
from typing import Self

from senoscope_client.errors import Busy

_MIB = 1024 * 1024
_RETRY_AFTER_S = 2.0


class MemoryBudget:
    """A number of bytes that requests share; each request holds a share while it is served.

    Parameters
    ----------
    max_bytes : int
        Of all shares together. A share may exceed it while it is the only one: the size of single requests is
        limited elsewhere.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._reserved = 0
        self._lock = threading.Lock()

    @property
    def reserved(self) -> int:
        """Bytes of all shares together."""
        with self._lock:
            return self._reserved

    def share(self) -> MemoryShare:
        """Return an empty share; a context manager that returns its bytes."""
        return MemoryShare(self)

    def change(self, own: int, more: int) -> None:
        """Grow or shrink a share of ``own`` bytes; for `MemoryShare`.

        Raises
        ------
        Busy
            If the other shares leave too little.
        """
        with self._lock:
            others = self._reserved - own
            if more > 0 and others and self._reserved + more > self._max_bytes:
                raise Busy(
                    f"other requests hold {others / _MIB:.0f} MiB of bodies and pixels, this one needs "
                    f"{(own + more) / _MIB:.0f} MiB, and the limit for all together is "
                    f"{self._max_bytes // _MIB} MiB (--request-memory-mib); try again in about "
                    f"{_RETRY_AFTER_S:g} s",
                    retry_after_s=_RETRY_AFTER_S,
                )
            self._reserved += more


class MemoryShare:
    """The part of a budget that one request holds; for one thread at a time."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self._bytes = 0

    def reserve(self, count: int) -> None:
        """Reserve bytes before they are allocated; raises Busy as `MemoryBudget.change` does."""
        self._budget.change(self._bytes, count)
        self._bytes += count

    def shrink_to(self, count: int) -> None:
        """Return all but ``count`` bytes to the budget."""
        if count < self._bytes:
            self._budget.change(self._bytes, count - self._bytes)
            self._bytes = count

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.shrink_to(0)
