"""The HTTP protocol: uvicorn's, with limits on connections and request heads, and strict about framing."""

from __future__ import annotations

import asyncio
import logging
import socket
from http import HTTPStatus
from typing import Final, NamedTuple

import httptools
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from senoscope.access.connection_limit import max_connections
from senoscope_client.errors import Problem

_MAX_HEADER_BYTES: Final = 16 * 1024
# Far more than a laboratory needs; each connection takes a socket and some memory.
_MAX_CONNECTIONS: Final = 512
# Requests that may follow one that is not answered yet; parsed, they take many times their length.
_MAX_PIPELINED: Final = 16
# What a chunk of a body may take besides its data, on average: a chunk may be tiny, but a body may not
# consist of the extensions of its chunks. Go's net/http has the same rule.
_CHUNK_BYTES: Final = 32
# A body is passed on in pieces of this size, one FOV for example; those of a slow body are smaller, so that
# its progress is seen.
_PIECE_BYTES: Final = 512 * 1024
_PIECE_S: Final = 0.05

# All parts of the dashboard come from this server, without inline scripts; pictures may be made from answers.
SECURITY_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; connect-src 'self'; "
        "img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}


# Invalid requests are answered; uvicorn's warnings about them could fill the log.
_LOGGER = logging.getLogger("senoscope.http")
_LOGGER.setLevel(logging.ERROR)


class _Fault(NamedTuple):
    """Why a request is refused before it reaches the application."""

    status: HTTPStatus
    code: str
    detail: str


_HEAD_TOO_LARGE: Final = _Fault(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    "header_too_large",
    f"the request line and the headers may have at most {_MAX_HEADER_BYTES} bytes together",
)


