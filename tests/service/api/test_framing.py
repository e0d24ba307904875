"""Where a request ends, and what it is: requests that can be read in two ways are refused."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from support import miniature as mini
from support.image_bytes import npy
from support.raw_http import HANDSHAKE, UPGRADE, problem, raw, read_all
from support.servers import Server, ServerThread, start_server, stop_server
from support.slow_engine import SlowEngine

HOST = b"Host: localhost\r\n"
GET = b"GET /livez HTTP/1.1\r\n" + HOST
LAST = GET + b"Connection: close\r\n\r\n"
POST = b"POST /v1/classify HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
TEXT = b"5\r\nhello\r\n"

INVALID = {
    "length and chunks": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "equal lengths": POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na",
    "different lengths": POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\na",
    "list of lengths": POST + b"Content-Length: 1, 1\r\n\r\na",
    "signed length": POST + b"Content-Length: +1\r\n\r\na",
    "hexadecimal length": POST + b"Content-Length: 0x1\r\n\r\na",
    "length with an underscore": POST + b"Content-Length: 1_0\r\n\r\n0123456789",
    "empty length": POST + b"Content-Length:\r\n\r\n",
    "length of 65 bits": POST + b"Content-Length: 18446744073709551617\r\n\r\na",
    "two codings": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked once more": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "no known coding": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "coding with a parameter": POST + b"Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
    "coding after a control character": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": CHUNKED.replace(b"HTTP/1.1", b"HTTP/1.0") + b"0\r\n\r\n",
    "bare line feeds": b"GET /livez HTTP/1.1\nHost: localhost\n\n",
    "bare line feed after a header": b"GET /livez HTTP/1.1\r\nHost: localhost\nX: y\r\n\r\n",
    "bare carriage return": b"GET /livez HTTP/1.1\r\nHost: localhost\rX: y\r\n\r\n",
    "folded header": GET + b"X: a\r\n b\r\n\r\n",
    "folded first header": b"GET /livez HTTP/1.1\r\n X: a\r\n" + HOST + b"\r\n",
    "no colon": GET + b"Xa\r\n\r\n",
    "space before the colon": GET + b"X : a\r\n\r\n",
    "empty name": GET + b": a\r\n\r\n",
    "name that is no token": GET + b"X(: a\r\n\r\n",
    "name that is no ASCII": GET + b"X\xff: a\r\n\r\n",
    "NUL in a value": GET + b"X: a\x00b\r\n\r\n",
    "control character in a value": GET + b"X: a\x01b\r\n\r\n",
    "DEL in a value": GET + b"X: a\x7fb\r\n\r\n",
    "no host": b"GET /livez HTTP/1.1\r\n\r\n",
    "two hosts": GET + HOST + b"\r\n",
    "two hosts in HTTP/1.0": b"GET /livez HTTP/1.0\r\n" + HOST + HOST + b"\r\n",
    "no host for a WebSocket": UPGRADE.replace(HOST, b"") + HANDSHAKE,
    "whole address": b"GET http://evil.example/livez HTTP/1.1\r\n" + HOST + b"\r\n",
    "no slash": b"GET livez HTTP/1.1\r\n" + HOST + b"\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
    "authority": b"CONNECT evil.example:80 HTTP/1.1\r\n" + HOST + b"\r\n",
    "fragment": b"GET /livez#a HTTP/1.1\r\n" + HOST + b"\r\n",
    "target that is no ASCII": b"GET /livez\xff HTTP/1.1\r\n" + HOST + b"\r\n",
    "NUL in the target": b"GET /liv\x00ez HTTP/1.1\r\n" + HOST + b"\r\n",
    "space in the target": b"GET /liv ez HTTP/1.1\r\n" + HOST + b"\r\n",
    "unknown method": b"FOO /livez HTTP/1.1\r\n" + HOST + b"\r\n",
    "HTTP/0.9": b"GET /livez\r\n\r\n",
    "HTTP/2": b"GET /livez HTTP/2.0\r\n" + HOST + b"\r\n",
    "preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "other protocol with a body": POST
    + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\nhello",
    "WebSocket in HTTP/1.0": (UPGRADE + HANDSHAKE).replace(b"HTTP/1.1", b"HTTP/1.0"),
    "WebSocket with a missing body": UPGRADE + b"Content-Length: 5\r\n" + HANDSHAKE + b"ab",
}

INVALID_CHUNKS = {
    "bare line feed": b"5\nhello\r\n",
    "data without an end": b"5\r\nhelloX\r\n",
    "space": b"5 \r\nhello\r\n",
    "hexadecimal prefix": b"0x5\r\nhello\r\n",
    "sign": b"-5\r\nhello\r\n",
    "65 bits": b"10000000000000005\r\nhello\r\n",
    "no size": b"\r\nhello\r\n",
    "trailer that is no header": b"5\r\nhello\r\n0\r\nX Y: a\r\n\r\n",
    "length as a trailer": b"5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n",
}


@pytest.fixture(scope="module")
def patient(miniature: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start a server that waits longer for a head or a body than any of these tests."""
    folder = tmp_path_factory.mktemp("patient")
    server = start_server(miniature, folder / "log.txt", "--header-timeout-s", "60", "--body-timeout-s", "60")
    yield server
    stop_server(server)


def answers(server: Server, *pieces: bytes) -> bytes:
    """Send pieces, and return all answers until the server closes the connection."""
    with raw(server) as connection:
        with contextlib.suppress(OSError):  # refused while it is sent
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(0.05 if len(pieces) > 1 else 0)
        return read_all(connection)


