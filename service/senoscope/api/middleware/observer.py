"""What is seen of each request from outside all else: its number, its log lines' facts, count and span."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import structlog
from prometheus_client import CollectorRegistry
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from senoscope.fov import RequestRef
from senoscope.metrics import catalogue

if TYPE_CHECKING:
    from senoscope.tracing.spans import Traces

HEADER: Final = "X-Request-ID"
# Short, and nothing that could break a log line or a header.
_SANE: Final = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "WEBSOCKET"})
# Of what no route was found for, or the guard turned away: a client could choose any path.
NO_ROUTE: Final = "none"
_BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_STARTS: Final = frozenset({"http.response.start", "websocket.http.response.start", "websocket.accept"})


@dataclass
class Seen:
    """A request as it becomes known on its way through the application.

    Attributes
    ----------
    ref : RequestRef
    route : str or None
        Template of the path, once a route was found.
    status : int
        Of the answer; 500 until there is one.
    """

    ref: RequestRef
    route: str | None = None
    status: int = 500


def seen_of(scope: Scope) -> Seen | None:
    """What is known of a request; None where nobody observes."""
    seen: Seen | None = scope.get("state", {}).get("seen")
    return seen


class RequestMetrics:
    """Counts requests by route, method and status.

    Parameters
    ----------
    registry : CollectorRegistry
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._count = catalogue.REQUESTS.counter(registry)
        self._duration = catalogue.DURATION.histogram(registry, _BUCKETS_S)

    def count(self, method: str, seen: Seen) -> None:
        """A request was answered, or a WebSocket opened or refused."""
        self._count.labels(seen.route or NO_ROUTE, _known(method), str(seen.status)).inc()

    def observe(self, method: str, seen: Seen, took_s: float) -> None:
        """So long did an answer take."""
        self._duration.labels(seen.route or NO_ROUTE, _known(method)).observe(took_s)


def _known(method: str) -> str:
    return method if method in _METHODS else "other"


class Observer:
    """ASGI application around the whole other one, so that what fails inside is seen too.

    Parameters
    ----------
    app : ASGI application
    metrics : RequestMetrics
    traces : Traces or None
    """

    def __init__(self, app: ASGIApp, metrics: RequestMetrics, traces: Traces | None) -> None:
        self._app = app
        self._metrics = metrics
        self._traces = traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        began_s = time.perf_counter()
        http = scope["type"] == "http"
        method = scope["method"] if http else "WEBSOCKET"
        span = self._traces.begin_request(scope["headers"]) if self._traces and http else None
        seen = Seen(RequestRef(_id_of(scope), span))
        scope.setdefault("state", {})["seen"] = seen
        # The server gives each request a context of its own, in which this need not be undone.
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=seen.ref.id)

        async def naming(message: Message) -> None:
            if message["type"] in _STARTS:
                seen.status = message.get("status", 101)
                message = {**message, "headers": list(message.get("headers", ()))}
                MutableHeaders(scope=message)[HEADER] = seen.ref.id
                if not http:  # open for hours perhaps: counted now
                    self._metrics.count(method, seen)
            await send(message)

        try:
            await self._app(scope, receive, naming)
        finally:
            if http:
                self._metrics.count(method, seen)
                self._metrics.observe(method, seen, time.perf_counter() - began_s)
            if self._traces is not None and span is not None:
                self._traces.end_request(
                    span, method, seen.route, scope["path"][:200], seen.status, seen.ref.id
                )


class RouteNoter:
    """ASGI middleware next to the routes, where it is known which of them served.

    Parameters
    ----------
    app : ASGI application
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        seen = seen_of(scope)
        if seen is None:
            await self._app(scope, receive, send)
            return

        async def noting(message: Message) -> None:
            if message["type"] in _STARTS:
                seen.route = getattr(scope.get("route"), "path", None)
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            seen.route = getattr(scope.get("route"), "path", None)


def _id_of(scope: Scope) -> str:
    """The request's own number, if it brings a sane one, else a new one."""
    for name, value in scope["headers"]:
        if name == HEADER.lower().encode() and _SANE.fullmatch(value):
            return str(value.decode("ascii"))
    return uuid4().hex