def _bad_request(detail: str) -> _Fault:
    return _Fault(HTTPStatus.BAD_REQUEST, "bad_request", detail)


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with a deadline for a request's head and limits on connections and heads.

    uvicorn itself has no time limit for the request line and the headers, and none for a connection on which
    nothing is sent; its ``limit_concurrency`` is applied only after them, too. Its parser does not limit the
    size of heads, chunk extensions and trailers, and accepts requests whose host or length is ambiguous. The
    time limit of bodies is in ``middleware/body_limit.py``.
    """

    header_timeout_s: float
    _deadline: asyncio.TimerHandle | None = None
    _answering: RequestResponseCycle | None = None  # `cycle` is the newest, which may be pipelined behind it
    _in_body = False
    _upgraded = False
    _ignores_rest = False  # the connection ends with the answer in progress
    # Received bytes that are neither those of a complete head nor of a body.
    _framing_bytes = 0
    _fault: _Fault | None = None
    _passed_on_s = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the deadline of the first head, or refuse a connection too many."""
        self.logger = _LOGGER
        # asyncio does this only for sockets that were created with a protocol number, which `create_server`
        # omits: an answer's body, or a result soon after another, would wait 40 ms for a delayed ACK.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().connection_made(transport)
        if len(self.connections) > max_connections(_MAX_CONNECTIONS, 0.5):
            self._refuse(_Fault(HTTPStatus.SERVICE_UNAVAILABLE, "busy", "too many connections are open"))
        else:
            self._update_deadline()

    def data_received(self, data: bytes) -> None:
        """Handle received bytes; the deadline ends when a head is complete."""
        if self._ignores_rest or self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        self._framing_bytes += len(data)
        try:
            self._parse(data)
        except httptools.HttpParserError as error:
            self._refuse(self._fault or _bad_request(f"this is not a valid HTTP request: {error}"))
            return
        self._framing_bytes = max(0, self._framing_bytes)
        if self._framing_bytes > _MAX_HEADER_BYTES:
            self._refuse(_bad_request("the body is sent in pieces with too much between them"))
            return
        self._update_deadline()

    def _parse(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as upgrade:
                if self._should_upgrade():
                    self.handle_websocket_upgrade()
                    break
                # To another protocol, for example `curl --http2`: answered over HTTP/1.1.
                data = data[upgrade.args[0] :]
        if not self._in_body and self._framing_bytes > _MAX_HEADER_BYTES:
            self._fail(_HEAD_TOO_LARGE)

    def _fail(self, fault: _Fault) -> None:
        self._fault = fault
        raise httptools.HttpParserError(fault.detail)

    def on_message_begin(self) -> None:
        """Begin a head."""
        super().on_message_begin()
        if len(self.pipeline) >= _MAX_PIPELINED:
            self._fail(_bad_request(f"more than {_MAX_PIPELINED} requests wait on this connection"))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header; trailers, which could replace headers that were checked, are ignored."""
        if not self._in_body:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Check the head, and begin to serve the request."""
        fault = self._fault_of_head()
        if fault is not None:
            self._fail(fault)
        if self.parser.get_http_version() == "1.0":
            self.expect_100_continue = False
        super().on_headers_complete()
        self._in_body = True
        self._framing_bytes = 0
        self._passed_on_s = self.loop.time()

    def _fault_of_head(self) -> _Fault | None:
        """Return why a head is refused that the parser accepts."""
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > _MAX_HEADER_BYTES:
            return _HEAD_TOO_LARGE
        found: dict[bytes, list[bytes]] = {}
        for name, value in self.headers:
            found.setdefault(name, []).append(value.strip().lower())
        version = self.parser.get_http_version()
        detail = None
        if version not in {"1.0", "1.1"}:
            detail = f"HTTP/{version} is not supported; use HTTP/1.1"
        elif not self.url.startswith(b"/") or b"#" in self.url:
            detail = "the target of a request must be a path, which begins with / and has no fragment"
        elif len(found.get(b"host", ())) != 1 and (b"host" in found or version == "1.1"):
            detail = "a request must have one Host header"  # access without keys depends on it
        elif b"transfer-encoding" in found and (
            found[b"transfer-encoding"] != [b"chunked"] or version == "1.0"
        ):
            detail = "Transfer-Encoding may only be chunked, is given once, and needs HTTP/1.1"
        elif self.parser.should_upgrade():
            detail = _fault_of_upgrade(version, found)
        return None if detail is None else _bad_request(detail)

    def on_chunk_header(self) -> None:
        """Count a chunk of the body."""
        self._framing_bytes -= _CHUNK_BYTES

    def on_body(self, body: bytes) -> None:
        """Add a piece of the body, and pass it on if it is large or slow; its end passes on the rest."""
        self._framing_bytes -= 3 * len(body)
        cycle = self.cycle
        if cycle.response_complete:
            return
        cycle.body += body
        now_s = self.loop.time()
        if len(cycle.body) >= _PIECE_BYTES:
            self.flow.pause_reading()
        elif now_s - self._passed_on_s < _PIECE_S:
            return
        self._passed_on_s = now_s
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        """End the body."""
        super().on_message_complete()
        self._in_body = False
        self._framing_bytes = 0

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGIApp) -> None:  # type: ignore[override]
        self._answering = cycle
        if cycle.scope["http_version"] == "1.0":
            app = _without_chunks(app, cycle)
        super()._start_asgi_task(cycle, app)  # type: ignore[arg-type]

    def on_response_complete(self) -> None:
        """Close the connection if the body was not read to its end: the client could send without end."""
        if self._answering is not None and self._answering.more_body:
            self.transport.close()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the deadline, and report the disconnect to the request in progress."""
        self._cancel_deadline()
        super().connection_lost(exc)
        if self._is_answering():
            assert self._answering is not None
            self._answering.disconnected = True
            self._answering.message_event.set()

    def handle_websocket_upgrade(self) -> None:
        """Open a WebSocket; answer a head that websockets cannot parse, which uvicorn leaves unanswered."""
        if self._is_answering():
            self._refuse(_bad_request("a WebSocket cannot be opened while a request is answered"))
            return
        self._upgraded = True
        super().handle_websocket_upgrade()
        protocol = self.transport.get_protocol()
        if isinstance(protocol, WebSocketsSansIOProtocol) and not protocol.handshake_initiated:
            self._refuse(_bad_request("the WebSocket handshake is invalid"))

    def _is_answering(self) -> bool:
        return self._answering is not None and not self._answering.response_complete

    def _update_deadline(self) -> None:
        """Start the deadline if the connection waits for a head, and cancel it if not."""
        busy = self._upgraded or self._in_body or self._is_answering()
        if busy or self.transport.is_closing():
            self._cancel_deadline()
        elif self._deadline is None and self.timeout_keep_alive_task is None:
            self._deadline = self.loop.call_later(self.header_timeout_s, self._refuse_slow_head)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse_slow_head(self) -> None:
        detail = f"the head of the request was not complete within {self.header_timeout_s:g} s"
        self._refuse(_Fault(HTTPStatus.REQUEST_TIMEOUT, "request_timeout", detail))

    def _refuse(self, fault: _Fault) -> None:
        """Answer what is not a request, or is one too many, and close the connection."""
        self._cancel_deadline()
        self._ignores_rest = True
        if self.transport.is_closing():
            return
        if self._is_answering():
            assert self._answering is not None
            if not self._answering.more_body:  # the fault is in what follows this request
                self._answering.keep_alive = False
                self.pipeline.clear()
                return
            if self._answering.response_started:
                self.transport.close()
                return
        problem = Problem(
            type=f"urn:senoscope:problem:{fault.code}",
            title=fault.status.phrase,
            status=fault.status,
            detail=fault.detail,
            code=fault.code,
        )
        headers = SECURITY_HEADERS | {"Connection": "close"}
        answer = Response(problem.model_dump_json(), fault.status, headers, "application/problem+json")
        head = b"".join(b"%b: %b\r\n" % header for header in answer.raw_headers)
        line = f"HTTP/1.1 {fault.status.value} {fault.status.phrase}\r\n".encode()
        self.transport.write(b"".join((line, head, b"\r\n", bytes(answer.body))))
        self.transport.close()


def _fault_of_upgrade(version: str, headers: dict[bytes, list[bytes]]) -> str | None:
    if version == "1.0":
        return "another protocol (Upgrade) can be used from HTTP/1.1 only"
    # The parser would take the body for the next request.
    if b"transfer-encoding" in headers or headers.get(b"content-length", [b"0"]) != [b"0"]:
        return "a request for another protocol (Upgrade) may have no body; `curl --http1.1` requests none"
    return None


def _without_chunks(app: ASGIApp, cycle: RequestResponseCycle) -> ASGIApp:
    """Return an application whose answers end with the connection, for clients that know no chunks."""
    cycle.chunked_encoding = False

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_delimited_by_close(message: Message) -> None:
            cycle.expected_content_length = len(message.get("body", b""))
            await send(message)

        await app(scope, receive, send_delimited_by_close)

    return serve
