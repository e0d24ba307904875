"""Clients that send too slowly or too much, and too many clients; security headers; TLS."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import httpx
import numpy as np
import psutil
import pytest
import uvicorn
from fastapi import FastAPI
from uvicorn.server import ServerState
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from senoscope.access.connection_limit import max_connections
from senoscope.api.protocol import GuardedProtocol
from senoscope.service import Service
from senoscope.settings import Settings
from senoscope_client.errors import Busy
from senoscope_client.http.live import LiveResults
from senoscope_client.zeromq.subscribers import ResultSubscriber
from support import miniature as mini
from support.commands import CompletedCommand, run_command
from support.image_bytes import npy
from support.raw_http import (
    HANDSHAKE,
    NO_CHANGES,
    NO_HANDSHAKES,
    UPGRADE,
    handshake_refused,
    problem,
    raw,
    read_all,
    trickle,
)
from support.servers import Server, ServerProcess, start_server, start_server_process, stop_server


def test_no_answer_waits_for_a_delayed_acknowledgement() -> None:
    class Protocol(GuardedProtocol):
        header_timeout_s = 5

    async def no_delay() -> int:
        config = uvicorn.Config(FastAPI(), log_config=None)
        config.load()
        made: list[Protocol] = []

        def protocol() -> Protocol:
            made.append(Protocol(config, ServerState(), {}))
            return made[-1]

        with socket.create_server(("127.0.0.1", 0)) as listener:
            server = await asyncio.get_running_loop().create_server(protocol, sock=listener)
            async with server:
                _, writer = await asyncio.open_connection(*listener.getsockname())
                while not (made and made[-1].transport):
                    await asyncio.sleep(0.01)
                accepted = made[-1].transport.get_extra_info("socket")
                found = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                writer.close()
                return found

    assert asyncio.run(no_delay())


@pytest.fixture(scope="module")
def strict(miniature: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start a server with short time limits."""
    options = ("--header-timeout-s", "0.5", "--body-timeout-s", "0.5", "--max-live-clients", "2")
    server = start_server(miniature, tmp_path_factory.mktemp("strict") / "log.txt", *options)
    yield server
    stop_server(server)


def test_a_connection_without_a_request_is_closed(strict: Server) -> None:
    with raw(strict) as connection:
        assert problem(read_all(connection)) == (408, "request_timeout")


def test_slow_headers_are_refused(strict: Server) -> None:
    with raw(strict) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n")
        trickle(connection, b"X-A: b\r\n")
        assert problem(read_all(connection)) == (408, "request_timeout")


def test_slow_headers_on_a_kept_connection_are_refused(strict: Server) -> None:
    with raw(strict) as connection:
        for _ in range(3):
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = b""
            while not answer.endswith(b"}"):
                answer += connection.recv(4096)
            time.sleep(0.3)  # the deadline is for a head, not for the connection
        connection.sendall(b"GET /livez HTTP/1.1\r\n")
        trickle(connection, b"X-A: b\r\n")
        assert problem(read_all(connection)) == (408, "request_timeout")


@pytest.mark.parametrize("media_type", ["application/x-npy", "multipart/form-data; boundary=x"])
@pytest.mark.parametrize("chunk", [b"", b"NUMPY"], ids=["silent", "trickling"])
def test_bodies_that_arrive_too_slowly_are_refused(strict: Server, media_type: str, chunk: bytes) -> None:
    with raw(strict) as connection:
        head = f"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media_type}\r\n"
        connection.sendall(head.encode() + b"Content-Length: 99999\r\n\r\n--x\r\n")
        if chunk:
            trickle(connection, chunk)
        assert problem(read_all(connection)) == (408, "request_timeout")


def test_the_connection_of_a_refused_body_is_closed(strict: Server) -> None:
    with raw(strict) as connection:
        head = b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data\r\n"
        connection.sendall(head + b"Content-Length: 99999\r\n\r\n")
        trickle(connection, b"a")
        assert problem(read_all(connection)) == (422, "invalid_request")


