"""Limits of the connections that ZeroMQ accepts, and how to close one of them."""

from __future__ import annotations

import contextlib
import socket
from typing import Final

# Each connection needs a file descriptor, whose number is limited per process.
MAX_CONNECTIONS: Final = 128
HANDSHAKE_MS: Final = 5000
"""Time limit for the handshakes with a socket that binds; ZeroMQ's default is 30 s."""


def hang_up(descriptor: int, endpoint: str) -> bool:
    """Shut down a TCP connection, which ZeroMQ then closes.

    Parameters
    ----------
    descriptor : int
        File descriptor, as reported by the socket's monitor. It may belong to another connection by now: it
        is shut down only if its local port is that of the endpoint.
    endpoint : str
        Endpoint that the socket is bound to.

    Returns
    -------
    bool
        Whether the connection was shut down.
    """
    port = endpoint.rpartition(":")[2]
    if not endpoint.startswith("tcp://") or not port.isdigit():
        return False
    with (
        contextlib.suppress(OSError, ValueError),
        socket.fromfd(descriptor, socket.AF_INET, socket.SOCK_STREAM) as connection,
    ):
        if connection.getsockname()[1] == int(port):
            connection.shutdown(socket.SHUT_RDWR)
            return True
    return False
