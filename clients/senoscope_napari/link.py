"""The link to one service: a thread of its own with all network work, and the events that come of it."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import numpy as np
import numpy.typing as npt

from senoscope_client import AsyncClient, Result, SenoscopeError
from senoscope_client.errors import Forbidden, LogUnavailable, NotFound, NotReady, Unauthorized
from senoscope_client.http.retries import NO_RETRIES
from senoscope_napari.events import (
    Classified,
    Earlier,
    EnsembleFacts,
    Event,
    Failed,
    Link,
    LinkState,
    Seen,
    StreamWords,
    Told,
)
from senoscope_napari.words import stream_words

_AGAIN_S: Final = 1.0
_POLL_S: Final = 2.0
_ANSWER_S: Final = 10.0
_POSTED_S: Final = 3600.0
# A name that no server resolves cannot be interrupted; the thread then ends by itself.
_LEAVE_S: Final = 3.0


@dataclass(frozen=True)
class Posted:
    """A stack to be classified.

    Attributes
    ----------
    stack : callable
        Gives the array [C, H, W] or [N, C, H, W]; called in a thread, because layers may be lazy.
    axes : str or None
        None leaves it to the service, which says what it cannot know.
    """

    stack: Callable[[], npt.NDArray[Any]]
    axes: str | None


class ServiceLink:
    """Stays connected to a service until it is closed.

    Nothing here waits for the network in the caller's thread; what happens is put into ``events``, which the
    widget empties by a timer, so that a fast scan never floods its event loop.

    Parameters
    ----------
    url : str
        Such as ``http://127.0.0.1:8750``.
    api_key : str, optional
        Needed where the service asks for one.

    Raises
    ------
    ValueError
        If the address is not one of HTTP, or the key cannot be one.
    """

    def __init__(self, url: str, api_key: str | None = None) -> None:
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        # Whoever waits for a stack must not wait in the same pool of connections as the live view.
        self._client = AsyncClient(url, _ANSWER_S, api_key, retries=NO_RETRIES)
        self._poster = AsyncClient(url, _POSTED_S, api_key)
        self.url = self._client.base_url
        self._digest = ""
        self._series: UUID | None = None
        self._wanted: asyncio.Queue[Result] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._main = self._loop.create_task(self._run())
        self._thread = threading.Thread(target=self._work, name="senoscope-napari", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether its thread is."""
        return self._thread.is_alive()

    def look(self, result: Result) -> None:
        """Ask for a field of view, as a `Seen`; of several that wait only the last is fetched."""
        self._call(self._wanted.put_nowait, result)

    def classify(self, posted: Posted) -> None:
        """Post a stack; a `Classified` or a `Failed` answers."""
        self._call(self._begin, posted)

    def close(self) -> None:
        """Close the connections and end the thread."""
        self._call(self._main.cancel)
        self._thread.join(_LEAVE_S)

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for an answer
            self._loop.call_soon_threadsafe(function, *arguments)

    def _begin(self, posted: Posted) -> None:
        task = self._loop.create_task(self._post(posted))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _work(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            with contextlib.suppress(asyncio.CancelledError):
                self._loop.run_until_complete(self._main)
        except Exception as error:  # a thread that dies unseen would look like a scan that stands still
            self._tell(Link.REFUSED, f"The plugin failed: {error!r}. Connect again.")
        finally:
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()

    async def _run(self) -> None:
        looking = self._loop.create_task(self._look())
        try:
            await self._stay_connected()
            await looking
        finally:
            for task in (looking, *self._tasks):
                task.cancel()
            await asyncio.gather(looking, *self._tasks, return_exceptions=True)
            await self._client.aclose()
            await self._poster.aclose()

    def _tell(self, link: Link, words: str) -> None:
        self.events.put(LinkState(link, words))

    async def _stay_connected(self) -> None:
        self._tell(Link.CONNECTING, f"Connecting to {self.url} …")
        connected = False

        def note() -> None:
            nonlocal connected
            connected = True

        while True:
            try:
                await self._follow(note)
                words = f"The service at {self.url} has stopped."
            except (Unauthorized, Forbidden) as error:
                self._tell(Link.REFUSED, f"The service refuses: {error}")
                return
            except NotReady as error:
                words = f"The service at {self.url} is not ready: {error}"
            except SenoscopeError as error:
                words = f"Connection lost: {error}" if connected else f"Not reachable: {error}"
            connected = False
            self._tell(Link.WAITING, f"{words} Trying again by itself.")
            await asyncio.sleep(_AGAIN_S)

    async def _follow(self, on_connected: Callable[[], None]) -> None:
        """Tell what happens until the service stops, or the connection is lost."""
        ready = await self._client.ready()
        if not ready.ready:
            raise NotReady(ready.reason or "it does not say why")
        await self._tell_ensemble()
        async with self._client.live("grid", reconnect=False) as live:
            on_connected()
            self._tell(Link.CONNECTED, f"Connected to {self.url}.")
            self._series = None  # what was made meanwhile is in the run log
            await self._tell_newest_series()

            async def listen() -> None:
                async for result in live:
                    await self._take(result)

            await _first_of(listen(), self._poll())

    async def _take(self, result: Result) -> None:
        if result.model.digest != self._digest:
            await self._tell_ensemble()
        uid = result.source.series_uid
        if uid is not None and uid != self._series:
            await self._tell_earlier(uid)
        self.events.put(Told(result))

    async def _tell_ensemble(self) -> None:
        model = await self._client.model()
        try:
            facts = EnsembleFacts.of(model)
        except (KeyError, TypeError) as error:
            raise SenoscopeError(f"{self.url} is no Senoscope service that this plugin knows") from error
        self._digest = facts.digest
        self.events.put(facts)

    async def _tell_newest_series(self) -> None:
        with contextlib.suppress(LogUnavailable):
            for series in await self._client.series(1):
                await self._tell_earlier(series.series_uid)

    async def _tell_earlier(self, uid: UUID) -> None:
        self._series = uid
        earlier: list[Result] = []
        with contextlib.suppress(LogUnavailable):
            earlier = [result async for result in self._client.all_results(series=uid)]
        self.events.put(Earlier(uid, tuple(reversed(earlier))))

    async def _poll(self) -> None:
        while True:
            self.events.put(StreamWords(stream_words(await self._client.stream())))
            await asyncio.sleep(_POLL_S)

    async def _look(self) -> None:
        while True:
            wanted = await self._wanted.get()
            while not self._wanted.empty():
                wanted = self._wanted.get_nowait()
            try:
                if wanted.gradcam.grids is None:
                    wanted = await self._client.result(wanted.id, cam="grid")
                self.events.put(Seen(wanted, await self._pixels(wanted)))
            except SenoscopeError as error:
                self.events.put(Failed(str(error)))

    async def _pixels(self, result: Result) -> npt.NDArray[Any] | None:
        try:
            return await self._client.pixels(result.id)
        except NotFound:
            return None

    async def _post(self, posted: Posted) -> None:
        try:
            stack = np.ascontiguousarray(await asyncio.to_thread(posted.stack))
            answer = await self._poster.classify_stack(stack, cam="grid", axes=posted.axes)
            self.events.put(Classified(answer.results, answer.warnings))
        except SenoscopeError as error:
            self.events.put(Failed(str(error), posting=True))
        except Exception as error:  # a lazy layer raises what it likes
            self.events.put(Failed(f"the layer could not be read: {error}", posting=True))


async def _first_of(*wanted: Coroutine[Any, Any, None]) -> None:
    """Until the first of them ends, or fails; the others are then cancelled."""
    tasks = [asyncio.ensure_future(one) for one in wanted]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
