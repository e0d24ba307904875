"""The number of connections of a ZeroMQ socket that binds, and a limit on it."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import structlog
import zmq
from zmq.utils.monitor import recv_monitor_message

from senoscope_client.rate_limiter import RateLimiter
from senoscope_client.zeromq.hang_up import MAX_CONNECTIONS, hang_up

_log = structlog.get_logger(__name__)


class Connections:
    """Counts connections by a socket's events, which a thread reads: unread events would block ZeroMQ.

    Parameters
    ----------
    socket : zmq.Socket
        Before it binds.
    max_connections : int
        Further connections are closed.

    Attributes
    ----------
    refused : Counter
        Connections that were closed, by reason.
    """

    def __init__(self, socket: zmq.Socket[Any], max_connections: int = MAX_CONNECTIONS) -> None:
        self.refused: Counter[str] = Counter()
        self._max_connections = max_connections
        self._log_lines = RateLimiter(interval_s=10.0)
        self._open: set[int] = set()
        self._socket = socket
        monitored = f"inproc://senoscope-connections-{id(self)}"
        socket.monitor(monitored, zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | zmq.EVENT_MONITOR_STOPPED)
        self._events = socket.context.socket(zmq.PAIR)
        self._events.setsockopt(zmq.LINGER, 0)
        self._events.setsockopt(zmq.RCVHWM, 0)  # the last event, which ends the thread, must not be dropped
        self._events.connect(monitored)
        self._thread = threading.Thread(target=self._run, name="connections", daemon=True)
        self._thread.start()

    @property
    def count(self) -> int:
        """How many connections there are."""
        return len(self._open)

    @property
    def descriptors(self) -> frozenset[int]:
        """File descriptors of the connections."""
        return frozenset(self._open)

    def close(self) -> None:
        """Stop counting; to be called on the socket's thread, before it closes."""
        self._socket.disable_monitor()  # an event that ends the thread
        self._thread.join()
        self._events.close()

    def _refuse(self, descriptor: int, endpoint: str) -> None:
        if hang_up(descriptor, endpoint):
            self.refused["too_many"] += 1
            if self._log_lines.suppressed_since_last() is not None:
                _log.warning(
                    "too many connections to the results",
                    endpoint=endpoint,
                    limit=self._max_connections,
                    refused=self.refused["too_many"],
                )

    def _run(self) -> None:
        try:
            while (event := recv_monitor_message(self._events))["event"] != zmq.EVENT_MONITOR_STOPPED:
                if event["event"] == zmq.EVENT_ACCEPTED:
                    self._open.add(event["value"])
                    if len(self._open) > self._max_connections:
                        self._refuse(event["value"], event["endpoint"].decode())
                else:
                    self._open.discard(event["value"])
        except Exception:
            _log.exception("subscribers are no longer counted")
