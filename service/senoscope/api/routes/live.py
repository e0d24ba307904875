"""``WS /v1/live``: every result as it is made, to clients none of whom can slow the service."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import replace
from typing import Protocol

import numpy as np
import structlog
from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import TypeAdapter, ValidationError
from starlette.concurrency import run_in_threadpool

from senoscope.api.problems import problem_response
from senoscope.results.record import Record
from senoscope_client.errors import Busy
from senoscope_client.models.result import CamMode

router = APIRouter()
_log = structlog.get_logger(__name__)
_CAM: TypeAdapter[CamMode] = TypeAdapter(CamMode)


class Tellable(Protocol):
    """A record, or whatever else a hub hands to its clients."""

    def json(self, cam: CamMode) -> bytes:
        """It as JSON, with as much of the Grad-CAM map as asked for."""
        ...


class _Client:
    """What one WebSocket still has to be sent."""

    def __init__(self, cam: CamMode, backlog: int) -> None:
        self.cam = cam
        self.lost = 0
        self.closing = False
        self._backlog = backlog
        self._waiting: deque[Tellable] = deque()
        self._changed = asyncio.Event()

    def put(self, record: Tellable) -> bool:
        """Queue a record; False if an older one had to go for it."""
        kept = len(self._waiting) < self._backlog
        if not kept:
            self._waiting.popleft()
            self.lost += 1
        self._waiting.append(record)
        self._changed.set()
        return kept

    def close(self) -> None:
        """No more records will come."""
        self.closing = True
        self._changed.set()

    async def get(self) -> Tellable | None:
        """The next record; None when no more will come."""
        while not self._waiting:
            if self.closing:
                return None
            self._changed.clear()
            await self._changed.wait()
        return self._waiting.popleft()


class LiveHub:
    """The sink that fans results, or something else, out to WebSocket clients.

    Parameters
    ----------
    backlog : int
        Results that one client may lag behind before it loses the oldest.
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

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Name the event loop that the WebSockets live on."""
        self._loop = loop

    def tell(self, record: Tellable) -> None:
        """Hand a record to the event loop; called from the delivery thread."""
        if self._clients:
            self._call(self._fan_out, _without_pixels(record))

    def close(self) -> None:
        """Let every client drain, then close."""
        self._call(self._close_all)

    @property
    def clients(self) -> int:
        """How many are connected."""
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
        client = _Client(cam, self._backlog)
        self._clients.add(client)
        return client

    def leave(self, client: _Client) -> None:
        """Forget a client; on the event loop only."""
        self._clients.discard(client)

    def _call(self, function: object, *arguments: object) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)  # type: ignore[arg-type]

    def _fan_out(self, record: Tellable) -> None:
        for client in self._clients:
            if not client.put(record):
                self.lost += 1

    def _close_all(self) -> None:
        for client in self._clients:
            client.close()


def _without_pixels(record: Tellable) -> Tellable:
    """The same record, without what a client that lags behind would keep: a whole posted stack, perhaps."""
    if not isinstance(record, Record):
        return record
    none = np.empty((0, 0, 0), record.fov.pixels.dtype)
    return replace(record, fov=replace(record.fov, pixels=none, request=None))


@router.websocket("/v1/live")
async def live(websocket: WebSocket) -> None:
    """Send every result as one JSON text message until the client leaves.

    ``?cam=grid`` and ``?cam=png`` bring the Grad-CAM maps along. A client that lags behind loses the oldest.
    The service hangs up with 1001 when it stops, 1008 at a bad parameter, and, instead of telling more, 4401
    when the key was revoked and 4403 when it lost its scope.
    """
    unknown = set(websocket.query_params) - {"cam"}
    try:
        cam = _CAM.validate_python(websocket.query_params.get("cam", "none"))
    except ValidationError:
        unknown.add("cam")
    if unknown:
        await websocket.accept()
        await websocket.close(
            1008, f"bad parameter: {', '.join(sorted(unknown))[:60]}; take ?cam=none|grid|png"
        )
        return
    await serve_live(websocket, websocket.app.state.hub, cam)


async def serve_live(websocket: WebSocket, hub: LiveHub, cam: CamMode) -> None:
    """Send a client what its hub is told, until it leaves."""
    try:
        client = hub.join(cam)  # before the first wait, so that the number of clients holds
    except Busy as error:
        await websocket.send_denial_response(problem_response(error))
        return
    try:
        await websocket.accept()
    except BaseException:
        hub.leave(client)
        raise
    listening = asyncio.create_task(_until_gone(websocket))
    sending = asyncio.create_task(_send_all(websocket, client))
    try:
        await asyncio.wait({listening, sending}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        hub.leave(client)
        for task in (listening, sending):
            task.cancel()
        await asyncio.gather(listening, sending, return_exceptions=True)
        if client.lost:
            _log.warning("a slow live client lost results", lost=client.lost)


async def _send_all(websocket: WebSocket, client: _Client) -> None:
    try:
        while (record := await client.get()) is not None:
            if client.cam == "png":  # drawing takes milliseconds in which no other client would be served
                message = await run_in_threadpool(record.json, client.cam)
            else:
                message = record.json(client.cam)
            await websocket.send_text(message.decode())
        await websocket.close(1001, "the service is stopping")
    except (WebSocketDisconnect, RuntimeError):
        pass  # the client left between two messages


async def _until_gone(websocket: WebSocket) -> None:
    try:
        while True:
            await websocket.receive_text()
    except (WebSocketDisconnect, RuntimeError, KeyError):
        pass
