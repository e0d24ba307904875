"""Clients of every kind that write down what they are told, whatever becomes of the service."""

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

_PATIENCE_S = 0.5


@dataclass(frozen=True)
class Told:
    """What a client was told of one result.

    Attributes
    ----------
    in_log : bool
        Whether it came without the flag that it is not in the log yet.
    """

    label: str
    probability: float
    in_log: bool

    @classmethod
    def of(cls, result: Result) -> Told:
        in_log = all(flag.code != "not_logged" for flag in result.flags)
        return cls(result.label, result.probability, in_log)


class Witnesses:
    """A poster of stacks, a WebSocket listener and a ZeroMQ subscriber, which all come back by themselves.

    Attributes
    ----------
    told : dict of str to dict of str to Told
        By the way that it came, by the result's id.
    statuses : Counter of int
        Of the answers to posted stacks.
    twice : list of str
        Ids that somebody was told of more than once in the same way.
    """

    def __init__(self, server: Server, fovs: int) -> None:
        self.told: dict[str, dict[str, Told]] = {"post": {}, "websocket": {}, "zeromq": {}}
        self.statuses: Counter[int] = Counter()
        self.twice: list[str] = []
        self._server, self._body = server, stack(fovs)
        self._posting, self._ended = threading.Event(), threading.Event()
        self._failure: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._watch, args=(body,), daemon=True)
            for body in (self._post, self._listen, self._subscribe)
        ]
        for thread in self._threads:
            thread.start()

    def post(self, *, go: bool) -> None:
        """Post stacks back to back, or pause after the one under way."""
        self._posting.set() if go else self._posting.clear()

    def close(self) -> None:
        """Come to an end, and raise what a witness stumbled over."""
        self._ended.set()
        self._posting.set()
        for thread in self._threads:
            thread.join()
        if self._failure is not None:
            raise self._failure

    def _watch(self, body: Callable[[], None]) -> None:
        try:
            body()
        except BaseException as error:
            self._failure = error

    def _note(self, way: str, result: Result) -> None:
        identifier = str(result.id)
        if identifier in self.told[way]:
            self.twice.append(f"{way} {identifier}")
        self.told[way][identifier] = Told.of(result)

    def _post(self) -> None:
        while self._posting.wait() and not self._ended.is_set():
            try:
                answer = httpx.post(f"{self._server.url}/v1/classify", content=self._body, timeout=60)
            except httpx.TransportError:  # it is down, or went down before the answer was complete
                self._ended.wait(0.02)
                continue
            self.statuses[answer.status_code] += 1
            for result in answer.json().get("results", ()):
                self._note("post", Result.model_validate(result))

    def _listen(self) -> None:
        while not self._ended.is_set():
            try:
                with LiveResults(self._server.url, timeout_s=_PATIENCE_S) as live:
                    while not self._ended.is_set():
                        try:
                            self._note("websocket", next(live))
                        except TimeoutError:
                            continue
            except (SenoscopeError, StopIteration):
                self._ended.wait(0.02)

    def _subscribe(self) -> None:
        with ResultSubscriber(self._server.results) as subscriber:
            while not self._ended.is_set():
                try:
                    self._note("zeromq", subscriber.receive(_PATIENCE_S))
                except TimeoutError:
                    continue
