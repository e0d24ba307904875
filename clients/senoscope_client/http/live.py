"""Results and decisions over the service's WebSockets, as they are made."""

from __future__ import annotations

import time
from contextlib import ExitStack
from types import TracebackType
from typing import Any, ClassVar, Final, Generic, Self, TypeVar

from pydantic import TypeAdapter, ValidationError
from websockets.exceptions import (
    ConnectionClosed,
    ConnectionClosedOK,
    InvalidHandshake,
    InvalidStatus,
)
from websockets.sync.client import connect

from senoscope_client.errors import (
    Forbidden,
    InvalidRequest,
    Problem,
    SenoscopeError,
    Unauthorized,
    error_of,
)
from senoscope_client.http.auth import authorization
from senoscope_client.models.decision import Decision, Judged
from senoscope_client.models.result import CamMode, Result
from senoscope_client.unreachable import Unreachable
from senoscope_client.wire.sizes import MAX_RESULT_BYTES

# Short enough for Ctrl-C to be noticed on Windows, where a wait for a lock cannot be interrupted.
_SLICE_S = 0.2
# What the service hangs up with: a bad parameter, or a key that has been revoked or narrowed since.
_POLICY_VIOLATION = 1008
UNAUTHORIZED: Final = 4401
FORBIDDEN: Final = 4403
_LOSSES: Final = {_POLICY_VIOLATION: InvalidRequest, UNAUTHORIZED: Unauthorized, FORBIDDEN: Forbidden}
_T = TypeVar("_T")


class Feed(Generic[_T]):
    """One of the service's WebSockets: where it is, what comes from it, and what its faults mean.

    Parameters
    ----------
    base_url : str
        Of the service, such as ``http://127.0.0.1:8750``.
    path : str
        With its query.
    kind : type
        Of the messages.
    """

    def __init__(self, base_url: str, path: str, kind: Any) -> None:
        # http becomes ws, and https becomes wss.
        self.url = f"{base_url.replace('http', 'ws', 1).rstrip('/')}{path}"
        self._kind: TypeAdapter[_T] = TypeAdapter(kind)

    def read(self, message: str | bytes) -> _T:
        """What a message says.

        Raises
        ------
        SenoscopeError
            If it says something else.
        """
        try:
            return self._kind.validate_json(message)
        except ValidationError as error:
            raise SenoscopeError(f"{self.url} sent something else than it should") from error

    def refusal(self, error: Exception) -> SenoscopeError:
        """Why there is no connection."""
        if isinstance(error, InvalidStatus):
            try:
                return error_of(Problem.model_validate_json(error.response.body or b""))
            except ValidationError:
                pass
        if isinstance(error, InvalidHandshake):
            return Unreachable(f"{self.url} is no live stream of results: {error}")
        return Unreachable(f"{self.url} cannot be reached: {error}. Is the service up?")

    def loss(self, error: ConnectionClosed) -> SenoscopeError | None:
        """Why there is none any more; None if the service has stopped."""
        if isinstance(error, ConnectionClosedOK):
            return None
        if error.rcvd is not None and error.rcvd.code in _LOSSES:
            return _LOSSES[error.rcvd.code](error.rcvd.reason)
        return Unreachable(f"the connection to {self.url} was lost: {error}")


def result_feed(base_url: str, cam: CamMode) -> Feed[Result]:
    """Every result as it is made."""
    return Feed(base_url, f"/v1/live?cam={cam}", Result)


def decision_feed(base_url: str, judged: bool) -> Feed[Decision | Judged]:
    """Every decision as it is made and, where asked for, every field of view that was judged."""
    kind = Decision | Judged if judged else Decision
    return Feed(base_url, f"/v1/decisions?judged={str(judged).lower()}", kind)


class _Live(Generic[_T]):
    """An iterator over what a feed brings; it ends when the service stops."""

    _what: ClassVar[str]

    def __init__(self, feed: Feed[_T], timeout_s: float | None, api_key: str | None) -> None:
        self.timeout_s = timeout_s
        self._feed = feed
        self._leaving = ExitStack()
        try:
            # Entered at once, so that messages count from here and not from the first `next`.
            self._connection = self._leaving.enter_context(
                connect(
                    feed.url,
                    compression=None,
                    max_size=MAX_RESULT_BYTES,
                    additional_headers=authorization(api_key),
                )
            )
        except (InvalidHandshake, OSError, TimeoutError) as error:
            raise feed.refusal(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> _T:
        """The next one.

        Raises
        ------
        TimeoutError
            If none came for ``timeout_s``.
        SenoscopeError
            If the service refuses a parameter, sends something else than it should, or is lost;
            `Unauthorized` or `Forbidden` if the key was revoked or narrowed meanwhile.
        """
        give_up = None if self.timeout_s is None else time.monotonic() + self.timeout_s
        while True:
            left_s = _SLICE_S if give_up is None else max(0.0, give_up - time.monotonic())
            try:
                return self._feed.read(self._connection.recv(min(left_s, _SLICE_S)))
            except TimeoutError:
                if give_up is not None and left_s <= _SLICE_S:
                    raise TimeoutError(f"no {self._what} for {self.timeout_s} s") from None
            except ConnectionClosed as error:
                lost = self._feed.loss(error)
                if lost is None:
                    raise StopIteration from None
                raise lost from error

    def close(self) -> None:
        """Close the connection."""
        self._leaving.close()


class LiveResults(_Live[Result]):
    """An iterator over results, and a context manager; it ends when the service stops.

    Results count from when this object is made. A client that is too slow loses some.

    Parameters
    ----------
    base_url : str
        Of the service, such as ``http://127.0.0.1:8750``.
    cam : {"none", "grid", "png"}
        How much of the Grad-CAM map comes along.
    timeout_s : float, optional
        How long to wait for each result; without end, if left out.
    api_key : str, optional
        Needed where the service asks for one.

    Raises
    ------
    Unreachable
        If the service cannot be reached, also later, while iterating.
    SenoscopeError
        If the service refuses: `Unauthorized`, `Forbidden`, or `Busy` where it has too many clients.
    """

    _what = "result"

    def __init__(
        self,
        base_url: str,
        cam: CamMode = "none",
        timeout_s: float | None = None,
        api_key: str | None = None,
    ) -> None:
        super().__init__(result_feed(base_url, cam), timeout_s, api_key)


class LiveDecisions(_Live[Decision | Judged]):
    """An iterator over decisions, otherwise as `LiveResults`.

    Parameters
    ----------
    base_url, timeout_s, api_key
        As of `LiveResults`.
    judged : bool
        Also tell, by a `Judged`, of each field of view that all rules have judged.
    """

    _what = "decision"

    def __init__(
        self,
        base_url: str,
        judged: bool = False,
        timeout_s: float | None = None,
        api_key: str | None = None,
    ) -> None:
        super().__init__(decision_feed(base_url, judged), timeout_s, api_key)