def statuses(answer: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]


@pytest.mark.parametrize("sent", INVALID.values(), ids=INVALID)
def test_an_invalid_head_is_refused_and_what_follows_is_not_served(patient: Server, sent: bytes) -> None:
    answer = answers(patient, sent + LAST)
    assert problem(answer) == (400, "bad_request")
    assert statuses(answer) == [400]


@pytest.mark.parametrize("sent", INVALID_CHUNKS.values(), ids=INVALID_CHUNKS)
def test_invalid_chunks_are_refused_and_what_follows_is_not_served(patient: Server, sent: bytes) -> None:
    answer = answers(patient, CHUNKED + sent + b"0\r\n\r\n" + LAST)
    assert problem(answer) == (400, "bad_request")
    assert statuses(answer) == [400]


@pytest.mark.parametrize(
    ("begin", "between"),
    [(b"", b"1;" + b"a" * 4000 + b"\r\nb\r\n"), (b"0\r\n", b"X: %s\r\n" % (b"a" * 4000))],
    ids=["extensions", "trailers"],
)
def test_bodies_with_much_between_their_pieces_are_refused(
    patient: Server, begin: bytes, between: bytes
) -> None:
    answer = answers(patient, CHUNKED + begin, *[between] * 5)
    assert statuses(answer) == [400]
    assert b"too much between" in answer


def test_tiny_chunks_are_no_fault(patient: Server) -> None:
    body = npy(mini.bright(1, 8, 8))
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    answer = answers(
        patient, CHUNKED, *(chunks[n : n + 999] for n in range(0, len(chunks), 999)), b"0\r\n\r\n" + LAST
    )
    assert statuses(answer) == [422, 200]


def test_a_trailer_replaces_no_header(patient: Server) -> None:
    trailers = b"0\r\nHost: evil.example\r\nAuthorization: x\r\n\r\n"
    assert statuses(answers(patient, CHUNKED + TEXT, trailers + LAST)) == [415, 200]


@pytest.mark.parametrize(
    "head",
    [
        GET + b"a:b\r\n" * 4000 + b"\r\n",
        GET + b"X: " + b"a" * 20_000 + b"\r\n\r\n",
        b"GET /livez?" + b"a" * 20_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    ],
    ids=["headers", "header", "target"],
)
def test_a_complete_head_that_is_too_large_is_refused(patient: Server, head: bytes) -> None:
    assert problem(answers(patient, head)) == (431, "header_too_large")


@pytest.mark.parametrize("pause", [False, True])
def test_pipelined_requests_are_answered_in_order(patient: Server, pause: bool) -> None:
    post = POST + b"Content-Length: 5\r\n\r\nhello"
    pieces = (post, GET + b"\r\n", post, LAST)
    assert statuses(answers(patient, *(pieces if pause else (b"".join(pieces),)))) == [415, 200, 415, 200]


def test_requests_that_wait_on_a_connection_are_limited(patient: Server) -> None:
    found = statuses(answers(patient, (GET + b"\r\n") * 5000))
    assert set(found) == {200}
    assert len(found) < 50


def test_an_invalid_request_behind_another_ends_the_connection_after_its_answer(patient: Server) -> None:
    answer = answers(patient, GET + b"\r\n" + b"\x00\r\n\r\n" + LAST)
    assert statuses(answer) == [200]
    assert answer.endswith(b'{"status":"alive"}'), "the answer is whole"


def test_a_websocket_is_not_opened_behind_another_request(patient: Server) -> None:
    assert statuses(answers(patient, GET + b"\r\n" + UPGRADE + HANDSHAKE)) == [200]


@pytest.mark.parametrize("pause", [False, True])
def test_an_upgrade_to_another_protocol_is_ignored(patient: Server, pause: bool) -> None:
    h2c = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
    pieces = (GET + h2c + b"\r\n", LAST)
    assert statuses(answers(patient, *(pieces if pause else (b"".join(pieces),)))) == [200, 200]


def test_http_1_0_needs_no_host_and_gets_no_chunks(patient: Server) -> None:
    answer = answers(patient, b"GET /v1/results/export?format=csv HTTP/1.0\r\n\r\n")
    assert statuses(answer) == [200]
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert b"content-length" not in head.lower(), "a stream of unknown length"
    assert body.startswith(b'"id",')


def test_the_client_is_asked_for_a_body_only_if_it_waits_for_that(patient: Server) -> None:
    head = b"Content-Length: 5\r\nExpect: 100-continue\r\n"
    assert statuses(answers(patient, POST + head + b"Connection: close\r\n\r\n", b"hello")) == [100, 415]
    old = POST.replace(b"HTTP/1.1", b"HTTP/1.0")
    assert statuses(answers(patient, old + head + b"\r\n", b"hello")) == [415]


def test_a_head_request_gets_no_body(patient: Server) -> None:
    answer = answers(patient, LAST.replace(b"GET", b"HEAD"))
    assert statuses(answer) == [200]
    assert answer.endswith(b"\r\n\r\n")


def test_a_disconnect_with_another_request_behind_a_stack_is_noticed(
    server: ServerThread,
) -> None:
    stack = npy(np.zeros((30, 3, 250, 300), np.uint8))
    before = server.stream()["batch"]["classified"]
    with SlowEngine(server).held():
        with raw(server) as connection:
            connection.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(stack) + stack + GET + b"\r\n")
            server.wait(lambda status: status["batch"]["waiting"] > 0)
        server.wait(lambda status: status["batch"]["waiting"] == 0)
    assert server.stream()["batch"]["classified"] - before < 30
