"""Limits on the subscriptions that the service keeps."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from senoscope.outputs.zeromq import ResultPublisher
from support import zmtp_bytes


@pytest.fixture
def publisher() -> Iterator[ResultPublisher]:
    made = ResultPublisher("tcp://127.0.0.1:*", "none")
    yield made
    made.close()


@pytest.fixture
def subscriber(publisher: ResultPublisher) -> Iterator[zmq.Socket]:
    context = zmq.Context()
    made = context.socket(zmq.SUB)
    made.setsockopt(zmq.SNDHWM, 0)
    made.connect(publisher.endpoint)
    yield made
    context.destroy(0)


def receives(publisher: ResultPublisher, subscriber: zmq.Socket, topic: bytes) -> bool:
    """Return whether a message that is sent repeatedly is received before any other one."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        publisher._send(topic, b"{}")
        if subscriber.poll(50):
            return subscriber.recv_multipart() == [topic, b"{}"]
    return False


def wait_for_refusal(publisher: ResultPublisher, reason: str) -> None:
    deadline = time.monotonic() + 60
    while not publisher.refused.get(reason):
        assert time.monotonic() < deadline, publisher.refused
        time.sleep(0.02)


@pytest.mark.parametrize("topic", [b"", b"result/", b"result/stream/nlo-1"])
def test_subscribers_receive_messages_that_begin_with_their_topic(
    publisher: ResultPublisher, subscriber: zmq.Socket, topic: bytes
) -> None:
    subscriber.subscribe(topic)
    assert receives(publisher, subscriber, b"result/stream/nlo-1")
    subscriber.unsubscribe(topic)
    subscriber.subscribe(b"decision/")
    deadline = time.monotonic() + 60
    while True:  # until the end of the subscription has arrived
        publisher._send(b"result/stream/nlo-1", b"{}")
        publisher._send(b"decision/nlo-1/x", b"{}")
        if subscriber.poll(50) and subscriber.recv_multipart()[0] == b"decision/nlo-1/x":
            break
        assert time.monotonic() < deadline
    while subscriber.poll(0):
        subscriber.recv_multipart()
    publisher._send(b"result/stream/nlo-1", b"{}")
    assert receives(publisher, subscriber, b"decision/nlo-1/y")


def test_a_subscriber_with_too_many_topics_is_disconnected(
    publisher: ResultPublisher, subscriber: zmq.Socket
) -> None:
    for _ in range(1000):
        subscriber.subscribe(os.urandom(200))
    wait_for_refusal(publisher, "too_many_subscriptions")
    with zmq.Context() as context, context.socket(zmq.SUB) as other:
        other.connect(publisher.endpoint)
        other.subscribe(b"result/")
        assert receives(publisher, other, b"result/upload")


def test_subscriptions_that_ended_do_not_count(publisher: ResultPublisher, subscriber: zmq.Socket) -> None:
    for n in range(2000):
        topic = b"result/stream/%04d" % n
        subscriber.subscribe(topic)
        subscriber.unsubscribe(topic)
    subscriber.subscribe(b"result/")
    assert receives(publisher, subscriber, b"result/upload")
    assert publisher.refused == {}


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux reports the received bytes")
def test_a_subscriber_whose_message_does_not_end_is_disconnected(publisher: ResultPublisher) -> None:
    port = int(publisher.endpoint.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(zmtp_bytes.greeting() + zmtp_bytes.ready(b"SUB"))
        received = b""
        while b"READY" not in received:
            received += connection.recv(4096)
        connection.sendall(zmtp_bytes.part(b"\1" + bytes(500), more=True) * 500)
        wait_for_refusal(publisher, "unfinished_message")