def test_a_slow_but_steady_sender_is_served(start: Callable[..., Server]) -> None:
    server = start("--body-timeout-s", "3")
    body = npy(mini.bright())

    def steadily() -> Iterator[bytes]:
        for start in range(0, len(body), 65536):
            time.sleep(0.45)
            yield body[start : start + 65536]

    began = time.monotonic()
    answer = httpx.post(f"{server.url}/v1/classify", content=steadily(), timeout=60)
    assert answer.status_code == 200, answer.text
    assert time.monotonic() - began > 3, "longer than the time limit of 64 KiB"


def test_a_connection_too_many_gets_503(server: Server) -> None:
    with contextlib.ExitStack() as held:
        for _ in range(512):
            held.enter_context(raw(server))
        with raw(server) as one_more:
            assert problem(read_all(one_more)) == (503, "busy")
    assert httpx.get(f"{server.url}/livez", timeout=60).status_code == 200


def test_a_head_that_is_too_large_is_refused(strict: Server) -> None:
    with raw(strict) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nX-A: " + b"a" * 40_000)
        answer = read_all(connection)
    assert problem(answer) == (431, "header_too_large")
    assert b"x-content-type-options: nosniff" in answer.lower()


def test_a_large_head_in_one_piece_is_refused_if_it_exceeds_one_read(strict: Server) -> None:
    """A head within one read, which has at most 256 KiB, is never incomplete, and takes little memory."""
    with raw(strict) as connection:
        with contextlib.suppress(OSError):  # refused while it is sent
            connection.sendall(b"GET /livez HTTP/1.1\r\nX-A: " + b"a" * 1_000_000 + b"\r\n\r\n")
        assert not read_all(connection).startswith(b"HTTP/1.1 200")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_connections_leave_files_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    limits = {64: 32, 256: 128, 1024: 512, 10_000: 512, resource.RLIM_INFINITY: 512, 4: 8}
    for soft, wanted in limits.items():
        monkeypatch.setattr(resource, "getrlimit", lambda _, soft=soft: (soft, soft))
        assert max_connections(512, 0.5) == wanted


def test_silent_connections_to_the_results_are_limited(server: Server) -> None:
    """Each takes a file descriptor; enough must remain for files and requests."""
    port = int(server.results.rpartition(":")[2])
    with contextlib.ExitStack() as held:
        for _ in range(200):
            held.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
        status = server.wait(lambda status: status["results_refused"].get("too_many", 0) >= 60)
        server.wait(lambda status: status["results_subscribers"] <= 128)
        assert status["results_refused"]["too_many"] <= 200
        assert httpx.get(f"{server.url}/livez", timeout=30).status_code == 200
    server.wait(lambda status: status["results_subscribers"] == 0)
    with ResultSubscriber(server.results) as subscriber:
        server.wait(lambda status: status["results_subscribers"] == 1)
        body = npy(mini.bright())
        deadline = time.monotonic() + 30
        while True:
            httpx.post(f"{server.url}/v1/classify", content=body, timeout=30)
            try:
                assert subscriber.receive(0.5).label == "senescent"
                break
            except TimeoutError:  # it had not subscribed yet
                assert time.monotonic() < deadline


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("form", [False, True])
def test_a_full_disk_is_reported(server: Server, monkeypatch: pytest.MonkeyPatch, form: bool) -> None:
    stack = io.BytesIO()
    np.save(stack, np.stack([mini.bright()] * 40))
    small = io.BytesIO()
    np.save(small, mini.bright())

    def full_disk(*_: object, **__: object) -> IO[bytes]:
        return Path("/dev/full").open("w+b", buffering=0)

    def post(body: bytes) -> httpx.Response:
        content = {"files": {"file": ("a.npy", body)}} if form else {"content": body}
        return httpx.post(f"{server.url}/v1/classify", timeout=60, **content)

    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "TemporaryFile", full_disk)
        full = post(stack.getvalue())
        assert (full.status_code, full.json()["code"]) == (507, "insufficient_storage")
        assert "No space left on device" in full.json()["detail"]
        assert post(small.getvalue()).status_code == 200
    assert post(stack.getvalue()).status_code == 200


