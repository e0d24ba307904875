"""Monitoring of ZeroMQ sockets by the events that they emit, and a limit on the connections of one."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from typing import Any, Final, NamedTuple

import zmq
from zmq.utils.monitor import recv_monitor_message

from senoscope_client.rate_limiter import RateLimiter
from senoscope_client.zeromq.hang_up import MAX_CONNECTIONS, hang_up

_log = logging.getLogger(__name__)
# A refused client tries again many times a second.
_LOG_INTERVAL_S: Final = 10.0


class SocketEvent(NamedTuple):
    """An event of a socket: its kind, such as `zmq.EVENT_ACCEPTED`, its value, and the socket's endpoint."""

    kind: int
    value: int
    endpoint: str


class SocketMonitor:
    """Receives the events of a socket; create it before the socket binds or connects.

    Parameters
    ----------
    monitored : zmq.Socket
    kinds : int
        Events to receive. After `stop` there is a last one, `zmq.EVENT_MONITOR_STOPPED`.

    Attributes
    ----------
    socket : zmq.Socket
        To be polled for events.
    """

    def __init__(self, monitored: zmq.Socket[Any], kinds: int) -> None:
        self._monitored = monitored
        address = f"inproc://senoscope-monitor-{id(self)}"
        monitored.monitor(address, kinds | zmq.EVENT_MONITOR_STOPPED)
        self.socket: zmq.Socket[Any] = monitored.context.socket(zmq.PAIR)
        self.socket.setsockopt(zmq.LINGER, 0)
        # No limit: ZeroMQ's own thread would block until events are read, and the last one could be dropped.
        self.socket.setsockopt(zmq.RCVHWM, 0)
        self.socket.connect(address)

    def receive(self) -> SocketEvent:
        """Wait for the next event."""
        message = recv_monitor_message(self.socket)
        return SocketEvent(message["event"], message["value"], message["endpoint"].decode())

    def stop(self) -> None:
        """Stop monitoring; call it in the thread of the monitored socket, before that is closed."""
        if not self._monitored.closed:
            self._monitored.disable_monitor()

    def close(self) -> None:
        """Stop monitoring, and close the socket of the events."""
        self.stop()
        self.socket.close(0)


class Connections:
    """Counts the connections of a socket that binds, and closes those beyond a limit, in a thread.

    Parameters
    ----------
    socket : zmq.Socket
        Before it binds.
    max_connections : int
        Further connections are closed.
    further_events : int
        Events that a subclass handles.

    Attributes
    ----------
    refused : Counter
        Connections that were closed, by reason.
    """

    def __init__(
        self, socket: zmq.Socket[Any], max_connections: int = MAX_CONNECTIONS, further_events: int = 0
    ) -> None:
        self.refused: Counter[str] = Counter()
        self._max_connections = max_connections
        self._log_lines = RateLimiter(_LOG_INTERVAL_S)
        self._open: set[int] = set()
        self._closing = False
        self._monitor = SocketMonitor(socket, zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | further_events)
        self._thread = threading.Thread(target=self._run, name="zeromq connections", daemon=True)
        self._thread.start()

    @property
    def count(self) -> int:
        """Number of connections, including those that are being refused."""
        return len(self._open)

    @property
    def descriptors(self) -> frozenset[int]:
        """File descriptors of the connections."""
        return frozenset(self._open)

    def close(self) -> None:
        """End the thread; call it before the socket is closed, on the socket's thread."""
        self._closing = True
        self._monitor.stop()  # emits an event, which wakes the thread
        self._thread.join()
        self._monitor.close()

    def _run(self) -> None:
        try:
            while (event := self._next_event()).kind != zmq.EVENT_MONITOR_STOPPED:
                self._handle_event(event)
        except Exception:
            _log.exception("the connections of a ZeroMQ socket are no longer monitored")

    def _next_event(self) -> SocketEvent:
        return self._monitor.receive()

    def _handle_event(self, event: SocketEvent) -> None:
        if event.kind == zmq.EVENT_ACCEPTED:
            self._open.add(event.value)
            if len(self._open) > self._max_connections and hang_up(event.value, event.endpoint):
                self._refuse("too_many", f"{self._max_connections} are connected")
        elif event.kind == zmq.EVENT_DISCONNECTED:
            self._open.discard(event.value)

    def _refuse(self, reason: str, text: str) -> None:
        """Count a refused client, and log it."""
        self.refused[reason] += 1
        if self._log_lines.suppressed_since_last(reason) is not None:
            _log.warning("ZeroMQ client refused: %s (%d so far)", text, self.refused[reason])
