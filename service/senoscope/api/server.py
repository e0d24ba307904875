"""The HTTP server's own limits: what a client may do before the application hears of it."""

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
# Far more than a laboratory has; each costs a socket and some memory.
_MAX_CONNECTIONS = 512
# Connections that may wait to be accepted. asyncio tries that often, with a log line each time, where no file
# can be opened any more.
_BACKLOG = 128
# WebSocket clients have nothing to say.
_MAX_FRAME_BYTES = 4096
# When all is computed and the service stops: for clients that read slowly or still send.
_LAST_ANSWERS_S = 3

# For a page that comes whole from this server, without inline scripts; pictures may be made from answers.
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; connect-src 'self'; "
        "img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}


# A stranger who sends nonsense is answered, and cannot fill the log with uvicorn's warnings of it.
_LOGGER = logging.getLogger("senoscope.http")
_LOGGER.setLevel(logging.ERROR)

_ENCODED = {name.lower().encode(): value.encode() for name, value in SECURITY_HEADERS.items()}


class SecurityHeaders:
    """ASGI application around the whole other one, so that errors and refused WebSockets have them too.

    Parameters
    ----------
    app : ASGI application
        A header that it sets itself stays as it is.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

        async def adding(message: Message) -> None:
            if message["type"] in {"http.response.start", "websocket.http.response.start"}:
                given = dict(message.get("headers", ()))
                more = [(name, value) for name, value in _ENCODED.items() if name not in given]
                message = {**message, "headers": [*message.get("headers", ()), *more]}
            await send(message)

        await self._app(scope, receive, adding)


class GuardedProtocol(H11Protocol):
    """uvicorn's protocol, with a deadline for a request's head and a bound on connections.

    uvicorn itself lets a client take any time for its request line and headers, and for sending nothing
    at all; an application is called only after them. Bodies have a deadline of their own, in ``body.py``.
    """

    header_timeout_s: float
    _deadline: asyncio.TimerHandle | None = None
    _head_too_large = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        self.logger = _LOGGER
        # asyncio does this only where a socket was made with its protocol's number, which `create_server`
        # leaves out: an answer's body, or a result soon after another, would wait for a delayed ACK, 40 ms.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().connection_made(transport)
        next_event = self.conn.next_event

        def limited_event() -> Any:
            """h11 itself limits only heads that come in pieces."""
            event = next_event()
            if isinstance(event, h11.Request) and _size_of(event) > _MAX_HEADER_BYTES:
                self._head_too_large = True
                raise h11.RemoteProtocolError("the head is too large")
            return event

        self.conn.next_event = limited_event  # type: ignore[method-assign]
        if len(self.connections) > max_connections(_MAX_CONNECTIONS, 0.5):
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "busy", "too many connections are open")
        else:
            self._watch()

    def data_received(self, data: bytes) -> None:
        """Take bytes; the deadline stands until a whole head is there."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Hang up on a client that was answered before its body was read: it could send that for ever."""
        unread = self.conn.their_state is h11.SEND_BODY  # asked first: the next request may begin right here
        super().on_response_complete()
        if unread:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._disarm()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP request, or one whose head is too large."""
        if self._head_too_large or len(self.conn.trailing_data[0]) > _MAX_HEADER_BYTES:
            self._refuse(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                "header_too_large",
                f"request line and headers may have {_MAX_HEADER_BYTES} bytes together",
            )
        else:
            self._refuse(HTTPStatus.BAD_REQUEST, "bad_request", msg)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Become a WebSocket, or tell why not: what is no handshake uvicorn leaves open unanswered."""
        fault = _fault_of_handshake(event)
        if fault is None:
            super().handle_websocket_upgrade(event)
        else:
            detail = f"this opens no WebSocket: {sanitize_for_display(fault, 200)}"
            self._refuse(HTTPStatus.BAD_REQUEST, "bad_request", detail)

    def _watch(self) -> None:
        if self.transport.is_closing() or self.conn.their_state is not h11.IDLE:
            self._disarm()
        elif self._deadline is None and self.timeout_keep_alive_task is None:
            self._deadline = self.loop.call_later(self.header_timeout_s, self._too_slow)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._refuse(
            HTTPStatus.REQUEST_TIMEOUT,
            "request_timeout",
            f"no whole request head came within {self.header_timeout_s:g} s",
        )

    def _refuse(self, status: HTTPStatus, code: str, detail: str) -> None:
        self._disarm()
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
        # Written by hand: h11 answers no request that it could not read.
        head = [f"HTTP/1.1 {status.value} {status.phrase}", *(f"{k}: {v}" for k, v in headers.items())]
        self.transport.write("\r\n".join([*head, "", ""]).encode("ascii") + body)
        self.transport.close()


def _size_of(head: h11.Request) -> int:
    """Bytes of a request line and its headers, give or take some blanks."""
    headers = sum(len(name) + len(value) + 4 for name, value in head.headers)
    return len(head.method) + len(head.target) + headers


def _fault_of_handshake(event: h11.Request) -> str | None:
    """Why the library that uvicorn has WebSockets from would not take this request as a handshake."""
    head = [event.method + b" " + event.target + b" HTTP/" + event.http_version]
    head += [name + b": " + value for name, value in event.headers]
    trial = ServerProtocol()
    trial.receive_data(b"\r\n".join([*head, b"", b""]))
    for request in trial.events_received():
        assert isinstance(request, Request)
        trial.accept(request)
    if trial.handshake_exc is None:
        return None
    faults: list[BaseException | None] = [trial.handshake_exc, trial.handshake_exc.__cause__]
    return "; ".join(str(fault) for fault in faults if fault is not None)


def observed(app: FastAPI) -> ASGIApp:
    """The application, with its requests measured and traced."""
    from senoscope.api.middleware.observer import Observer

    return Observer(app, app.state.request_metrics, app.state.service.traces)


def server_config(app: ASGIApp, settings: Settings) -> uvicorn.Config:
    """How uvicorn runs an application, usually an `observed` one."""

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
        proxy_headers=False,  # nobody's word about where a request comes from
        log_config=None,
        access_log=False,
        backlog=_BACKLOG,
        ws="websockets-sansio",
        # Maps and pixels hardly compress, and compressing each message would cost more than sending it.
        ws_per_message_deflate=False,
        ws_max_size=_MAX_FRAME_BYTES,
        timeout_graceful_shutdown=_LAST_ANSWERS_S,
        **tls,
    )
