"""The connection of a ZeroMQ socket that connects: whether it is there, and when a fresh socket is needed.

ZeroMQ connects again by itself when a connection is lost. It does not after a peer broke the protocol (a part
larger than ``ZMQ_MAXMSGSIZE``, bytes that are no ZeroMQ message): the socket then stays silent for good. Nor
does it notice bytes before the greeting, which it takes for a peer of the first protocol version. And it
keeps the parts of a message until the last one has come, however many there are.
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
from zmq.utils.monitor import recv_monitor_message

from senoscope_client.wire.sizes import MAX_PART_BYTES

LinkFault = Literal["lost", "no_handshake", "protocol", "unknown_key", "curve_mismatch"]
"""What can happen to a connection.

``lost``: closed or silent after its handshake; ``no_handshake``: closed or silent before; ``protocol``: the
peer sent what is no ZeroMQ message, or one that is too large or does not end, or is no publisher;
``unknown_key``: it does not allow this public key; ``curve_mismatch``: only one side speaks CURVE, or with
another key, or the peer has another mechanism, such as PLAIN.
"""
HANDSHAKE_S: Final = 5.0
MAX_PARTS: Final = 8
"""Of a message; none that is known has more than three."""
# What may come, and the memory that may be taken, without a message coming to its end.
_MAX_UNFINISHED_BYTES: Final = 4 * MAX_PART_BYTES
# Parts may be empty, and take more memory than they had bytes.
_SMALL_PARTS_BYTES: Final = MAX_PART_BYTES // 16
_LOOK_EVERY_S: Final = 0.2
_BYTES_RECEIVED_AT: Final = 128  # in the kernel's struct tcp_info
# ZeroMQ reports that it will connect again at the same moment as the loss.
_RETRY_S: Final = 0.5
_LONGEST_PATIENCE_S: Final = 60.0
_EVENTS: Final = (
    zmq.EVENT_CONNECTED
    | zmq.EVENT_CONNECT_RETRIED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
_OF_CURVE: Final = frozenset(
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
    """What happened to a connection.

    Attributes
    ----------
    fault : LinkFault or None
        None: it is there.
    final : bool
        Whether the socket will not connect again; a fresh one has to.
    """

    fault: LinkFault | None
    final: bool = False


class Link:
    """Watches the connection of one socket; made before it connects, used from its thread.

    Parameters
    ----------
    socket : zmq.Socket
        Its handshake time-out is set here.
    patience_s : float, optional
        How long to wait for a handshake, or a message in its place, before a fresh socket tries; at first
        `first_patience_s`. Once there was either, that time holds for the connections that follow.

    Attributes
    ----------
    connected : bool
        Whether there is a connection with a finished handshake.
    """

    def __init__(self, socket: zmq.Socket[Any], patience_s: float | None = None) -> None:
        self.connected = False
        self._socket = socket
        self._patience_s = first_patience_s() if patience_s is None else patience_s
        self._greet_by_s: float | None = None
        self._retry_by_s: float | None = None
        self._reported = False
        self._descriptor: int | None = None
        self._unfinished_since: tuple[int, int] | None = None
        self._look_at_s = 0.0
        socket.setsockopt(zmq.HANDSHAKE_IVL, round(HANDSHAKE_S * 1000))
        monitored = f"inproc://senoscope-link-{id(self)}"
        socket.monitor(monitored, _EVENTS)
        self.monitor: zmq.Socket[Any] = socket.context.socket(zmq.PAIR)
        """To be polled together with the socket."""
        self.monitor.setsockopt(zmq.LINGER, 0)
        # Without a limit: ZeroMQ's own thread would wait for events to be read.
        self.monitor.setsockopt(zmq.RCVHWM, 0)
        self.monitor.connect(monitored)

    def heard(self) -> None:
        """Note that a good message came: a peer of an old protocol version has no handshake to wait for."""
        self._greet_by_s = None
        self._patience_s = first_patience_s()
        self._unfinished_since = None

    def events(self) -> Iterator[LinkEvent]:
        """What happened since; ask when the monitor is readable, and twice a second at least."""
        while self.monitor.poll(0):
            message = recv_monitor_message(self.monitor)
            event = self._take(message["event"], message["value"])
            if event is not None:
                yield event
        now_s = time.monotonic()
        if self._retry_by_s is not None and now_s > self._retry_by_s:
            self._retry_by_s = None
            yield LinkEvent("protocol", final=True)
        if self._greet_by_s is not None and now_s > self._greet_by_s:
            self._greet_by_s = None
            yield LinkEvent("no_handshake", final=True)
        if now_s > self._look_at_s:
            self._look_at_s = now_s + _LOOK_EVERY_S
            if self._is_endless():
                yield self._end("protocol", final=True)

    def _is_endless(self) -> bool:
        """Whether more came since the last message than any message has."""
        received = None if self._descriptor is None else received_bytes(self._descriptor)
        if received is None:
            return False
        resident = resident_bytes()
        if self._unfinished_since is None:
            self._unfinished_since = received, resident
        came, grown = received - self._unfinished_since[0], resident - self._unfinished_since[1]
        return came > _MAX_UNFINISHED_BYTES or (came > _SMALL_PARTS_BYTES and grown > _MAX_UNFINISHED_BYTES)

    def close(self) -> None:
        """Watch no longer; before the socket is closed."""
        if not self._socket.closed:
            self._socket.disable_monitor()
        self.monitor.close(0)

    def _take(self, event: int, value: int) -> LinkEvent | None:
        if event == zmq.EVENT_CONNECTED:
            self._greet_by_s = time.monotonic() + self._patience_s
            self._retry_by_s = None
            self._reported = False
            self._descriptor, self._unfinished_since = value, (0, resident_bytes())
        elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._greet_by_s = None
            self._patience_s = first_patience_s()
            self.connected = True
            return LinkEvent(None)
        elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            return self._end("unknown_key", final=True)
        elif event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
            return self._end("curve_mismatch" if value in _OF_CURVE else "protocol", final=True)
        elif event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            return self._end("no_handshake")
        elif event == zmq.EVENT_DISCONNECTED:
            self._descriptor = None
            self._retry_by_s = time.monotonic() + _RETRY_S
            self._greet_by_s = None
            # Whether it was lost, or broke the protocol, shows by whether ZeroMQ tries again.
        elif event == zmq.EVENT_CONNECT_RETRIED and self._retry_by_s is not None:
            self._retry_by_s = None
            return None if self._reported else self._end("lost")
        return None

    def _end(self, fault: LinkFault, final: bool = False) -> LinkEvent:
        self.connected = False
        self._descriptor = None
        self._greet_by_s = None
        self._reported = True
        return LinkEvent(fault, final)


def first_patience_s() -> float:
    """How long to wait for a handshake: longer than ZeroMQ does, which connects again by itself."""
    return 1.2 * HANDSHAKE_S


def next_patience_s(patience_s: float) -> float:
    """How long to wait for the next handshake after one that never came."""
    return min(2 * patience_s, _LONGEST_PATIENCE_S)


def receive_parts(socket: zmq.Socket[Any]) -> list[zmq.Frame] | None:
    """The message that waits.

    Returns
    -------
    list of zmq.Frame or None
        None if it has more than `MAX_PARTS`; the others are left in the socket, which is to be closed.
    """
    parts: list[zmq.Frame] = []
    while len(parts) < MAX_PARTS:
        parts.append(socket.recv(copy=False))
        if not parts[-1].more:
            return parts
    return None


def received_bytes(descriptor: int) -> int | None:
    """What came over a TCP connection so far; None where the system does not say, as only Linux does."""
    if sys.platform != "linux":
        return None
    try:
        with sockets.fromfd(descriptor, sockets.AF_INET, sockets.SOCK_STREAM) as connection:
            info = connection.getsockopt(sockets.IPPROTO_TCP, sockets.TCP_INFO, _BYTES_RECEIVED_AT + 8)
        return int(struct.unpack_from("=Q", info, _BYTES_RECEIVED_AT)[0])
    except (OSError, struct.error):  # closed meanwhile, or an older kernel
        return None


def resident_bytes() -> int:
    """Memory of this process; 0 where the system does not say, as only Linux does."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
