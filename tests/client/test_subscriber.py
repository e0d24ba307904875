"""Results over ZeroMQ."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import islice

import pytest
import zmq

from senoscope_client.subscriber import ResultSubscriber
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


def test_a_malformed_endpoint_is_told():
    with pytest.raises(OSError, match="nowhere"):
        ResultSubscriber("nowhere")
