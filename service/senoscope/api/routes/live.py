"""``WS /v1/live``: every result as soon as it is made; slow clients do not delay the service."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import structlog
from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import TypeAdapter, ValidationError
from starlette.concurrency import run_in_threadpool

from senoscope.api.problems import problem_response
from senoscope.results.delivery import DeliveryTimes, ResultSink
from senoscope.results.record import Record
from senoscope_client.errors import Busy
from senoscope_client.models.result import CamMode

router = APIRouter()
_log = structlog.get_logger(__name__)
_CAM: TypeAdapter[CamMode] = TypeAdapter(CamMode)


LiveMessage = Callable[[CamMode], bytes]
"""Returns a message as JSON, with the Grad-CAM maps that are selected."""


@dataclass(eq=False)
class _Client:
    """The queue of one WebSocket; None in it marks that no more messages follow."""

    cam: CamMode
    lost: int = 0
    waiting: asyncio.Queue[LiveMessage | None] = field(default_factory=asyncio.Queue)


class LiveHub(ResultSink):
    """The sink that sends results, or other messages, to WebSocket clients.

    Parameters
    ----------
    backlog : int
        Results that one client may fall behind before its oldest are dropped.
    max_clients : int
        How many may be connected at once.
    """

    def __init__(self, backlog: int, max_clients: int) -> None:
        self._backlog = backlog
        self._max_clients = max_clients
        self._clients: set[_Client] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.lost = 0
        self.refused = 0

    def on_result(self, record: Record, _: DeliveryTimes) -> None:
        """Send a result to all clients; called from the delivery thread."""
        if self._clients:
            # Without pixels, which may be a view of a whole stack and would wait for slow clients.
            none = np.empty((0, 0, 0), record.fov.pixels.dtype)
            self.send(replace(record, fov=replace(record.fov, pixels=none, request=None)).json)

    def send(self, message: LiveMessage) -> None:
        """Pass a message to the event loop; called from another thread."""
        self._call(self._fan_out, message)

    def close(self) -> None:
        """Close every client after it was sent its queue."""
        self._call(self._close_all)

    @property
    def clients(self) -> int:
        """How many clients are connected."""
        return len(self._clients)

    def join(self, cam: CamMode) -> _Client:
        """Register a client; on the event loop only.

        Raises
        ------
        Busy
            If there are too many.
        """
        if len(self._clients) >= self._max_clients:
            self.refused += 1
            raise Busy(f"{self._max_clients} live clients are connected already (--max-live-clients)")
        self._loop = asyncio.get_running_loop()
        client = _Client(cam)
        self._clients.add(client)
        return client

    def leave(self, client: _Client) -> None:
        """Remove a client; on the event loop only."""
        self._clients.discard(client)

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)

    def _fan_out(self, message: LiveMessage) -> None:
        for client in self._clients:
            if client.waiting.qsize() >= self._backlog:
                client.waiting.get_nowait()
                client.lost += 1
                self.lost += 1
            client.waiting.put_nowait(message)

    def _close_all(self) -> None:
        for client in self._clients:
            client.waiting.put_nowait(None)


@router.websocket("/v1/live")
async def live(websocket: WebSocket) -> None:
    """Send every result as one JSON text message until the client leaves.

    ``?cam=grid`` and ``?cam=png`` include the Grad-CAM maps. For a client that falls behind, the oldest
    results are dropped. The service closes the connection with 1001 when it stops, 1008 after an invalid
    parameter, 4401 when the key was revoked, and 4403 when the key lost its scope.
    """
    unknown = set(websocket.query_params) - {"cam"}
    try:
        cam = _CAM.validate_python(websocket.query_params.get("cam", "none"))
    except ValidationError:
        unknown.add("cam")
    if unknown:
        await websocket.accept()
        await websocket.close(
            1008, f"invalid parameter: {', '.join(sorted(unknown))[:60]}; use ?cam=none|grid|png"
        )
        return
    await serve_live(websocket, websocket.app.state.hub, cam)


async def serve_live(websocket: WebSocket, hub: LiveHub, cam: CamMode) -> None:
    """Send a client the messages of a hub until it disconnects."""
    try:
        client = hub.join(cam)  # before the first await, so that the limit holds
    except Busy as error:
        await websocket.send_denial_response(problem_response(error))
        return
    tasks: list[asyncio.Task[None]] = []
    try:
        await websocket.accept()
        tasks.append(asyncio.create_task(_until_disconnected(websocket)))
        tasks.append(asyncio.create_task(_send_all(websocket, client)))
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        hub.leave(client)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if client.lost:
            _log.warning("results were dropped for a slow live client", dropped=client.lost)


async def _send_all(websocket: WebSocket, client: _Client) -> None:
    try:
        while (message := await client.waiting.get()) is not None:
            if client.cam == "png":  # drawing takes milliseconds, which would delay other clients
                text = await run_in_threadpool(message, client.cam)
            else:
                text = message(client.cam)
            await websocket.send_text(text.decode())
        await websocket.close(1001, "the service is stopping")
    except (WebSocketDisconnect, RuntimeError):
        pass  # the client disconnected between two messages


async def _until_disconnected(websocket: WebSocket) -> None:
    with contextlib.suppress(RuntimeError, KeyError):
        async for _ in websocket.iter_text():
            pass
