"""Access control of a ZeroMQ socket that is a CURVE server, and counts of the clients that it refuses."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from typing import Any

import zmq
from zmq.auth.base import Authenticator
from zmq.utils.monitor import recv_monitor_message

from senoscope_client.zeromq.curve_keys import StrPath, load_keypair, load_public_keys
from senoscope_client.zeromq.hang_up import MAX_CONNECTIONS, hang_up

_log = logging.getLogger(__name__)
# The largest message of a subscriber, handshakes included; ZeroMQ disconnects peers that announce a larger
# one, before it allocates memory for it.
MAX_SUBSCRIPTION_BYTES = 1024
_DOMAIN = "senoscope"
_LOG_INTERVAL_S = 10.0
# A client without CURVE or with a wrong server key fails in either of the last two ways.
_REFUSAL_REASONS: dict[int, str] = {
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "unknown_key",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "failed_handshake",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "failed_handshake",
}
_OTHER_EVENTS = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | zmq.EVENT_MONITOR_STOPPED


class CurveAccess:
    """Makes a socket a CURVE server and monitors its handshakes; create it before the socket binds.

    A thread replies to ZeroMQ's requests to authenticate keys (ZAP, with pyzmq's authenticator; pyzmq's own
    thread for them would need tornado on Windows). While that thread is not running, no client is accepted.

    Parameters
    ----------
    socket : zmq.Socket
        Of a context in which no other socket has a CurveAccess, because a context has one ZAP handler.
    keypair : path
        The server's secret file.
    allowed : path, optional
        Folder of the public keys (``*.key``) of the clients to accept, read at each handshake, so that a file
        that is added or removed takes effect from the next handshake on. Without it every client is accepted
        that has the server's public key.
    max_connections : int
        Further connections are closed.

    Attributes
    ----------
    refused : Counter
        Failed handshakes and connections that were closed, by reason.

    Raises
    ------
    OSError, ValueError
        If a key cannot be read.
    """

    def __init__(
        self,
        socket: zmq.Socket[Any],
        keypair: StrPath,
        allowed: StrPath | None = None,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        self._max_connections = max_connections
        self.refused: Counter[str] = Counter()
        self._last_logged_s: dict[str, float] = {}
        self._open: set[int] = set()
        self._allowed = allowed
        self._socket = socket
        self._stop = threading.Event()
        server_keys = load_keypair(keypair)
        self._authenticator = Authenticator(socket.context)
        if allowed is not None:
            load_public_keys(allowed)  # raises now if the folder cannot be read
            self._authenticator.configure_curve_callback(_DOMAIN, self)
            self._authenticator.start()
            socket.setsockopt_string(zmq.ZAP_DOMAIN, _DOMAIN)
            # Without this option libzmq accepts all clients if no ZAP handler is running.
            socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, server_keys.secret)
        monitored = f"inproc://senoscope-curve-access-{id(self)}"
        socket.monitor(monitored, sum(_REFUSAL_REASONS) | _OTHER_EVENTS)
        self._events = socket.context.socket(zmq.PAIR)
        self._events.setsockopt(zmq.LINGER, 0)
        self._events.setsockopt(zmq.RCVHWM, 0)  # the last event, which ends the thread, must not be dropped
        self._events.connect(monitored)
        self._thread = threading.Thread(target=self._run, name="curve-access", daemon=True)
        self._thread.start()

    @property
    def problem(self) -> str | None:
        """Why clients can no longer connect; None while they can."""
        if self._thread.is_alive() or self._stop.is_set():
            return None
        return "the thread that authenticates ZeroMQ clients has died"

    @property
    def count(self) -> int:
        """Number of connections, including those that are being refused."""
        return len(self._open)

    @property
    def descriptors(self) -> frozenset[int]:
        """File descriptors of the connections."""
        return frozenset(self._open)

    def callback(self, domain: str, key: bytes) -> bool:
        """Return whether a client with a public key, in Z85, is accepted; called by pyzmq's authenticator."""
        del domain
        try:
            assert self._allowed is not None
            accepted = key in load_public_keys(self._allowed)
        except (OSError, ValueError) as error:
            _log.error("ZeroMQ client refused: the allowed keys cannot be read: %s", error)
            return False
        if not accepted and self._should_log("key"):
            _log.warning("ZeroMQ client refused: its public key %s is not allowed", key.decode())
        return accepted

    def close(self) -> None:
        """Reject further connections; call it before the socket is closed, on the socket's thread."""
        self._stop.set()
        self._socket.disable_monitor()  # emits an event, which wakes the thread
        self._thread.join()
        self._events.close()

    def _run(self) -> None:
        loop = asyncio.new_event_loop()  # pyzmq's authenticator is a coroutine, though it never waits
        poller = zmq.Poller()
        poller.register(self._events, zmq.POLLIN)
        zap_socket = self._authenticator.zap_socket
        if zap_socket is not None:
            poller.register(zap_socket, zmq.POLLIN)
        try:
            while not self._stop.is_set():
                ready = dict(poller.poll())
                if zap_socket in ready:
                    request = zap_socket.recv_multipart()
                    loop.run_until_complete(self._authenticator.handle_zap_message(request))
                if self._events in ready:
                    self._handle_event(**recv_monitor_message(self._events))
        except Exception:
            _log.exception("ZeroMQ clients can no longer connect")
        finally:
            loop.close()
            self._authenticator.stop()

    def _handle_event(self, event: int, value: int, endpoint: bytes) -> None:
        if event == zmq.EVENT_ACCEPTED:
            self._open.add(value)
            if len(self._open) > self._max_connections and hang_up(value, endpoint.decode()):
                self.refused["too_many"] += 1
                if self._should_log("too_many"):
                    _log.warning("ZeroMQ client refused: %d are connected", self._max_connections)
        elif event == zmq.EVENT_DISCONNECTED:
            self._open.discard(value)
        reason = _REFUSAL_REASONS.get(event)
        if reason is None:
            return
        self.refused[reason] += 1
        if self._should_log(reason):
            _log.warning("ZeroMQ client refused: %s (%d so far)", reason, self.refused[reason])

    def _should_log(self, reason: str) -> bool:
        """Return whether a refusal is logged: a refused client tries again many times a second."""
        now_s = time.monotonic()
        if now_s - self._last_logged_s.get(reason, -_LOG_INTERVAL_S) < _LOG_INTERVAL_S:
            return False
        self._last_logged_s[reason] = now_s
        return True
