"""Monitoring of a ZeroMQ socket that connects: its state, and when it must be replaced by a new socket.

ZeroMQ reconnects by itself when a connection is lost. There are three faults that it does not handle:

- After a peer violated the protocol (a part larger than ``ZMQ_MAXMSGSIZE``, bytes that are not a ZeroMQ
  message) the socket does not reconnect, and receives nothing any more.
- Bytes before the greeting are not detected: they are taken for a peer of the first protocol version.
- The parts of a message are kept until the last one is received, however many there are.
"""

from __future__ import annotations

import os
import socket as sockets
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import zmq

from senoscope_client.wire.sizes import MAX_PART_BYTES
from senoscope_client.zeromq.socket_monitor import SocketMonitor

LinkFault = Literal["lost", "no_handshake", "protocol", "unknown_key", "curve_mismatch"]
"""Why a connection ended.

``lost``: closed or silent after its handshake; ``no_handshake``: closed or silent before; ``protocol``: the
peer sent data that are not a ZeroMQ message, or a message that is too large or does not end, or it is not a
publisher; ``unknown_key``: it does not allow this public key; ``curve_mismatch``: only one side uses CURVE,
or the keys do not match, or the peer uses another mechanism, such as PLAIN.
"""
HANDSHAKE_S: Final = 5.0
MAX_PARTS: Final = 8
"""Maximum number of parts of a message; valid messages have at most three."""
# Limit of the bytes that are received, and of the memory that they take, without a complete message.
_MAX_UNFINISHED_BYTES: Final = 4 * MAX_PART_BYTES
# Parts may be empty, and take more memory than they have bytes.
_SMALL_PARTS_BYTES: Final = MAX_PART_BYTES // 16
_CHECK_INTERVAL_S: Final = 0.2
_BYTES_RECEIVED_AT: Final = 128  # in the kernel's struct tcp_info
# ZeroMQ reports that it will reconnect immediately after the loss; without this report it does not reconnect.
_RETRY_REPORT_S: Final = 0.5
_LONGEST_TIMEOUT_S: Final = 60.0
_EVENTS: Final = (
    zmq.EVENT_CONNECTED
    | zmq.EVENT_CONNECT_RETRIED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
_CURVE_ERRORS: Final = frozenset(
    {
        zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH,
        zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC,
        zmq.PROTOCOL_ERROR_ZMTP_KEY_EXCHANGE,
        zmq.PROTOCOL_ERROR_ZMTP_MALFORMED_COMMAND_HELLO,
        zmq.PROTOCOL_ERROR_ZMTP_MALFORMED_COMMAND_WELCOME,
        zmq.PROTOCOL_ERROR_ZMTP_MALFORMED_COMMAND_INITIATE,
    }
)


@dataclass(frozen=True)
class LinkEvent:
    """A change of the connection.

    Attributes
    ----------
    fault : LinkFault or None
        Why the connection ended; None: it was established.
    final : bool
        Whether the socket will not reconnect, so that it must be replaced by a new one.
    """

    fault: LinkFault | None
    final: bool = False


class HandshakePatience:
    """The time-out of handshakes, longer after each one that timed out.

    Attributes
    ----------
    timeout_s : float
        The first is longer than that of ZeroMQ, which reconnects by itself.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Return to the first time-out, after a handshake or a message."""
        self.timeout_s = 1.2 * HANDSHAKE_S

    def double(self) -> None:
        """Double the time-out, up to a minute."""
        self.timeout_s = min(2 * self.timeout_s, _LONGEST_TIMEOUT_S)


class Link:
    """Monitors the connection of one socket; create it before the socket connects, use it in its thread.

    Parameters
    ----------
    socket : zmq.Socket
        Its handshake time-out is set here.
    patience : HandshakePatience
        How long to wait for a handshake, or for a message instead, before the socket must be replaced; kept
        for the next socket.

    Attributes
    ----------
    connected : bool
        Whether there is a connection with a completed handshake.
    """

    def __init__(self, socket: zmq.Socket[Any], patience: HandshakePatience) -> None:
        self.connected = False
        self._patience = patience
        self._handshake_deadline_s: float | None = None
        self._retry_deadline_s: float | None = None
        self._loss_reported = False
        self._descriptor: int | None = None
        # Bytes received and memory of the process when the unfinished message began.
        self._unfinished_since: tuple[int, int] | None = None
        self._next_check_s = 0.0
        socket.setsockopt(zmq.HANDSHAKE_IVL, round(HANDSHAKE_S * 1000))
        self._monitor = SocketMonitor(socket, _EVENTS)
        self.monitor = self._monitor.socket
        """Socket to poll together with the monitored one."""

    def message_received(self) -> None:
        """Record that a complete message was received; peers of old protocol versions have no handshake."""
        self._handshake_deadline_s = None
        self._patience.reset()
        self._unfinished_since = None

    def events(self) -> Iterator[LinkEvent]:
        """Generate the events since the last call; call it if `monitor` is readable, and twice a second."""
        while self.monitor.poll(0):
            kind, value, _ = self._monitor.receive()
            event = self._handle_event(kind, value)
            if event is not None:
                yield event
        now_s = time.monotonic()
        if self._retry_deadline_s is not None and now_s > self._retry_deadline_s:
            self._retry_deadline_s = None
            yield LinkEvent("protocol", final=True)
        if self._handshake_deadline_s is not None and now_s > self._handshake_deadline_s:
            self._handshake_deadline_s = None
            self._patience.double()
            yield LinkEvent("no_handshake", final=True)
        if now_s > self._next_check_s:
            self._next_check_s = now_s + _CHECK_INTERVAL_S
            if self._is_message_endless():
                yield self._connection_ended("protocol", final=True)

    def _is_message_endless(self) -> bool:
        """Return whether more was received since the last message than any message may have."""
        received = None if self._descriptor is None else received_bytes(self._descriptor)
        if received is None:
            return False
        resident = resident_bytes()
        if self._unfinished_since is None:
            self._unfinished_since = received, resident
        unfinished, grown = received - self._unfinished_since[0], resident - self._unfinished_since[1]
        return unfinished > _MAX_UNFINISHED_BYTES or (
            unfinished > _SMALL_PARTS_BYTES and grown > _MAX_UNFINISHED_BYTES
        )

    def close(self) -> None:
        """Stop monitoring; call it before the socket is closed."""
        self._monitor.close()

    def _handle_event(self, event: int, value: int) -> LinkEvent | None:
        if event == zmq.EVENT_CONNECTED:
            self._handshake_deadline_s = time.monotonic() + self._patience.timeout_s
            self._retry_deadline_s = None
            self._loss_reported = False
            self._descriptor, self._unfinished_since = value, (0, resident_bytes())
        elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._handshake_deadline_s = None
            self._patience.reset()
            self.connected = True
            return LinkEvent(None)
        elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            return self._connection_ended("unknown_key", final=True)
        elif event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
            return self._connection_ended(
                "curve_mismatch" if value in _CURVE_ERRORS else "protocol", final=True
            )
        elif event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            return self._connection_ended("no_handshake")
        elif event == zmq.EVENT_DISCONNECTED:
            self._descriptor = None
            self._retry_deadline_s = time.monotonic() + _RETRY_REPORT_S
            self._handshake_deadline_s = None
            # A lost connection is followed by a retry of ZeroMQ, a violation of the protocol is not.
        elif event == zmq.EVENT_CONNECT_RETRIED and self._retry_deadline_s is not None:
            self._retry_deadline_s = None
            return None if self._loss_reported else self._connection_ended("lost")
        return None

    def _connection_ended(self, fault: LinkFault, final: bool = False) -> LinkEvent:
        self.connected = False
        self._descriptor = None
        self._handshake_deadline_s = None
        self._loss_reported = True
        return LinkEvent(fault, final)


def receive_parts(socket: zmq.Socket[Any]) -> list[zmq.Frame] | None:
    """Receive the parts of a message that is ready; return None if there are more than `MAX_PARTS`.

    Further parts remain in the socket, which must then be closed.
    """
    parts: list[zmq.Frame] = []
    while len(parts) < MAX_PARTS:
        parts.append(socket.recv(copy=False))
        if not parts[-1].more:
            return parts
    return None


def received_bytes(descriptor: int) -> int | None:
    """Return the bytes received over a TCP connection; None where the number is not known, as on Windows."""
    if sys.platform != "linux":
        return None
    try:
        with sockets.fromfd(descriptor, sockets.AF_INET, sockets.SOCK_STREAM) as connection:
            info = connection.getsockopt(sockets.IPPROTO_TCP, sockets.TCP_INFO, _BYTES_RECEIVED_AT + 8)
        return int(struct.unpack_from("=Q", info, _BYTES_RECEIVED_AT)[0])
    except (OSError, struct.error):  # closed meanwhile, or an older kernel
        return None


def resident_bytes() -> int:
    """Return the resident memory of this process in bytes; 0 where it is not known, as on Windows."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
