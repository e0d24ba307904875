"""Servers with prepared responses, which stand in for the service in tests of its clients."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from websockets.sync.server import serve

from senoscope_client.models.result import (
    Flag,
    ModelRef,
    Normalization,
    Result,
    Source,
    Timing,
    Uncertainty,
)


def result(**source: Any) -> Result:
    """Return a result that differs from others in its id and its source."""
    return Result(
        id=uuid.uuid4(),
        source=Source(**({"kind": "upload"} | source)),
        label="senescent",
        probability=0.75,
        networks={"resnet50": 0.5, "xception": 1.0},
        uncertainty=Uncertainty(entropy=0.8, mutual_information=0.3, agreement=0.5),
        flags=[Flag(code="saturated", message="10 % of SRS", channel="SRS", value=0.1)],
        normalization=Normalization(source="model", low=[0, 0, 0], high=[1, 1, 1]),
        model=ModelRef(name="starter", version="1", digest="0" * 64),
        timing_ms=Timing(queue=1, compute=2, total=3.5),
        deadline_met=True,
    )


class HttpDouble:
    """An HTTP server with prepared responses.

    Attributes
    ----------
    requests : list of tuple
        Method, target, headers and body of each request that was received.
    responses : dict
        Status, headers and body by path.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.responses: dict[str, tuple[int, dict[str, str], bytes]] = {}

    def respond(self, path: str, body: Any, status: int = 200, **headers: str) -> None:
        """Set the response to requests of a path."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.responses[path] = (status, {k.replace("_", "-"): v for k, v in headers.items()}, data)


@contextmanager
def http_double() -> Iterator[HttpDouble]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            else:
                body = self.rfile.read(length)
            double.requests.append((self.command, self.path, dict(self.headers), body))
            status, headers, response = double.responses[self.path.partition("?")[0]]
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(response))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(response)

        do_POST = do_GET  # noqa: N815 (a name of the base class)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    double = HttpDouble(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield double
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def form_file(headers: dict[str, str], body: bytes) -> tuple[str | None, str, bytes]:
    """Return name, media type and content of the one file in a posted form."""
    head = f"Content-Type: {headers['Content-Type']}\r\n\r\n".encode()
    (part,) = BytesParser(policy=HTTP).parsebytes(head + body).iter_parts()
    return part.get_filename(), part.get_content_type(), part.get_payload(decode=True)


@contextmanager
def live_double(messages: list[str], code: int = 1000, reason: str = "") -> Iterator[tuple[str, list[str]]]:
    """Run a WebSocket server that sends the messages and closes; yield its URL and the requested paths."""
    paths: list[str] = []

    def handle(connection: Any) -> None:
        paths.append(connection.request.path)
        for message in messages:
            connection.send(message)
        if code:
            connection.close(code, reason)
        else:  # keep the connection open until the client closes it
            for _ in connection:
                pass

    with serve(handle, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.socket.getsockname()[1]}", paths
        finally:
            server.shutdown()
            thread.join()
