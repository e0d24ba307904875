"""Reading the run log for requests, in few threads of its own, so that nothing else waits for it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final, ParamSpec, TypeVar

import anyio.to_thread
from fastapi import Request

from senoscope_client.errors import Busy

_P = ParamSpec("_P")
_T = TypeVar("_T")
# At once; fewer than the run log has connections for reads.
_READS: Final = 4
# Requests that may wait for their turn, and for how long.
_WAITING: Final = 100
_PATIENCE_S: Final = 10.0
_END: Final = object()


class Readers:
    """The threads that requests read the run log in; everything else has Starlette's."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(_READS)
        # The semaphore is the limit; this only keeps the reads out of the shared threads.
        self._threads = anyio.CapacityLimiter(math.inf)
        self._waiting = 0

    async def run(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call a function that reads.

        Raises
        ------
        Busy
            If too many wait, or one has waited too long.
        """
        if self._waiting >= _WAITING:
            raise Busy(f"{self._waiting} requests wait for the run log already", _PATIENCE_S)
        self._waiting += 1
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self._turns.acquire()
        except TimeoutError:
            raise Busy("other requests keep the run log busy", _PATIENCE_S) from None
        finally:
            self._waiting -= 1
        try:
            return await anyio.to_thread.run_sync(lambda: function(*args, **kwargs), limiter=self._threads)
        finally:
            self._turns.release()

    async def iterate(self, pieces: Iterator[_T]) -> AsyncIterator[_T]:
        """The pieces of a long answer, each of which waits for its turn."""
        while True:
            piece = await self.run(next, pieces, _END)
            if piece is _END:
                return
            yield piece  # type: ignore[misc]


def readers_of(request: Request) -> Readers:
    """The application's readers; made in its event loop."""
    state = request.app.state
    if not hasattr(state, "readers"):
        state.readers = Readers()
    readers: Readers = state.readers
    return readers


async def read(request: Request, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Call a function that reads the run log, in the threads for that.

    Raises
    ------
    Busy
    """
    return await readers_of(request).run(function, *args, **kwargs)
