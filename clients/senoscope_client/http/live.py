"""Results and decisions over the service's WebSockets, as they are made."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any, ClassVar, Final, Generic, Self, TypeVar

from pydantic import TypeAdapter, ValidationError
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK, InvalidHandshake, InvalidStatus
from websockets.sync.client import connect

from senoscope_client.errors import (
    Forbidden,
    InvalidRequest,
    Problem,
    SenoscopeError,
    Unauthorized,
    Unreachable,
    error_from_problem,
)
from senoscope_client.http.auth import authorization_header
from senoscope_client.models.decision import Decision, Judged
from senoscope_client.models.result import CamMode, Result
from senoscope_client.wire.sizes import MAX_RESULT_BYTES

# Short enough for Ctrl-C to take effect on Windows, where a wait for a lock cannot be interrupted.
_SLICE_S = 0.2
# Close codes of the service: a bad parameter, or a key that was revoked or restricted meanwhile.
_POLICY_VIOLATION = 1008
UNAUTHORIZED: Final = 4401
FORBIDDEN: Final = 4403
_CLOSE_ERRORS: Final = {_POLICY_VIOLATION: InvalidRequest, UNAUTHORIZED: Unauthorized, FORBIDDEN: Forbidden}
_T = TypeVar("_T")


class LiveFeed(Generic[_T]):
    """One of the service's WebSockets: its address, the type of its messages, and its errors.

    ``path`` includes the query.
    """

    def __init__(self, base_url: str, path: str, kind: Any) -> None:
        # http becomes ws, and https becomes wss.
        self.url = f"{base_url.replace('http', 'ws', 1).rstrip('/')}{path}"
        self._kind: TypeAdapter[_T] = TypeAdapter(kind)

    def parse(self, message: str | bytes) -> _T:
        """Parse a message.

        Raises
        ------
        SenoscopeError
            If the message is not of the expected type.
        """
        try:
            return self._kind.validate_json(message)
        except ValidationError as error:
            raise SenoscopeError(f"{self.url} sent a message of an unexpected kind") from error

    def connect_error(self, error: Exception) -> SenoscopeError:
        """Return the error to raise if the connection could not be opened."""
        if isinstance(error, InvalidStatus):
            try:
                return error_from_problem(Problem.model_validate_json(error.response.body or b""))
            except ValidationError:
                pass
        if isinstance(error, InvalidHandshake):
            return Unreachable(f"{self.url} is not a live stream of results: {error}")
        return Unreachable(f"{self.url} cannot be reached: {error}. Is the service running?")

    def close_error(self, error: ConnectionClosed) -> SenoscopeError | None:
        """Return the error to raise if the connection was closed; None if the service has stopped."""
        if isinstance(error, ConnectionClosedOK):
            return None
        if error.rcvd is not None and error.rcvd.code in _CLOSE_ERRORS:
            return _CLOSE_ERRORS[error.rcvd.code](error.rcvd.reason)
        return Unreachable(f"the connection to {self.url} was lost: {error}")


def result_feed(base_url: str, cam: CamMode) -> LiveFeed[Result]:
    """Return the feed of all results."""
    return LiveFeed(base_url, f"/v1/live?cam={cam}", Result)


def decision_feed(base_url: str, judged: bool) -> LiveFeed[Decision | Judged]:
    """Return the feed of all decisions and, with ``judged``, of all judged fields of view."""
    kind = Decision | Judged if judged else Decision
    return LiveFeed(base_url, f"/v1/decisions?judged={str(judged).lower()}", kind)


class _LiveIterator(Generic[_T]):
    """An iterator over the messages of a feed; it ends when the service stops."""

    _item_name: ClassVar[str]

    def __init__(self, feed: LiveFeed[_T], timeout_s: float | None, api_key: str | None) -> None:
        self.timeout_s = timeout_s
        self._feed = feed
        self._exit_stack = ExitStack()
        try:
            # Entered here, so that messages are received from now on and not from the first `next`.
            self._connection = self._exit_stack.enter_context(
                connect(
                    feed.url,
                    compression=None,
                    max_size=MAX_RESULT_BYTES,
                    additional_headers=authorization_header(api_key),
                )
            )
        except (InvalidHandshake, OSError, TimeoutError) as error:
            raise feed.connect_error(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> _T:
        """Wait for the next message.

        Raises
        ------
        TimeoutError
            If none is received within ``timeout_s``.
        SenoscopeError
            If the service rejects a parameter or sends an unexpected message, or the connection is lost;
            `Unauthorized` or `Forbidden` if the key was revoked or restricted meanwhile.
        """
        deadline_s = None if self.timeout_s is None else time.monotonic() + self.timeout_s
        while True:
            left_s = _SLICE_S if deadline_s is None else max(0.0, deadline_s - time.monotonic())
            try:
                return self._feed.parse(self._connection.recv(min(left_s, _SLICE_S)))
            except TimeoutError:
                if deadline_s is not None and left_s <= _SLICE_S:
                    raise TimeoutError(f"no {self._item_name} for {self.timeout_s} s") from None
            except ConnectionClosed as error:
                close_error = self._feed.close_error(error)
                if close_error is None:
                    raise StopIteration from None
                raise close_error from error

    def close(self) -> None:
        """Close the connection."""
        self._exit_stack.close()


class LiveResults(_LiveIterator[Result]):
    """An iterator over results, and a context manager; it ends when the service stops.

    It receives all results that are made after its creation. A client that is too slow loses some.

    Parameters
    ----------
    base_url : str
        Of the service, such as ``http://127.0.0.1:8750``.
    cam : {"none", "grid", "png"}
        How much of the Grad-CAM map each result includes.
    timeout_s : float, optional
        How long to wait for each result; without limit, if left out.
    api_key : str, optional
        Needed if the service requires one.

    Raises
    ------
    Unreachable
        If the service cannot be reached, also later, while iterating.
    SenoscopeError
        If the service refuses the connection: `Unauthorized`, `Forbidden`, or `Busy` if it has too many
        clients.
    """

    _item_name = "result"

    def __init__(
        self, base_url: str, cam: CamMode = "none", timeout_s: float | None = None, api_key: str | None = None
    ) -> None:
        super().__init__(result_feed(base_url, cam), timeout_s, api_key)


class LiveDecisions(_LiveIterator[Decision | Judged]):
    """An iterator over decisions, otherwise like `LiveResults`.

    Parameters
    ----------
    base_url, timeout_s, api_key
        See `LiveResults`.
    judged : bool
        Also receive a `Judged` for each field of view that all rules have judged.
    """

    _item_name = "decision"

    def __init__(
        self, base_url: str, judged: bool = False, timeout_s: float | None = None, api_key: str | None = None
    ) -> None:
        super().__init__(decision_feed(base_url, judged), timeout_s, api_key)
