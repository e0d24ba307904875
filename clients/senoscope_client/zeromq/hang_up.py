"""Hanging up on a connection that ZeroMQ has accepted."""

from __future__ import annotations

import contextlib
import socket
from typing import Final

# Each takes a file descriptor, which the whole process may have only so many of.
MAX_CONNECTIONS: Final = 128
HANDSHAKE_MS: Final = 5000
"""How long a peer of a socket that binds may take for its handshake; ZeroMQ's own limit is 30 s."""


def hang_up(descriptor: int, endpoint: str) -> bool:
    """Shut a TCP connection down; ZeroMQ closes it then.

    Parameters
    ----------
    descriptor : int
        As the socket's monitor names it. It may belong to another connection by now: nothing is done unless
        that is one of the endpoint's too.
    endpoint : str
        That the socket is bound to.

    Returns
    -------
    bool
        Whether it was.
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
