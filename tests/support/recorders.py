"""Clients of every kind that record the results they receive, and reconnect after failures of the service."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from senoscope_client import LiveResults, Result, ResultSubscriber
from senoscope_client.errors import SenoscopeError
from support.load import stack
from support.servers import Server

_TIMEOUT_S = 0.5


@dataclass(frozen=True)
class ReceivedResult:
    """A result as a client received it.

    Attributes
    ----------
    in_log : bool
        Whether it had no flag that it is not in the log yet.
    """

    label: str
    probability: float
    in_log: bool

    @classmethod
    def of(cls, result: Result) -> ReceivedResult:
        in_log = all(flag.code != "not_logged" for flag in result.flags)
        return cls(result.label, result.probability, in_log)


class ResultRecorder:
    """A client that posts stacks, a WebSocket client and a ZeroMQ subscriber; all of them reconnect.

    Attributes
    ----------
    received : dict of str to dict of str to ReceivedResult
        By transport, by the id of the result.
    statuses : Counter of int
        Of the answers to posted stacks.
    duplicates : list of str
        Ids that a client received more than once over the same transport.
    """

    def __init__(self, server: Server, fovs: int) -> None:
        self.received: dict[str, dict[str, ReceivedResult]] = {"post": {}, "websocket": {}, "zeromq": {}}
        self.statuses: Counter[int] = Counter()
        self.duplicates: list[str] = []
        self._server, self._body = server, stack(fovs)
        self._posting, self._ended = threading.Event(), threading.Event()
        self._failure: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._run, args=(body,), daemon=True)
            for body in (self._post, self._listen, self._subscribe)
        ]
        for thread in self._threads:
            thread.start()

    def post(self, *, go: bool) -> None:
        """Post stacks one after the other, or pause after the current one."""
        self._posting.set() if go else self._posting.clear()

    def close(self) -> None:
        """Stop all clients, and raise an error of any of them."""
        self._ended.set()
        self._posting.set()
        for thread in self._threads:
            thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self, body: Callable[[], None]) -> None:
        try:
            body()
        except BaseException as error:
            self._failure = error

    def _record(self, transport: str, result: Result) -> None:
        identifier = str(result.id)
        if identifier in self.received[transport]:
            self.duplicates.append(f"{transport} {identifier}")
        self.received[transport][identifier] = ReceivedResult.of(result)

    def _post(self) -> None:
        while self._posting.wait() and not self._ended.is_set():
            try:
                answer = httpx.post(f"{self._server.url}/v1/classify", content=self._body, timeout=60)
            except httpx.TransportError:  # the service is down, or ended before the answer was complete
                self._ended.wait(0.02)
                continue
            self.statuses[answer.status_code] += 1
            for result in answer.json().get("results", ()):
                self._record("post", Result.model_validate(result))

    def _listen(self) -> None:
        while not self._ended.is_set():
            try:
                with LiveResults(self._server.url, timeout_s=_TIMEOUT_S) as live:
                    while not self._ended.is_set():
                        try:
                            self._record("websocket", next(live))
                        except TimeoutError:
                            continue
            except (SenoscopeError, StopIteration):
                self._ended.wait(0.02)

    def _subscribe(self) -> None:
        with ResultSubscriber(self._server.results) as subscriber:
            while not self._ended.is_set():
                try:
                    self._record("zeromq", subscriber.receive(_TIMEOUT_S))
                except TimeoutError:
                    continue
