"""The subscriber to results over ZeroMQ."""

from __future__ import annotations

import time
from itertools import islice
from typing import Any

import pytest
import zmq

from senoscope_client.errors import Unauthorized
from senoscope_client.zeromq import link
from senoscope_client.zeromq import subscribers as subscriber_module
from senoscope_client.zeromq.subscribers import ResultSubscriber
from support import zmtp_bytes
from support.network_cable import Cable
from support.results_lines import FAULTS, results_line, results_socket
from support.service_double import result


def test_results_are_received_in_order_and_invalid_messages_are_counted():
    wanted = [result(kind="stream", instrument="nlo-1", frame=n) for n in range(3)]
    with results_socket() as (socket, endpoint), ResultSubscriber(endpoint, timeout_s=30) as subscriber:
        socket.recv()
        for r in wanted:
            socket.send_multipart([b"result/stream/nlo-1", b"{}"])
            socket.send_multipart([b"result/stream/nlo-1"])
            socket.send_multipart([b"result/stream/nlo-1", r.model_dump_json().encode()])
        received = list(islice(subscriber, 3))
    assert received == wanted
    assert subscriber.rejected == 6


def test_a_topic_selects_results():
    stream, upload = result(kind="stream", instrument="nlo-1"), result(kind="upload")
    with (
        results_socket() as (socket, endpoint),
        ResultSubscriber(endpoint, topic="result/upload") as subscriber,
    ):
        socket.recv()
        socket.send_multipart([b"result/stream/nlo-1", stream.model_dump_json().encode()])
        socket.send_multipart([b"result/upload", upload.model_dump_json().encode()])
        assert subscriber.receive(60) == upload


def test_receive_times_out():
    with results_socket() as (_, endpoint), ResultSubscriber(endpoint, timeout_s=0.05) as subscriber:
        with pytest.raises(TimeoutError, match=r"0\.05 s"):
            next(iter(subscriber))
        with pytest.raises(TimeoutError, match="0 s"):
            subscriber.receive(0)


def test_receive_times_out_while_invalid_messages_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    """At any rate of messages: here they are not even sent."""
    invalid: list[object] = []
    with results_socket() as (_, endpoint), ResultSubscriber(endpoint) as subscriber:
        monkeypatch.setattr(subscriber._socket, "poll", lambda _: len(invalid) < 10_000_000)
        monkeypatch.setattr(subscriber, "_parse", invalid.append)
        monkeypatch.setattr(subscriber_module, "receive_parts", lambda _: [])
        with pytest.raises(TimeoutError):
            subscriber.receive(0.2)
    assert 0 < len(invalid) < 10_000_000


def test_a_refused_key_is_raised_while_invalid_messages_arrive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rounds = iter(range(10_000_000))
    with results_socket() as (_, endpoint), ResultSubscriber(endpoint) as subscriber:
        monkeypatch.setattr(subscriber._socket, "poll", lambda _: next(rounds) + 1)
        monkeypatch.setattr(subscriber, "_parse", lambda _: None)
        monkeypatch.setattr(subscriber_module, "receive_parts", lambda _: [])
        monkeypatch.setattr(subscriber._link, "events", lambda: [link.LinkEvent("unknown_key", final=True)])
        with pytest.raises(Unauthorized):
            subscriber.receive()


def _many_parts(socket: zmq.Socket[Any], cable: Cable) -> None:
    socket.send_multipart([b"result/stream/nlo-1", *[b""] * 100_000])


def _endless(socket: zmq.Socket[Any], cable: Cable) -> None:
    endless = zmtp_bytes.endless(b"result/stream/nlo-1", 32 << 20)
    cable.greet_next(zmtp_bytes.greeting() + zmtp_bytes.ready(b"PUB"), then=endless)


ENDLESS = {"many parts": _many_parts, "no end": _endless}


@pytest.mark.parametrize("fault", [*FAULTS, *ENDLESS])
def test_results_are_received_again_after_a_fault(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "HANDSHAKE_S", 1.0)
    monkeypatch.setattr(link, "_MAX_UNFINISHED_BYTES", 16 << 20)
    wanted = result(kind="stream", instrument="nlo-1", frame=1)
    parts = [b"result/stream/nlo-1", wanted.model_dump_json().encode()]
    with results_line() as (socket, cable, endpoint), ResultSubscriber(endpoint) as subscriber:
        socket.recv()
        socket.send_multipart(parts)
        assert subscriber.receive(30) == wanted
        (FAULTS | ENDLESS)[fault](socket, cable)
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
        if fault in ENDLESS:
            assert subscriber.faults["protocol"] >= 1


def test_an_invalid_endpoint_is_rejected():
    with pytest.raises(OSError, match="nowhere"):
        ResultSubscriber("nowhere")
