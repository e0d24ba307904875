"""The HTTP server: uvicorn, with limits on connections and request heads that the application cannot set."""

from __future__ import annotations

import asyncio
import logging
import socket
from http import HTTPStatus

import h11
import uvicorn
from starlette.responses import Response
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from senoscope.access.connection_limit import max_connections
from senoscope.settings import Settings
from senoscope_client.errors import Problem

_MAX_HEADER_BYTES = 16 * 1024
# Far more than a laboratory needs; each connection takes a socket and some memory.
_MAX_CONNECTIONS = 512
# Connections that may wait to be accepted. When no more files can be opened, asyncio tries to accept this
# many each time, and logs each failure.
_BACKLOG = 128
# WebSocket clients have no reason to send anything large.
_MAX_FRAME_BYTES = 4096
# At shutdown, when everything is computed: time for clients that read slowly or still send.
_SHUTDOWN_TIMEOUT_S = 3

# All parts of the dashboard come from this server, without inline scripts; pictures may be made from answers.
SECURITY_HEADERS = {
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


class GuardedProtocol(H11Protocol):
    """uvicorn's protocol, with a deadline for a request's head and a limit on connections.

    uvicorn itself has no time limit for the request line and the headers, and none for a connection on which
    nothing is sent; its ``limit_concurrency`` is applied only after them, too. The time limit of bodies is in
    ``middleware/body_limit.py``.
    """

    header_timeout_s: float
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the deadline of the first head, or refuse a connection too many."""
        self.logger = _LOGGER
        # asyncio does this only for sockets that were created with a protocol number, which `create_server`
        # omits: an answer's body, or a result soon after another, would wait 40 ms for a delayed ACK.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().connection_made(transport)
        if len(self.connections) > max_connections(_MAX_CONNECTIONS, 0.5):
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "busy", "too many connections are open")
        else:
            self._update_deadline()

    def data_received(self, data: bytes) -> None:
        """Handle received bytes; the deadline ends when a head is complete."""
        super().data_received(data)
        self._update_deadline()

    def on_response_complete(self) -> None:
        """Close the connection if the body was not read to its end: the client could send without end."""
        # Read first: the next request may begin within the call.
        unread = self.conn.their_state is h11.SEND_BODY
        super().on_response_complete()
        if unread:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the deadline."""
        self._cancel_deadline()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are not an HTTP request, or an incomplete head that is too large."""
        if len(self.conn.trailing_data[0]) > _MAX_HEADER_BYTES:
            self._refuse(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                "header_too_large",
                f"the request line and the headers may have at most {_MAX_HEADER_BYTES} bytes together",
            )
        else:
            self._refuse(HTTPStatus.BAD_REQUEST, "bad_request", msg)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Open a WebSocket; answer a head that websockets cannot parse, which uvicorn leaves unanswered."""
        super().handle_websocket_upgrade(event)
        protocol = self.transport.get_protocol()
        if isinstance(protocol, WebSocketsSansIOProtocol) and not protocol.handshake_initiated:
            self._refuse(HTTPStatus.BAD_REQUEST, "bad_request", "the WebSocket handshake is invalid")

    def _update_deadline(self) -> None:
        """Start the deadline if the connection waits for a head, and cancel it if not."""
        if self.transport.is_closing() or self.conn.their_state is not h11.IDLE:
            self._cancel_deadline()
        elif self._deadline is None and self.timeout_keep_alive_task is None:
            self._deadline = self.loop.call_later(self.header_timeout_s, self._refuse_slow_head)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse_slow_head(self) -> None:
        self._refuse(
            HTTPStatus.REQUEST_TIMEOUT,
            "request_timeout",
            f"the head of the request was not complete within {self.header_timeout_s:g} s",
        )

    def _refuse(self, status: HTTPStatus, code: str, detail: str) -> None:
        self._cancel_deadline()
        if self.transport.is_closing():
            return
        problem = Problem(
            type=f"urn:senoscope:problem:{code}", title=status.phrase, status=status, detail=detail, code=code
        )
        headers = SECURITY_HEADERS | {"Connection": "close"}
        answer = Response(problem.model_dump_json(), status, headers, "application/problem+json")
        # Written to the transport directly: h11 sends no answer to a request that it could not parse.
        head = b"".join(b"%b: %b\r\n" % header for header in answer.raw_headers)
        line = f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode()
        self.transport.write(b"".join((line, head, b"\r\n", answer.body)))
        self.transport.close()


def server_config(app: ASGIApp, settings: Settings) -> uvicorn.Config:
    """Return uvicorn's configuration for an application."""

    class Protocol(GuardedProtocol):
        header_timeout_s = settings.header_timeout_s

    return uvicorn.Config(
        app,
        http=Protocol,
        h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
        server_header=False,
        headers=list(SECURITY_HEADERS.items()),
        proxy_headers=False,  # a client could forge its address with them
        log_config=None,
        access_log=False,
        backlog=_BACKLOG,
        ws="websockets-sansio",
        # Maps and pixels hardly compress, and compressing a message takes longer than sending it.
        ws_per_message_deflate=False,
        ws_max_size=_MAX_FRAME_BYTES,
        timeout_graceful_shutdown=_SHUTDOWN_TIMEOUT_S,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )
