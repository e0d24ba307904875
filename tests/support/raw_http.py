"""Raw HTTP: requests that no client library sends, and the expected answers."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable

import pytest

from support.servers import Server


def raw(server: Server) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=60)
    connection.settimeout(60)
    return connection


def read_all(connection: socket.socket) -> bytes:
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(65536):
            answer += chunk
    return answer


def problem(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    document = json.loads(body)
    assert int(head.split()[1]) == document["status"]
    return document["status"], document["code"]


def handshake_refused(answer: bytes) -> bool:
    """Return whether a handshake was answered with an error of the client."""
    return answer.startswith(b"HTTP/1.1 4")


def trickle(connection: socket.socket, chunk: bytes, pause_s: float = 0.05) -> None:
    """Send until the server closes the connection."""
    with contextlib.suppress(OSError):
        for _ in range(int(20 / pause_s)):
            connection.sendall(chunk)
            time.sleep(pause_s)
        pytest.fail("the server did not close the connection")


UPGRADE = b"GET /v1/live HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"


HANDSHAKE = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"


NO_HANDSHAKES = {
    "no key": UPGRADE + b"Sec-WebSocket-Version: 13\r\n\r\n",
    "bad key": UPGRADE + b"Sec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n",
    "key that is no text": UPGRADE + b"Sec-WebSocket-Key: \xff\r\nSec-WebSocket-Version: 13\r\n\r\n",
    "other version": UPGRADE + HANDSHAKE.replace(b"13", b"99"),
    "POST": UPGRADE.replace(b"GET", b"POST") + HANDSHAKE,
    "with a body": UPGRADE + b"Content-Length: 5\r\n" + HANDSHAKE + b"abcde",
    "long header": UPGRADE + b"X: " + b"a" * 9000 + b"\r\n" + HANDSHAKE,
    "200 headers": UPGRADE + b"X: a\r\n" * 200 + HANDSHAKE,
    "two origins": UPGRADE + b"Origin: http://a\r\nOrigin: http://b\r\n" + HANDSHAKE,
}


JSON = "application/json"


NO_CHANGES: list[tuple[bytes | Callable[[], bytes], str, int, str]] = [
    (b"", JSON, 422, "invalid_request"),
    (b"{", JSON, 422, "invalid_request"),
    (b"[" * 50_000, JSON, 422, "invalid_request"),
    (b"9" * 50_000, JSON, 422, "invalid_request"),
    (b"\xff\xfe", JSON, 422, "invalid_request"),
    (b'"first"', JSON, 422, "invalid_request"),
    (b'{"name": 5}', JSON, 422, "invalid_request"),
    (b'{"name": ""}', JSON, 422, "invalid_request"),
    (b'{"name": "\\ud800"}', JSON, 422, "invalid_request"),
    (b'{"name": "first", "%s": 1}' % (b"x" * 50_000), JSON, 422, "invalid_request"),
    (lambda: b"[" + b"[]," * 30_000_000 + b"[]]", JSON, 413, "payload_too_large"),
    (b'{"name": "first"}', "text/plain", 415, "unsupported_media_type"),
]