def test_bytes_that_are_not_http_are_refused(strict: Server) -> None:
    with raw(strict) as connection:
        connection.sendall(b"\x16\x03\x01 nonsense\r\n\r\n")
        assert problem(read_all(connection)) == (400, "bad_request")
    assert "Invalid HTTP" not in strict.log.read_text(), "invalid requests cannot fill the log"


@pytest.mark.parametrize("sent", NO_HANDSHAKES.values(), ids=NO_HANDSHAKES)
def test_an_invalid_handshake_is_refused_and_its_connection_closed(strict: Server, sent: bytes) -> None:
    with raw(strict) as connection:
        connection.sendall(sent)
        assert handshake_refused(read_all(connection))


def test_a_websocket_without_a_route_is_answered_with_404(strict: Server) -> None:
    with raw(strict) as connection:
        connection.sendall(UPGRADE.replace(b"live", b"nowhere") + HANDSHAKE)
        assert problem(read_all(connection)) == (404, "not_found")


def test_a_live_client_too_many_gets_503(strict: Server) -> None:
    with connect(strict.ws), connect(strict.ws):
        with pytest.raises(InvalidStatus) as refused:
            connect(strict.ws)
        assert refused.value.response.status_code == 503
        assert json.loads(refused.value.response.body)["code"] == "busy"
        with pytest.raises(Busy, match="--max-live-clients"):
            LiveResults(strict.url)
        assert strict.stream()["live_clients"]["refused"] == 2
    strict.wait(lambda status: status["live_clients"]["connected"] == 0)
    with connect(strict.ws):
        strict.wait(lambda status: status["live_clients"]["connected"] == 1)


def test_a_frame_that_is_too_large_ends_the_websocket(strict: Server) -> None:
    with connect(strict.ws) as connection:
        connection.send("a" * 100_000)
        with pytest.raises(ConnectionClosed) as closed:
            connection.recv(timeout=30)
    assert closed.value.rcvd.code == 1009


@pytest.mark.parametrize(
    ("body", "media_type", "status", "code"),
    NO_CHANGES,
    ids=lambda value: value[:30] if isinstance(value, bytes) else "long list" if callable(value) else None,
)
def test_an_invalid_change_of_the_model_takes_little_memory_and_gets_a_short_answer(
    server_process: ServerProcess,
    body: bytes | Callable[[], bytes],
    media_type: str,
    status: int,
    code: str,
) -> None:
    content = body() if callable(body) else body
    process = psutil.Process(server_process.process.pid)
    before = process.memory_info().rss
    answer = httpx.post(
        f"{server_process.url}/v1/model", content=content, headers={"Content-Type": media_type}, timeout=60
    )
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text[:500]
    assert len(answer.content) < 1000
    assert process.memory_info().rss - before < 50e6


def test_every_answer_has_the_security_headers(server: Server) -> None:
    answers = [
        httpx.get(f"{server.url}/livez"),
        httpx.get(f"{server.url}/v1/nowhere"),
        httpx.post(f"{server.url}/v1/classify", content=b"nonsense"),
        httpx.post(f"{server.url}/v1/classify", content=bytes(257 << 20), timeout=60),
        httpx.get(f"{server.url}/v1/model", headers={"Origin": "http://evil.example"}),
    ]
    assert [answer.status_code for answer in answers] == [200, 404, 415, 413, 403]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        policy = answer.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert "server" not in answer.headers


