"""Results over the service's WebSocket, as they are made."""

from __future__ import annotations

import time
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from pydantic import ValidationError
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidHandshake, InvalidStatus
from websockets.sync.client import connect

from senoscope_client.errors import InvalidRequest, Problem, SenoscopeError, error_of
from senoscope_client.keys import authorization
from senoscope_client.result import CamMode, Result
from senoscope_client.unreachable import Unreachable

# Short enough for Ctrl-C to be noticed on Windows, where a wait for a lock cannot be interrupted.
_SLICE_S = 0.2
_MAX_MESSAGE_BYTES = 64 * 1024 * 1024
_POLICY_VIOLATION = 1008


class LiveResults:
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

    def __init__(
        self,
        base_url: str,
        cam: CamMode = "none",
        timeout_s: float | None = None,
        api_key: str | None = None,
    ) -> None:
        self.timeout_s = timeout_s
        # http becomes ws, and https becomes wss.
        self._url = f"{base_url.replace('http', 'ws', 1).rstrip('/')}/v1/live?cam={cam}"
        self._leaving = ExitStack()
        try:
            # Entered at once, so that results count from here and not from the first `next`.
            self._connection = self._leaving.enter_context(
                connect(
                    self._url,
                    compression=None,
                    max_size=_MAX_MESSAGE_BYTES,
                    additional_headers=authorization(api_key),
                )
            )
        except InvalidStatus as error:
            raise self._refusal(error) from error
        except InvalidHandshake as error:
            raise Unreachable(f"{self._url} is no live stream of results: {error}") from error
        except (OSError, TimeoutError) as error:
            raise Unreachable(f"{self._url} cannot be reached: {error}. Is the service up?") from error

    def _refusal(self, error: InvalidStatus) -> SenoscopeError:
        try:
            return error_of(Problem.model_validate_json(error.response.body or b""))
        except ValidationError:
            return Unreachable(f"{self._url} is no live stream of results: {error}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Result:
        """The next result.

        Raises
        ------
        TimeoutError
            If none came for ``timeout_s``.
        SenoscopeError
            If the service refuses ``cam``, sends something else than results, or is lost.
        """
        give_up = None if self.timeout_s is None else time.monotonic() + self.timeout_s
        while True:
            left_s = _SLICE_S if give_up is None else max(0.0, give_up - time.monotonic())
            try:
                return Result.model_validate_json(self._connection.recv(min(left_s, _SLICE_S)))
            except TimeoutError:
                if give_up is not None and left_s <= _SLICE_S:
                    raise TimeoutError(f"no result for {self.timeout_s} s") from None
            except ConnectionClosedOK:
                raise StopIteration from None
            except ConnectionClosedError as error:
                if error.rcvd is not None and error.rcvd.code == _POLICY_VIOLATION:
                    raise InvalidRequest(error.rcvd.reason) from error
                raise Unreachable(f"the connection to {self._url} was lost: {error}") from error
            except ValidationError as error:
                raise SenoscopeError(f"{self._url} sent something else than a result") from error

    def close(self) -> None:
        """Close the connection."""
        self._leaving.close()
