"""The link to one service: a thread that does all network work, and sends events to the widget."""

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
    EarlierResults,
    EnsembleInfo,
    Event,
    FovLoaded,
    LinkState,
    LinkStatus,
    RequestFailed,
    StackClassified,
)

_RECONNECT_S: Final = 1.0
_POLL_S: Final = 2.0
_TIMEOUT_S: Final = 10.0
_POST_TIMEOUT_S: Final = 3600.0
# The resolution of a host name cannot be interrupted; the thread then ends later.
_JOIN_TIMEOUT_S: Final = 3.0


@dataclass(frozen=True)
class PostedStack:
    """A stack to be classified.

    Attributes
    ----------
    load : callable
        Returns the array [C, H, W] or [N, C, H, W]; called in a thread, because layers may be lazy.
    axes : str or None
        None: the service infers them, and reports an error if they are ambiguous.
    """

    load: Callable[[], npt.NDArray[Any]]
    axes: str | None


class ServiceLink:
    """Stays connected to a service until it is closed.

    The methods never wait for the network. Events are put into the queue ``events``, which the widget empties
    by a timer, so that a fast scan does not overload its event loop.

    Parameters
    ----------
    url : str
        Such as ``http://127.0.0.1:8750``.
    api_key : str, optional
        Needed if the service requires one.

    Raises
    ------
    ValueError
        If the address is not an HTTP address, or the key is not a valid key.
    """

    def __init__(self, url: str, api_key: str | None = None) -> None:
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        # Posting has a separate client, so that it does not occupy connections of the live view.
        self._client = AsyncClient(url, _TIMEOUT_S, api_key, retries=NO_RETRIES)
        self._posting_client = AsyncClient(url, _POST_TIMEOUT_S, api_key)
        self.url = self._client.base_url
        self._connected = False
        self._digest = ""
        self._series: UUID | None = None
        self._requested: asyncio.Queue[Result] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._main = self._loop.create_task(self._run())
        self._thread = threading.Thread(target=self._run_loop, name="senoscope-napari", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread is running."""
        return self._thread.is_alive()

    def request_fov(self, result: Result) -> None:
        """Request a field of view, sent as `FovLoaded`; of waiting requests only the last is executed."""
        self._call(self._requested.put_nowait, result)

    def classify(self, stack: PostedStack) -> None:
        """Post a stack; the response is sent as `StackClassified` or `RequestFailed`."""
        self._call(self._start_posting, stack)

    def close(self) -> None:
        """Close the connections and end the thread."""
        self._call(self._main.cancel)
        self._thread.join(_JOIN_TIMEOUT_S)

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(function, *arguments)

    def _start_posting(self, stack: PostedStack) -> None:
        task = self._loop.create_task(self._post(stack))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            with contextlib.suppress(asyncio.CancelledError):
                self._loop.run_until_complete(self._main)
        except Exception as error:  # reported, because otherwise the scan would seem to stand still
            self._send_state(LinkStatus.REFUSED, f"The plugin failed: {error!r}. Connect again.")
        finally:
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()

    async def _run(self) -> None:
        loading = self._loop.create_task(self._load_requested_fovs())
        try:
            await self._stay_connected()
            await loading
        finally:
            for task in (loading, *self._tasks):
                task.cancel()
            await asyncio.gather(loading, *self._tasks, return_exceptions=True)
            await self._client.aclose()
            await self._posting_client.aclose()

    def _send_state(self, status: LinkStatus, text: str) -> None:
        self.events.put(LinkState(status, text))

    async def _stay_connected(self) -> None:
        self._send_state(LinkStatus.CONNECTING, f"Connecting to {self.url} …")
        while True:
            try:
                await self._follow_service()
                text = f"The service at {self.url} has stopped."
            except (Unauthorized, Forbidden) as error:
                self._send_state(LinkStatus.REFUSED, f"The service refuses access: {error}")
                return
            except NotReady as error:
                text = f"The service at {self.url} is not ready: {error}"
            except SenoscopeError as error:
                text = f"Connection lost: {error}" if self._connected else f"Not reachable: {error}"
            self._connected = False
            self._send_state(LinkStatus.WAITING, f"{text} Trying again automatically.")
            await asyncio.sleep(_RECONNECT_S)

    async def _follow_service(self) -> None:
        """Send the events of the service until it stops, or the connection is lost."""
        ready = await self._client.ready()
        if not ready.ready:
            raise NotReady(ready.reason or "no reason given")
        await self._send_ensemble()
        async with self._client.live("grid", reconnect=False) as live:
            self._connected = True
            self._send_state(LinkStatus.CONNECTED, f"Connected to {self.url}.")
            self._series = None  # results that were made without a connection are read from the run log
            await self._send_newest_series()

            async def receive_results() -> None:
                async for result in live:
                    await self._handle_result(result)

            await _run_until_first_ends(receive_results(), self._poll_stream())

    async def _handle_result(self, result: Result) -> None:
        if result.model.digest != self._digest:
            await self._send_ensemble()
        uid = result.source.series_uid
        if uid is not None and uid != self._series:
            await self._send_earlier_results(uid)
        self.events.put(result)

    async def _send_ensemble(self) -> None:
        model = await self._client.model_info()
        try:
            ensemble = EnsembleInfo.from_model(model)
        except (KeyError, TypeError) as error:
            raise SenoscopeError(f"{self.url} is not a service that this plugin supports") from error
        self._digest = ensemble.digest
        self.events.put(ensemble)

    async def _send_newest_series(self) -> None:
        with contextlib.suppress(LogUnavailable):
            for series in await self._client.series(1):
                await self._send_earlier_results(series.series_uid)

    async def _send_earlier_results(self, uid: UUID) -> None:
        self._series = uid
        results: list[Result] = []
        with contextlib.suppress(LogUnavailable):
            results = [result async for result in self._client.all_results(series=uid)]
        self.events.put(EarlierResults(uid, tuple(reversed(results))))

    async def _poll_stream(self) -> None:
        while True:
            self.events.put(await self._client.stream_status())
            await asyncio.sleep(_POLL_S)

    async def _load_requested_fovs(self) -> None:
        while True:
            result = await self._requested.get()
            while not self._requested.empty():
                result = self._requested.get_nowait()
            try:
                if result.gradcam.grids is None:
                    result = await self._client.result(result.id, cam="grid")
                pixels = None
                with contextlib.suppress(NotFound):
                    pixels = await self._client.pixels(result.id)
                self.events.put(FovLoaded(result, pixels))
            except SenoscopeError as error:
                self.events.put(RequestFailed(str(error)))

    async def _post(self, stack: PostedStack) -> None:
        try:
            array = np.ascontiguousarray(await asyncio.to_thread(stack.load))
            response = await self._posting_client.classify_stack(array, cam="grid", axes=stack.axes)
            self.events.put(StackClassified(response.results, response.warnings))
        except SenoscopeError as error:
            self.events.put(RequestFailed(str(error), posting=True))
        except Exception as error:  # a lazy layer may raise any exception
            self.events.put(RequestFailed(f"the layer could not be read: {error}", posting=True))


async def _run_until_first_ends(*coroutines: Coroutine[Any, Any, None]) -> None:
    """Run coroutines until the first of them ends or fails, then cancel the others."""
    tasks = [asyncio.ensure_future(one) for one in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
