"""Results and decisions over the service's WebSockets, for programs with an event loop."""

from __future__ import annotations

import asyncio
from typing import Final, Generic, Self, TypeVar

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from senoscope_client.errors import Busy, NotReady, Unreachable
from senoscope_client.http.auth import authorization_header
from senoscope_client.http.live import LiveFeed, decision_feed, result_feed
from senoscope_client.models.decision import Decision, Judged
from senoscope_client.models.result import CamMode, Result
from senoscope_client.wire.sizes import MAX_RESULT_BYTES

_FIRST_PAUSE_S: Final = 0.25
_LONGEST_PAUSE_S: Final = 10.0
# Errors that may disappear after a while; any other error would be repeated.
_TRANSIENT: Final = (Unreachable, Busy, NotReady)
_T = TypeVar("_T")


class _AsyncLiveIterator(Generic[_T]):
    """An asynchronous iterator over the messages of a feed."""

    def __init__(self, feed: LiveFeed[_T], api_key: str | None, reconnect: bool) -> None:
        self.reconnects = 0
        self._feed = feed
        self._headers = authorization_header(api_key)
        self._reconnect_enabled = reconnect
        self._connection: ClientConnection | None = None

    async def __aenter__(self) -> Self:
        await self._connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _T:
        """Wait for the next message.

        Raises
        ------
        SenoscopeError
            If the service refuses the connection, sends an unexpected message or, without ``reconnect``, if
            the connection is lost.
        """
        if self._connection is None:
            raise RuntimeError("not connected: use it as an asynchronous context manager")
        while True:
            try:
                return self._feed.parse(await self._connection.recv())
            except ConnectionClosed as error:
                close_error = self._feed.close_error(error)
                if close_error is not None and not isinstance(close_error, _TRANSIENT):
                    raise close_error from error
                if not self._reconnect_enabled:
                    if close_error is None:
                        raise StopAsyncIteration from None
                    raise close_error from error
            await self._reconnect()

    async def aclose(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            await self._connection.close()

    async def _connect(self) -> None:
        try:
            self._connection = await connect(
                self._feed.url, compression=None, max_size=MAX_RESULT_BYTES, additional_headers=self._headers
            )
        except (InvalidHandshake, OSError, TimeoutError) as error:
            raise self._feed.connect_error(error) from error

    async def _reconnect(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            await asyncio.sleep(pause_s)
            try:
                await self._connect()
            except _TRANSIENT:
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            else:
                self.reconnects += 1
                return


class AsyncLiveResults(_AsyncLiveIterator[Result]):
    """An asynchronous iterator over results, and a context manager; it receives results once it is entered.

    If the connection is lost, or the service stops, the iterator reconnects, for as long as it takes. Results
    that are made in between are not received: get them from the run log (`AsyncClient.all_results`) when
    ``reconnects`` has grown. A client that is too slow loses some, too.

    Parameters
    ----------
    base_url : str
        Of the service, such as ``http://127.0.0.1:8750``.
    cam : {"none", "grid", "png"}
        How much of the Grad-CAM map each result includes.
    api_key : str, optional
        Needed if the service requires one.
    reconnect : bool
        False: the iterator ends when the service stops, and raises `Unreachable` if the connection is lost.

    Attributes
    ----------
    reconnects : int
        How often the connection was opened again.

    Raises
    ------
    Unreachable
        On entering, if the service cannot be reached.
    SenoscopeError
        If the service refuses the connection: `Unauthorized`, `Forbidden`, or `Busy` if it has too many
        clients.
    """

    def __init__(
        self, base_url: str, cam: CamMode = "none", api_key: str | None = None, *, reconnect: bool = True
    ) -> None:
        super().__init__(result_feed(base_url, cam), api_key, reconnect)


class AsyncLiveDecisions(_AsyncLiveIterator[Decision | Judged]):
    """An asynchronous iterator over decisions, otherwise like `AsyncLiveResults`.

    Parameters
    ----------
    base_url, api_key, reconnect
        See `AsyncLiveResults`.
    judged : bool
        Also receive a `Judged` for each field of view that all rules have judged.
    """

    def __init__(
        self, base_url: str, judged: bool = False, api_key: str | None = None, *, reconnect: bool = True
    ) -> None:
        super().__init__(decision_feed(base_url, judged), api_key, reconnect)
