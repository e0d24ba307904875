"""Sockets that send results, and faults of their connection to a subscriber."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import zmq

from senoscope_client.wire.sizes import MAX_RESULT_BYTES
from support.network_cable import Cable
from support.servers import free_port

Fault = Callable[["zmq.Socket[Any]", Cable], None]


@contextmanager
def results_socket() -> Iterator[tuple[zmq.Socket[Any], str]]:
    """Open a socket like that of the service, which receives subscriptions; yield it and its endpoint."""
    socket = zmq.Context.instance().socket(zmq.XPUB)
    socket.setsockopt(zmq.RCVTIMEO, 10_000)
    socket.bind("tcp://127.0.0.1:*")
    try:
        yield socket, socket.getsockopt_string(zmq.LAST_ENDPOINT)
    finally:
        socket.close(0)


@contextmanager
def results_line() -> Iterator[tuple[zmq.Socket[Any], Cable, str]]:
    """Open a results socket behind a cable; yield both, and the endpoint at the other end of the cable."""
    with results_socket() as (socket, inner):
        port = free_port()
        cable = Cable(port, int(inner.rpartition(":")[2]))
        try:
            yield socket, cable, f"tcp://127.0.0.1:{port}"
        finally:
            cable.close()


def _oversize(socket: zmq.Socket[Any], cable: Cable) -> None:
    socket.send_multipart([b"result/stream/nlo-1", bytes(MAX_RESULT_BYTES + 1)])


FAULTS: dict[str, Fault] = {
    "oversize": _oversize,
    "random bytes": lambda _, cable: cable.inject(os.urandom(4096)),
    # Not 0xff, the first byte of a greeting: a greeting with another mechanism would be a refusal.
    "random greeting": lambda _, cable: cable.greet_next(b"\0" + os.urandom(63)),
    "half a greeting": lambda _, cable: cable.greet_next(b"\xff\0\0\0\0\0\0\0\1\x7f\3"),
    "reset": lambda _, cable: cable.reset(),
}
