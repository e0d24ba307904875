"""Counting who is connected to a ZeroMQ socket that binds."""

from __future__ import annotations

import threading
from typing import Any, Final

import structlog
import zmq
from zmq.utils.monitor import recv_monitor_message

_log = structlog.get_logger(__name__)
_POLL_MS: Final = 200


class Connections:
    """Reads a socket's events on a thread of its own: unread they would fill up and hold ZeroMQ up.

    Parameters
    ----------
    socket : zmq.Socket
        Before it binds.
    """

    def __init__(self, socket: zmq.Socket[Any]) -> None:
        self._open: set[int] = set()
        self._socket = socket
        self._stop = threading.Event()
        monitored = f"inproc://senoscope-connections-{id(self)}"
        socket.monitor(monitored, zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
        self._events = socket.context.socket(zmq.PAIR)
        self._events.setsockopt(zmq.LINGER, 0)
        self._events.connect(monitored)
        self._thread = threading.Thread(target=self._run, name="connections", daemon=True)
        self._thread.start()

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._open)

    def close(self) -> None:
        """Count no more; before the socket closes, on its thread."""
        self._socket.disable_monitor()  # else ZeroMQ would wait for somebody to read
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                if not self._events.poll(_POLL_MS):
                    continue
                event = recv_monitor_message(self._events)
                if event["event"] == zmq.EVENT_ACCEPTED:
                    self._open.add(event["value"])
                else:
                    self._open.discard(event["value"])
        except Exception:
            _log.exception("subscribers are no longer counted")
        finally:
            self._events.close()
