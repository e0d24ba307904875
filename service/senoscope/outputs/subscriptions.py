"""Limiting what subscribers may make a ZeroMQ socket remember."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
import zmq

from senoscope.logs import Sparing
from senoscope_client.zeromq.hang_up import hang_up
from senoscope_client.zeromq.link import received_bytes

_log = structlog.get_logger(__name__)
# ZeroMQ takes about 50 bytes for each byte of a topic.
_MAX_TOPIC_BYTES: Final = 32 * 1024
_EACH_BYTES: Final = 16
# What a connection may bring in that time without a subscription coming to its end: there are heartbeats.
_MAX_UNFINISHED_BYTES: Final = 128 * 1024
_UNFINISHED_S: Final = 600.0
_MOST_AT_ONCE: Final = 1000


@dataclass
class _Connection:
    topics: set[bytes] = field(default_factory=set)
    topic_bytes: int = 0
    received: int | None = 0  # when the last subscription came
    since_s: float = field(default_factory=time.monotonic)


class Subscriptions:
    """Read the subscriptions of an XPUB socket, and disconnect peers that have too many.

    ZeroMQ itself keeps all of them, and all parts of a message that does not end. Whether bytes come without
    a message, only Linux reports.

    Parameters
    ----------
    socket : zmq.Socket
        XPUB, bound; is used only while one of the methods is called.
    endpoint : str
        That it is bound to.
    descriptors : callable
        Returns the file descriptors of the open connections.

    Attributes
    ----------
    refused : Counter
        Connections that were hung up on, by reason.
    """

    def __init__(self, socket: zmq.Socket[Any], endpoint: str, descriptors: Callable[[], Set[int]]) -> None:
        self.refused: Counter[str] = Counter()
        self._socket = socket
        self._endpoint = endpoint
        self._descriptors = descriptors
        self._connections: dict[int, _Connection] = {}
        self._sparing = Sparing(every_s=10.0)

    def read(self) -> None:
        """Take note of what subscribers said since."""
        for _ in range(_MOST_AT_ONCE):
            if not int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
                return
            said = self._socket.recv(zmq.NOBLOCK, copy=False)
            try:
                descriptor = said.get(zmq.SRCFD)
            except zmq.ZMQError:  # a connection that has ended has no subscriptions any more
                continue
            self._note(int(descriptor), said.bytes)

    def look(self) -> None:
        """Forget connections that ended, and hang up on those whose messages do not end."""
        now_s = time.monotonic()
        descriptors = self._descriptors()
        for descriptor in self._connections.keys() - descriptors:
            del self._connections[descriptor]
        for descriptor in descriptors:
            received = received_bytes(descriptor)
            if received is None:
                continue
            known = self._connections.setdefault(descriptor, _Connection())
            if known.received is None or received < known.received or now_s - known.since_s > _UNFINISHED_S:
                known.received, known.since_s = received, now_s
            elif received - known.received > _MAX_UNFINISHED_BYTES:
                self._refuse(descriptor, "unfinished_message")

    def _note(self, descriptor: int, said: bytes) -> None:
        known = self._connections.setdefault(descriptor, _Connection())
        known.received = None
        topic = said[1:]
        if said[:1] == b"\1" and topic not in known.topics:
            known.topics.add(topic)
            known.topic_bytes += len(topic) + _EACH_BYTES
            if known.topic_bytes > _MAX_TOPIC_BYTES:
                self._refuse(descriptor, "too_many_subscriptions")
        elif said[:1] == b"\0" and topic in known.topics:
            known.topics.remove(topic)
            known.topic_bytes -= len(topic) + _EACH_BYTES

    def _refuse(self, descriptor: int, reason: str) -> None:
        del self._connections[descriptor]
        if hang_up(descriptor, self._endpoint):
            self.refused[reason] += 1
            if self._sparing.ask(reason) is not None:
                _log.warning(
                    "subscriber of results refused",
                    reason=reason,
                    endpoint=self._endpoint,
                    count=self.refused[reason],
                )
