"""Results over ZeroMQ."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import contextmanager
from itertools import islice

import pytest
import zmq

from senoscope_client import link
from senoscope_client.sizes import MAX_RESULT_BYTES
from senoscope_client.subscriber import ResultSubscriber
from support.network_cable import Cable
from support.servers import free_port
from support.service_double import result


@contextmanager
def results_socket():
    """A PUB socket as the service has it, which also tells when somebody has subscribed."""
    socket = zmq.Context.instance().socket(zmq.XPUB)
    socket.setsockopt(zmq.RCVTIMEO, 10_000)
    socket.bind("tcp://127.0.0.1:*")
    try:
        yield socket, socket.getsockopt_string(zmq.LAST_ENDPOINT)
    finally:
        socket.close(0)


def test_results_come_in_order_and_rubbish_is_counted():
    wanted = [result(kind="stream", instrument="nlo-1", frame=n) for n in range(3)]
    with results_socket() as (socket, endpoint), ResultSubscriber(endpoint, timeout_s=30) as subscriber:
        socket.recv()
        for r in wanted:
            socket.send_multipart([b"result/stream/nlo-1", b"{}"])
            socket.send_multipart([b"result/stream/nlo-1"])
            socket.send_multipart([b"result/stream/nlo-1", r.model_dump_json().encode()])
        got = list(islice(subscriber, 3))
    assert got == wanted
    assert subscriber.rejected == 6


def test_a_topic_narrows_what_comes():
    stream, upload = result(kind="stream", instrument="nlo-1"), result(kind="upload")
    with (
        results_socket() as (socket, endpoint),
        ResultSubscriber(endpoint, topic="result/upload") as subscriber,
    ):
        socket.recv()
        socket.send_multipart([b"result/stream/nlo-1", stream.model_dump_json().encode()])
        socket.send_multipart([b"result/upload", upload.model_dump_json().encode()])
        assert subscriber.receive(60) == upload


def test_waiting_ends_when_told():
    with results_socket() as (_, endpoint), ResultSubscriber(endpoint, timeout_s=0.05) as subscriber:
        with pytest.raises(TimeoutError, match=r"0\.05 s"):
            next(iter(subscriber))
        with pytest.raises(TimeoutError, match="0 s"):
            subscriber.receive(0)


def faults() -> dict[str, Callable[[zmq.Socket, Cable], None]]:
    def oversize(socket: zmq.Socket, cable: Cable) -> None:
        socket.send_multipart([b"result/stream/nlo-1", bytes(MAX_RESULT_BYTES + 1)])

    return {
        "oversize": oversize,
        "random bytes": lambda _, cable: cable.inject(os.urandom(4096)),
        "random greeting": lambda _, cable: cable.greet_next(os.urandom(64)),
        "half a greeting": lambda _, cable: cable.greet_next(b"\xff\0\0\0\0\0\0\0\1\x7f\3"),
        "reset": lambda _, cable: cable.reset(),
    }


@pytest.mark.parametrize("fault", faults())
def test_results_come_again_after_a_fault_of_the_line(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "HANDSHAKE_S", 1.0)
    wanted = result(kind="stream", instrument="nlo-1", frame=1)
    parts = [b"result/stream/nlo-1", wanted.model_dump_json().encode()]
    with results_socket() as (socket, inner):
        port = free_port()
        cable = Cable(port, int(inner.rpartition(":")[2]))
        try:
            with ResultSubscriber(f"tcp://127.0.0.1:{port}") as subscriber:
                socket.recv()
                socket.send_multipart(parts)
                assert subscriber.receive(30) == wanted
                faults()[fault](socket, cable)
                deadline = time.monotonic() + 60
                while True:
                    assert time.monotonic() < deadline
                    try:
                        if subscriber.faults:
                            socket.send_multipart(parts)
                        assert subscriber.receive(0.2) == wanted
                        break
                    except TimeoutError:
                        continue
                assert sum(subscriber.faults.values()) >= 1
        finally:
            cable.close()


def test_a_malformed_endpoint_is_told():
    with pytest.raises(OSError, match="nowhere"):
        ResultSubscriber("nowhere")
