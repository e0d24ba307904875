"""Reading of the run log for requests, in a few separate threads, so that nothing else waits for it."""

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
# At the same time; fewer than the run log has connections for reads.
_MAX_READS: Final = 4
_MAX_WAITING: Final = 100
_MAX_WAIT_S: Final = 10.0
_END: Final = object()


class Readers:
    """The threads in which requests read the run log; everything else runs in Starlette's."""

    def __init__(self) -> None:
        self._reads = asyncio.Semaphore(_MAX_READS)
        # The semaphore is the limit; this only keeps the reads out of the shared threads.
        self._threads = anyio.CapacityLimiter(math.inf)
        self._waiting = 0

    async def run(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call a function that reads the run log.

        Raises
        ------
        Busy
            If too many requests wait, or this one waited too long.
        """
        if self._waiting >= _MAX_WAITING:
            raise Busy(f"{self._waiting} requests wait for the run log already", _MAX_WAIT_S)
        self._waiting += 1
        try:
            async with asyncio.timeout(_MAX_WAIT_S):
                await self._reads.acquire()
        except TimeoutError:
            raise Busy("other requests keep the run log busy", _MAX_WAIT_S) from None
        finally:
            self._waiting -= 1
        try:
            return await anyio.to_thread.run_sync(lambda: function(*args, **kwargs), limiter=self._threads)
        finally:
            self._reads.release()


async def read(request: Request, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Call a function that reads the run log, in the threads of the application's `Readers`.

    Raises
    ------
    Busy
    """
    readers: Readers = request.app.state.readers
    return await readers.run(function, *args, **kwargs)


async def iterate(request: Request, pieces: Iterator[_T]) -> AsyncIterator[_T]:
    """Yield the pieces of a long answer; each one is a read of its own."""
    while (piece := await read(request, next, pieces, _END)) is not _END:
        yield piece  # type: ignore[misc]
