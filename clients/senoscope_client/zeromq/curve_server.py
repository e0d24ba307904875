"""Access control of a ZeroMQ socket that is a CURVE server, and counts of the clients that it refuses."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

import zmq
from zmq.auth.base import Authenticator

from senoscope_client.zeromq.curve_keys import StrPath, load_keypair, load_public_keys
from senoscope_client.zeromq.hang_up import MAX_CONNECTIONS
from senoscope_client.zeromq.socket_monitor import Connections, SocketEvent

_log = logging.getLogger(__name__)
# The largest message of a subscriber, handshakes included; ZeroMQ disconnects peers that announce a larger
# one, before it allocates memory for it.
MAX_SUBSCRIPTION_BYTES = 1024
_DOMAIN = "senoscope"
# A client without CURVE or with a wrong server key fails in either of the last two ways.
_REFUSAL_REASONS: Final[dict[int, str]] = {
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "unknown_key",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "failed_handshake",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "failed_handshake",
}


class CurveAccess(Connections):
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
        self._allowed = allowed
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
        super().__init__(socket, max_connections, sum(_REFUSAL_REASONS))

    @property
    def problem(self) -> str | None:
        """Why clients can no longer connect; None while they can."""
        if self._thread.is_alive() or self._closing:
            return None
        return "the thread that authenticates ZeroMQ clients has died"

    def callback(self, domain: str, key: bytes) -> bool:
        """Return whether a client with a public key, in Z85, is accepted; called by pyzmq's authenticator."""
        del domain
        try:
            assert self._allowed is not None
            accepted = key in load_public_keys(self._allowed)
        except (OSError, ValueError) as error:
            _log.error("ZeroMQ client refused: the allowed keys cannot be read: %s", error)
            return False
        if not accepted and self._log_lines.suppressed_since_last("key") is not None:
            _log.warning("ZeroMQ client refused: its public key %s is not allowed", key.decode())
        return accepted

    def _run(self) -> None:
        self._loop = asyncio.new_event_loop()  # pyzmq's authenticator is a coroutine, though it never waits
        try:
            super()._run()
        finally:
            self._loop.close()
            self._authenticator.stop()

    def _next_event(self) -> SocketEvent:
        """Reply to requests to authenticate keys until there is an event."""
        zap_socket = self._authenticator.zap_socket
        poller = zmq.Poller()
        poller.register(self._monitor.socket, zmq.POLLIN)
        if zap_socket is not None:
            poller.register(zap_socket, zmq.POLLIN)
        while True:
            ready = dict(poller.poll())
            if zap_socket in ready:
                request = zap_socket.recv_multipart()
                self._loop.run_until_complete(self._authenticator.handle_zap_message(request))
            if self._monitor.socket in ready:
                return super()._next_event()

    def _handle_event(self, event: SocketEvent) -> None:
        super()._handle_event(event)
        if (reason := _REFUSAL_REASONS.get(event.kind)) is not None:
            self._refuse(reason, reason)
