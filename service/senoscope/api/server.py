"""The HTTP server: uvicorn, with limits on connections and request heads that the application cannot set."""

from __future__ import annotations

import asyncio
import logging
import socket
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import h11
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from websockets.http11 import Request
from websockets.server import ServerProtocol

from senoscope.access.connection_limit import max_connections
from senoscope.settings import Settings
from senoscope_client.errors import Problem
from senoscope_client.images.sanitize import sanitize_for_display

if TYPE_CHECKING:
    from fastapi import FastAPI

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

_ENCODED = {name.lower().encode(): value.encode() for name, value in SECURITY_HEADERS.items()}


class SecurityHeaders:
    """ASGI application around another one, which adds security headers to errors and refused WebSockets too.

    Parameters
    ----------
    app : ASGI application
        Headers that it sets itself are kept.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] in {"http.response.start", "websocket.http.response.start"}:
                present = dict(message.get("headers", ()))
                added = [(name, value) for name, value in _ENCODED.items() if name not in present]
                message = {**message, "headers": [*message.get("headers", ()), *added]}
            await send(message)

        await self._app(scope, receive, send_with_headers)


class GuardedProtocol(H11Protocol):
    """uvicorn's protocol, with a deadline for a request's head and a limit on connections.

    uvicorn itself has no time limit for the request line and the headers, and none for a connection on which
    nothing is sent; the application is called only after them. The time limit of bodies is in
    ``middleware/body_limit.py``.
    """

    header_timeout_s: float
    _deadline: asyncio.TimerHandle | None = None
    _head_too_large = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Limit the size of heads, and start the deadline of the first one."""
        self.logger = _LOGGER
        # asyncio does this only for sockets that were created with a protocol number, which `create_server`
        # omits: an answer's body, or a result soon after another, would wait 40 ms for a delayed ACK.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().connection_made(transport)
        next_event = self.conn.next_event

        def limited_event() -> Any:
            """Limit the size of every head; h11 itself limits only heads that arrive in pieces."""
            event = next_event()
            if isinstance(event, h11.Request) and _size_of(event) > _MAX_HEADER_BYTES:
                self._head_too_large = True
                raise h11.RemoteProtocolError("the head is too large")
            return event

        self.conn.next_event = limited_event  # type: ignore[method-assign]
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
        """Answer bytes that are not an HTTP request, or a request whose head is too large."""
        if self._head_too_large or len(self.conn.trailing_data[0]) > _MAX_HEADER_BYTES:
            self._refuse(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                "header_too_large",
                f"the request line and the headers may have at most {_MAX_HEADER_BYTES} bytes together",
            )
        else:
            self._refuse(HTTPStatus.BAD_REQUEST, "bad_request", msg)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Open a WebSocket, or answer why not; uvicorn does not answer invalid handshakes."""
        reason = _handshake_error(event)
        if reason is None:
            super().handle_websocket_upgrade(event)
        else:
            self._refuse(
                HTTPStatus.BAD_REQUEST,
                "bad_request",
                f"the WebSocket handshake is invalid: {sanitize_for_display(reason, 200)}",
            )

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
            type=f"urn:senoscope:problem:{code}",
            title=status.phrase,
            status=status,
            detail=detail,
            code=code,
        )
        body = problem.model_dump_json().encode()
        headers = {
            **SECURITY_HEADERS,
            "Content-Type": "application/problem+json",
            "Content-Length": str(len(body)),
            "Connection": "close",
        }
        # Written to the transport directly: h11 sends no answer to a request that it could not parse.
        head = [f"HTTP/1.1 {status.value} {status.phrase}", *(f"{k}: {v}" for k, v in headers.items())]
        self.transport.write("\r\n".join([*head, "", ""]).encode("ascii") + body)
        self.transport.close()


def _size_of(head: h11.Request) -> int:
    """Return the number of bytes of a request line and its headers, except for optional spaces."""
    headers = sum(len(name) + len(value) + 4 for name, value in head.headers)
    return len(head.method) + len(head.target) + headers


def _handshake_error(event: h11.Request) -> str | None:
    """Return why a request is not a WebSocket handshake to uvicorn's WebSocket library, or None if it is."""
    head = [event.method + b" " + event.target + b" HTTP/" + event.http_version]
    head += [name + b": " + value for name, value in event.headers]
    trial = ServerProtocol()
    trial.receive_data(b"\r\n".join([*head, b"", b""]))
    for request in trial.events_received():
        assert isinstance(request, Request)
        trial.accept(request)
    if trial.handshake_exc is None:
        return None
    errors: list[BaseException | None] = [trial.handshake_exc, trial.handshake_exc.__cause__]
    return "; ".join(str(error) for error in errors if error is not None)


def observed(app: FastAPI) -> ASGIApp:
    """Return the application within an `Observer`, which measures and traces its requests."""
    from senoscope.api.middleware.observer import Observer

    return Observer(app, app.state.request_metrics, app.state.service.traces)


def server_config(app: ASGIApp, settings: Settings) -> uvicorn.Config:
    """Return uvicorn's configuration for an application, usually an `observed` one."""

    class Protocol(GuardedProtocol):
        header_timeout_s = settings.header_timeout_s

    tls: dict[str, Any] = {}
    if settings.tls_cert is not None:
        tls = {"ssl_certfile": settings.tls_cert, "ssl_keyfile": settings.tls_key}
    return uvicorn.Config(
        SecurityHeaders(app),
        http=Protocol,
        h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
        server_header=False,
        proxy_headers=False,  # a client could forge its address with them
        log_config=None,
        access_log=False,
        backlog=_BACKLOG,
        ws="websockets-sansio",
        # Maps and pixels hardly compress, and compressing a message takes longer than sending it.
        ws_per_message_deflate=False,
        ws_max_size=_MAX_FRAME_BYTES,
        timeout_graceful_shutdown=_SHUTDOWN_TIMEOUT_S,
        **tls,
    )
