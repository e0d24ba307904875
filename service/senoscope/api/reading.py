"""Reading of the run log for requests, in a few separate threads, so that nothing else waits for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final, ParamSpec, TypeVar

import anyio
from anyio.to_thread import run_sync
from fastapi import Request

from senoscope_client.errors import Busy

_P = ParamSpec("_P")
_T = TypeVar("_T")
MAX_READS: Final = 4
"""Reads at the same time; fewer than the run log has connections for them."""
_MAX_WAITING: Final = 100
_MAX_WAIT_S: Final = 10.0
_END: Final = object()


async def read(request: Request, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Call a function that reads the run log, in a thread, when there are fewer than `MAX_READS` other reads.

    Raises
    ------
    Busy
        If too many requests wait, or this one waited too long.
    """
    reads: anyio.Semaphore = request.app.state.reads
    waiting = reads.statistics().tasks_waiting
    if waiting >= _MAX_WAITING:
        raise Busy(f"{waiting} requests wait for the run log already", _MAX_WAIT_S)
    try:
        with anyio.fail_after(_MAX_WAIT_S):
            await reads.acquire()
    except TimeoutError:
        raise Busy("other requests keep the run log busy", _MAX_WAIT_S) from None
    try:
        # With a limiter of its own, which keeps the read out of the threads that all requests share.
        return await run_sync(lambda: function(*args, **kwargs), limiter=anyio.CapacityLimiter(1))
    finally:
        reads.release()


async def iterate(request: Request, pieces: Iterator[_T]) -> AsyncIterator[_T]:
    """Yield the pieces of a long answer; each one is a read of its own."""
    while (piece := await read(request, next, pieces, _END)) is not _END:
        yield piece  # type: ignore[misc]
