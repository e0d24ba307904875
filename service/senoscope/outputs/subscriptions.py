"""A limit on the memory that subscribers can make a ZeroMQ socket take."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
import zmq

from senoscope_client.rate_limiter import RateLimiter
from senoscope_client.zeromq.hang_up import hang_up
from senoscope_client.zeromq.link import received_bytes

_log = structlog.get_logger(__name__)
# ZeroMQ takes about 50 bytes for each byte of a topic.
_MAX_TOPIC_BYTES: Final = 32 * 1024
_EACH_BYTES: Final = 16
# Bytes that a connection may send in this time without completing a subscription, including heartbeats.
_MAX_UNFINISHED_BYTES: Final = 128 * 1024
_UNFINISHED_S: Final = 600.0
_MAX_READS: Final = 1000


@dataclass
class _Connection:
    topics: set[bytes] = field(default_factory=set)
    topic_bytes: int = 0
    received: int | None = 0  # when the last subscription was complete
    since_s: float = field(default_factory=time.monotonic)


class Subscriptions:
    """Read the subscriptions of an XPUB socket, and disconnect peers that have too many.

    ZeroMQ keeps all of them, and all parts of a message that does not end. Bytes that arrive without
    completing a message can be counted on Linux only.

    Parameters
    ----------
    socket : zmq.Socket
        XPUB, bound; used only during calls of the methods.
    endpoint : str
        The address that the socket is bound to.
    descriptors : callable
        Returns the file descriptors of the open connections.

    Attributes
    ----------
    refused : Counter
        Connections that were closed, by reason.
    """

    def __init__(self, socket: zmq.Socket[Any], endpoint: str, descriptors: Callable[[], Set[int]]) -> None:
        self.refused: Counter[str] = Counter()
        self._socket = socket
        self._endpoint = endpoint
        self._descriptors = descriptors
        self._connections: dict[int, _Connection] = {}
        self._log_lines = RateLimiter(interval_s=10.0)

    def read(self) -> None:
        """Count the subscriptions that arrived since the last call."""
        for _ in range(_MAX_READS):
            if not int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
                return
            message = self._socket.recv(zmq.NOBLOCK, copy=False)
            try:
                descriptor = message.get(zmq.SRCFD)
            except zmq.ZMQError:  # the connection has ended
                continue
            self._count(int(descriptor), message.bytes)

    def close_unfinished(self) -> None:
        """Close connections whose messages do not end, and drop the counts of those that ended."""
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

    def _count(self, descriptor: int, message: bytes) -> None:
        known = self._connections.setdefault(descriptor, _Connection())
        known.received = None
        topic = message[1:]
        if message[:1] == b"\1" and topic not in known.topics:
            known.topics.add(topic)
            known.topic_bytes += len(topic) + _EACH_BYTES
            if known.topic_bytes > _MAX_TOPIC_BYTES:
                self._refuse(descriptor, "too_many_subscriptions")
        elif message[:1] == b"\0" and topic in known.topics:
            known.topics.remove(topic)
            known.topic_bytes -= len(topic) + _EACH_BYTES

    def _refuse(self, descriptor: int, reason: str) -> None:
        del self._connections[descriptor]
        if hang_up(descriptor, self._endpoint):
            self.refused[reason] += 1
            if self._log_lines.suppressed_since_last(reason) is not None:
                _log.warning(
                    "subscriber of results refused",
                    reason=reason,
                    endpoint=self._endpoint,
                    count=self.refused[reason],
                )
