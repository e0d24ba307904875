"""The door of a CURVE server socket: lets in whom it knows, counts whom it does not."""

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
# All that a subscriber has to say, handshakes included; beyond it ZeroMQ hangs up before it keeps anything.
MAX_SUBSCRIPTION_BYTES = 1024
_DOMAIN = "senoscope"
_LOG_EVERY_S = 10.0
# A peer without CURVE or with a wrong server key fails in either of the last two ways.
_REFUSALS: dict[int, str] = {
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "unknown_key",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "failed_handshake",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "failed_handshake",
}
_OTHERS = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | zmq.EVENT_MONITOR_STOPPED


class Gate:
    """Makes a socket a CURVE server and watches its handshakes; before the socket binds.

    A thread of its own answers ZeroMQ's questions about keys (ZAP, with pyzmq's authenticator; pyzmq's own
    thread for it would need tornado on Windows). While that thread is not there, nobody is let in.

    Parameters
    ----------
    socket : zmq.Socket
        Of a context in which no other socket has a gate, because a context has one ZAP handler.
    keypair : path
        The server's secret file.
    allowed : path, optional
        Folder of the public keys (``*.key``) that may connect, read at each handshake, so that a file put
        there or taken away counts from the next one on. Without it everybody may who knows the server's
        public key.
    max_connections : int
        One more is hung up on.

    Attributes
    ----------
    refused : Counter
        Handshakes that failed, and connections that were hung up on, by reason.

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
        self._logged_s: dict[str, float] = {}
        self._open: set[int] = set()
        self._allowed = allowed
        self._socket = socket
        self._stop = threading.Event()
        mine = load_keypair(keypair)
        self._authenticator = Authenticator(socket.context)
        if allowed is not None:
            load_public_keys(allowed)  # a folder that cannot be read is told now
            self._authenticator.configure_curve_callback(_DOMAIN, self)
            self._authenticator.start()
            socket.setsockopt_string(zmq.ZAP_DOMAIN, _DOMAIN)
            # Without this option libzmq lets everybody in when nobody answers its questions.
            socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, mine.secret)
        monitored = f"inproc://senoscope-gate-{id(self)}"
        socket.monitor(monitored, sum(_REFUSALS) | _OTHERS)
        self._events = socket.context.socket(zmq.PAIR)
        self._events.setsockopt(zmq.LINGER, 0)
        self._events.setsockopt(zmq.RCVHWM, 0)  # the last event must find room, and so end the thread
        self._events.connect(monitored)
        self._thread = threading.Thread(target=self._run, name="curve-gate", daemon=True)
        self._thread.start()

    @property
    def problem(self) -> str | None:
        """Why nobody can connect any more, or None while all is well."""
        if self._thread.is_alive() or self._stop.is_set():
            return None
        return "the thread that lets ZeroMQ clients in has died"

    @property
    def count(self) -> int:
        """How many are connected, those who are just being refused included."""
        return len(self._open)

    @property
    def descriptors(self) -> frozenset[int]:
        """File descriptors of the connections."""
        return frozenset(self._open)

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether the owner of a public key, in Z85, may connect; asked by pyzmq's authenticator."""
        del domain
        try:
            assert self._allowed is not None
            known = key in load_public_keys(self._allowed)
        except (OSError, ValueError) as error:
            _log.error("ZeroMQ client refused: the allowed keys cannot be read: %s", error)
            return False
        if not known and self._may_log("key"):
            _log.warning("ZeroMQ client refused: its public key %s is not allowed", key.decode())
        return known

    def close(self) -> None:
        """Reject further connections; call before the socket closes, on its thread."""
        self._stop.set()
        self._socket.disable_monitor()  # that is an event too, which wakes the gate's thread
        self._thread.join()
        self._events.close()

    def _run(self) -> None:
        loop = asyncio.new_event_loop()  # pyzmq's authenticator is a coroutine, though it never waits
        poller = zmq.Poller()
        poller.register(self._events, zmq.POLLIN)
        questions = self._authenticator.zap_socket
        if questions is not None:
            poller.register(questions, zmq.POLLIN)
        try:
            while not self._stop.is_set():
                ready = dict(poller.poll())
                if questions in ready:
                    asked = questions.recv_multipart()
                    loop.run_until_complete(self._authenticator.handle_zap_message(asked))
                if self._events in ready:
                    self._note(**recv_monitor_message(self._events))
        except Exception:
            _log.exception("ZeroMQ clients can no longer connect")
        finally:
            loop.close()
            self._authenticator.stop()

    def _note(self, event: int, value: int, endpoint: bytes) -> None:
        if event == zmq.EVENT_ACCEPTED:
            self._open.add(value)
            if len(self._open) > self._max_connections and hang_up(value, endpoint.decode()):
                self.refused["too_many"] += 1
                if self._may_log("too_many"):
                    _log.warning("ZeroMQ client refused: %d are connected", self._max_connections)
        elif event == zmq.EVENT_DISCONNECTED:
            self._open.discard(value)
        reason = _REFUSALS.get(event)
        if reason is None:
            return
        self.refused[reason] += 1
        if self._may_log(reason):
            _log.warning("ZeroMQ client refused: %s (%d so far)", reason, self.refused[reason])

    def _may_log(self, reason: str) -> bool:
        """Whether the last line about this is long enough ago: a refused client tries many times a second."""
        now_s = time.monotonic()
        if now_s - self._logged_s.get(reason, -_LOG_EVERY_S) < _LOG_EVERY_S:
            return False
        self._logged_s[reason] = now_s
        return True
