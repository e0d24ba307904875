"""Results and decisions over the service's WebSockets, for programs that run an event loop."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from senoscope_client.errors import Busy, NotReady, SenoscopeError
from senoscope_client.http.auth import authorization
from senoscope_client.http.live import Feed, decision_feed, result_feed
from senoscope_client.models.decision import Decision, Judged
from senoscope_client.models.result import CamMode, Result
from senoscope_client.unreachable import Unreachable
from senoscope_client.wire.sizes import MAX_RESULT_BYTES

_FIRST_PAUSE_S: Final = 0.25
_LONGEST_PAUSE_S: Final = 10.0
# What may be over after a while; anything else that the service says will be said again.
_PASSING: Final = (Unreachable, Busy, NotReady)
_T = TypeVar("_T")


class _AsyncLive(Generic[_T]):
    """An asynchronous iterator over what a feed brings."""

    def __init__(self, feed: Feed[_T], api_key: str | None, reconnect: bool) -> None:
        self.reconnects = 0
        self._feed = feed
        self._headers = authorization(api_key)
        self._reconnect = reconnect
        self._connection: ClientConnection | None = None

    async def __aenter__(self) -> Self:
        await self._connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _T:
        """The next one.

        Raises
        ------
        SenoscopeError
            If the service refuses, sends something else than it should or, where it is not to be connected
            to again, is lost.
        """
        if self._connection is None:
            raise RuntimeError("not connected: use it as an asynchronous context manager")
        while True:
            try:
                return self._feed.read(await self._connection.recv())
            except ConnectionClosed as error:
                lost = self._feed.loss(error)
                if lost is not None and not isinstance(lost, _PASSING):
                    raise lost from error
                if not self._reconnect:
                    if lost is None:
                        raise StopAsyncIteration from None
                    raise lost from error
            await self._connect_again()

    async def aclose(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            await self._connection.close()

    async def _connect(self) -> None:
        try:
            self._connection = await connect(
                self._feed.url,
                compression=None,
                max_size=MAX_RESULT_BYTES,
                additional_headers=self._headers,
            )
        except (InvalidHandshake, OSError, TimeoutError) as error:
            raise self._feed.refusal(error) from error

    async def _connect_again(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            await asyncio.sleep(pause_s)
            try:
                await self._connect()
            except SenoscopeError as error:
                if not isinstance(error, _PASSING):
                    raise
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            else:
                self.reconnects += 1
                return


class AsyncLiveResults(_AsyncLive[Result]):
    """An asynchronous iterator over results, and a context manager whose beginning they count from.

    Where the connection is lost, or the service stops, it is connected to again, for as long as it takes.
    What was made in between is not told: who needs that asks the run log (`AsyncClient.all_results`) when
    ``reconnects`` has grown. A client that is too slow loses some, too.

    Parameters
    ----------
    base_url : str
        Of the service, such as ``http://127.0.0.1:8750``.
    cam : {"none", "grid", "png"}
        How much of the Grad-CAM map comes along.
    api_key : str, optional
        Needed where the service asks for one.
    reconnect : bool
        False: it ends when the service stops, and raises `Unreachable` where it is lost.

    Attributes
    ----------
    reconnects : int
        How often the connection was made anew.

    Raises
    ------
    Unreachable
        On entering, if the service cannot be reached.
    SenoscopeError
        If the service refuses: `Unauthorized`, `Forbidden`, or `Busy` where it has too many clients.
    """

    def __init__(
        self, base_url: str, cam: CamMode = "none", api_key: str | None = None, *, reconnect: bool = True
    ) -> None:
        super().__init__(result_feed(base_url, cam), api_key, reconnect)


class AsyncLiveDecisions(_AsyncLive[Decision | Judged]):
    """An asynchronous iterator over decisions, otherwise as `AsyncLiveResults`.

    Parameters
    ----------
    base_url, api_key, reconnect
        As of `AsyncLiveResults`.
    judged : bool
        Also tell, by a `Judged`, of each field of view that all rules have judged.
    """

    def __init__(
        self, base_url: str, judged: bool = False, api_key: str | None = None, *, reconnect: bool = True
    ) -> None:
        super().__init__(decision_feed(base_url, judged), api_key, reconnect)
