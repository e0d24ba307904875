"""Which requests both clients send again, against services that fail in each way."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from senoscope_client.errors import Busy, NotReady, SenoscopeError, Unreachable
from senoscope_client.http.async_client import AsyncClient
from senoscope_client.http.client import Client
from senoscope_client.http.retries import Retries
from senoscope_client.models.responses import ClassifyResponse
from support.service_double import result

QUICK = Retries(times=3, first_s=0.001)
HANG_UP, STALL = object(), object()


def response(status: int, body: bytes, **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} x", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def problem_response(error: SenoscopeError, **headers: str) -> bytes:
    return response(error.status, error.problem().model_dump_json().encode(), **headers)


STREAM = response(200, b'{"live": {}}')
CLASSIFIED = response(200, ClassifyResponse(results=(result(),), count=1).model_dump_json().encode())
BUSY = problem_response(Busy("full"), Retry_After="0")


class ScriptedServer:
    """A server that follows a script, one action per request, and repeats the last action."""

    def __init__(self, script: list) -> None:
        self.script = script
        self.requests: list[bytes] = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self._stalled: list[socket.socket] = []

    def run(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            request = b""
            while b"\r\n\r\n" not in request:
                request += connection.recv(65536)
            head, _, body = request.partition(b"\r\n\r\n")
            length = next(
                (
                    int(line[15:])
                    for line in head.split(b"\r\n")
                    if line.lower().startswith(b"content-length:")
                ),
                0,
            )
            while len(body) < length:
                body += connection.recv(65536)
            self.requests.append(head)
            action = self.script.pop(0) if len(self.script) > 1 else self.script[0]
            if action is STALL:
                self._stalled.append(connection)
                continue
            if action is not HANG_UP:
                connection.sendall(action)
            connection.close()

    def close(self) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        for connection in self._stalled:
            connection.close()


@contextmanager
def scripted(*script) -> Iterator[ScriptedServer]:
    server = ScriptedServer(list(script))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join()


def call_sync(url: str, method: str, *arguments, timeout: float = 10.0, retries: Retries = QUICK):
    with Client(url, timeout, retries=retries) as client:
        return getattr(client, method)(*arguments)


def call_async(url: str, method: str, *arguments, timeout: float = 10.0, retries: Retries = QUICK):
    async def main():
        async with AsyncClient(url, timeout, retries=retries) as client:
            return await getattr(client, method)(*arguments)

    return asyncio.run(main())


@pytest.fixture(params=[call_sync, call_async])
def call(request: pytest.FixtureRequest) -> Callable:
    return request.param


@pytest.mark.parametrize("fault", [HANG_UP, BUSY, response(502, b""), response(504, b"")])
def test_a_read_only_request_is_sent_again(call: Callable, fault: object) -> None:
    with scripted(fault, fault, STREAM) as server:
        assert call(server.url, "stream") == {"live": {}}
        assert len(server.requests) == 3


def test_a_stack_is_posted_again_if_the_service_was_busy(call: Callable) -> None:
    with scripted(BUSY, BUSY, CLASSIFIED) as server:
        assert len(call(server.url, "classify", b"II*\0 and so on")) == 1
        assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (HANG_UP, Unreachable),
        (response(502, b""), SenoscopeError),
        (problem_response(Busy("full")), Busy),
        (problem_response(Busy("full"), Retry_After="3600"), Busy),
        (problem_response(NotReady("stopping")), NotReady),
    ],
)
def test_a_stack_that_may_have_been_classified_or_must_wait_long_is_posted_once(
    call: Callable, fault: object, error: type[Exception]
) -> None:
    with scripted(fault, CLASSIFIED) as server:
        with pytest.raises(error):
            call(server.url, "classify", b"II*\0 and so on")
        assert len(server.requests) == 1


def test_a_stack_is_posted_once_the_service_has_started(call: Callable) -> None:
    with scripted(CLASSIFIED) as server:
        url, port = server.url, int(server.url.rpartition(":")[2])
    late: list[ScriptedServer] = []

    def start_late() -> None:
        time.sleep(0.3)
        late.append(ScriptedServer([CLASSIFIED]))
        late[0].socket.close()
        late[0].socket = socket.create_server(("127.0.0.1", port))
        late[0].run()

    thread = threading.Thread(target=start_late)
    thread.start()
    many = Retries(times=600, first_s=0.05, longest_s=0.1)
    assert len(call(url, "classify", b"II*\0 and so on", retries=many)) == 1
    late[0].close()
    thread.join()
    assert len(late[0].requests) == 1


def test_a_request_is_not_sent_again_after_a_time_out(call: Callable) -> None:
    with scripted(STALL) as server:
        with pytest.raises(Unreachable, match="in time"):
            call(server.url, "stream", timeout=0.2)
        assert len(server.requests) == 1


def test_the_number_of_retries_is_limited(call: Callable) -> None:
    with scripted(HANG_UP) as server:
        with pytest.raises(Unreachable):
            call(server.url, "stream")
        assert len(server.requests) == 4
    with scripted(BUSY) as server:
        with pytest.raises(Busy):
            call(server.url, "classify", b"x", retries=Retries(times=0))
        assert len(server.requests) == 1