def serve(*options: str, **environment: str) -> CompletedCommand:
    return run_command("senoscope", "serve", "--port", 0, "--stream", "", *options, **environment)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "0.0.0.0", "--results", ""], "0.0.0.0 can be used by other machines without a key"),
        (["--results", "tcp://*:0"], "tcp://*:0 sends results to any machine"),
        (["--results", "tcp://0.0.0.0:5999"], "--results-allowed-keys"),
        (["--api-key", "short"], "--api-key or SENOSCOPE_API_KEY"),
        (["--api-key", "blanks and ümlauts are no key at all"], "--api-key or SENOSCOPE_API_KEY"),
        (["--api-keys", "nowhere.json"], "senoscope keys new --api-keys nowhere.json"),
        (["--tls-cert", "cert.pem"], "--tls-cert and --tls-key belong together"),
        (["--results-allowed-keys", "."], "needs --curve-keypair"),
    ],
)
def test_it_does_not_start_without_access_control_on_a_network(
    miniature: Path, options: list[str], message: str
) -> None:
    done = serve("--model", str(miniature), *options)
    assert done.returncode in {1, 2}
    (line,) = done.stderr.strip().splitlines()
    assert message in line
    assert "short" not in line
    if "machine" in line:
        assert "--insecure" in line
        assert "keys" in line


@pytest.mark.parametrize("option", [["--insecure"], ["--api-key", "k" * 32]])
def test_it_starts_on_a_network_with_either_option(
    miniature: Path, tmp_path: Path, option: list[str]
) -> None:
    server = start_server(miniature, tmp_path / "log.txt", "--host", "0.0.0.0", *option)
    try:
        status = httpx.get(f"{server.url}/v1/model", headers={"Host": "any.example"}).status_code
        assert status == (200 if "--insecure" in option else 401)
    finally:
        stop_server(server)
    warning = "insecure" if "--insecure" in option else "unencrypted"
    assert warning in server.log.read_text()


def test_clients_are_not_sent_folders_of_the_server(tmp_path: Path) -> None:
    """`/readyz` and every 503 have the reason without the folder, which is only in the log."""
    failures: list[Exception] = []
    failed = threading.Event()
    service = Service(
        Settings(model=str(tmp_path / "secret folder"), stream="", results=""),
        on_failure=lambda error: (failures.append(error), failed.set()),
    )
    service.start()
    assert failed.wait(30)
    assert "secret folder" in str(failures[0])
    assert "see its log" in service.not_ready_reason()
    assert "secret folder" not in service.not_ready_reason()
    service.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=localhost",
            ),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
    )
    return cert, key


@pytest.mark.system("openssl")
def test_tls(miniature: Path, tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    tls = ("--tls-cert", str(cert), "--tls-key", str(key))
    server = start_server_process(miniature, tmp_path / "log.txt", *tls, "--api-key", "k" * 32, wait=False)
    try:
        server.wait_for_log("ready")
        assert "listens on https://127.0.0.1" in server.log.read_text()
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{server.url}/livez")
        url = server.url.replace("http", "https")
        with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
            httpx.get(f"{url}/livez")
        np.save(tmp_path / "a.npy", mini.bright())
        client = [sys.executable, "-m", "senoscope_client.cli"]
        trusting = os.environ | {"SSL_CERT_FILE": str(cert), "SENOSCOPE_API_KEY": "k" * 32}
        watch = subprocess.Popen(
            [*client, "watch", "--url", url, "--count", "1"], stdout=subprocess.PIPE, text=True, env=trusting
        )
        assert watch.stdout.readline().startswith("source"), "connected"
        classify = [*client, "classify", str(tmp_path / "a.npy"), "--url", url]
        done = subprocess.run(classify, capture_output=True, text=True, timeout=60, check=False, env=trusting)
        assert "senescent" in done.stdout, done.stderr
        assert "senescent" in watch.communicate(timeout=30)[0]
    finally:
        stop_server(server)


@pytest.mark.system("openssl")
def test_a_bad_certificate_is_one_line(miniature: Path, certificate: tuple[Path, Path]) -> None:
    cert, _ = certificate
    done = serve("--model", str(miniature), "--tls-cert", str(cert), "--tls-key", str(cert), "--results", "")
    assert done.returncode == 1
    assert done.stderr.startswith("senoscope: TLS cannot be used with")
    assert "Traceback" not in done.stderr
