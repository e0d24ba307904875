"""The context of each request: its identifier, the facts of its log lines, its metrics and its span."""

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
# Short, without characters that could break a log line or a header.
_VALID_ID: Final = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "WEBSOCKET"})
# For paths without a route, and for requests that the guard refused: a client can choose any path.
NO_ROUTE: Final = "none"
_BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_STARTS: Final = frozenset({"http.response.start", "websocket.http.response.start", "websocket.accept"})


def request_ref_of(scope: Scope) -> RequestRef | None:
    """Return the identifier and the span of a request, or None outside an `Observer`."""
    ref: RequestRef | None = scope.get("state", {}).get("request_ref")
    return ref


class RequestMetrics:
    """Counts requests by route, method and status."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._count = catalogue.REQUESTS.counter(registry)
        self._duration = catalogue.DURATION.histogram(registry, _BUCKETS_S)

    def count(self, route: str | None, method: str, status: int, took_s: float | None = None) -> None:
        """Count an answered request with its duration, or a WebSocket that was opened or refused."""
        labels = route or NO_ROUTE, method if method in _METHODS else "other"
        self._count.labels(*labels, str(status)).inc()
        if took_s is not None:
            self._duration.labels(*labels).observe(took_s)


@dataclass(frozen=True)
class Observer:
    """ASGI application around the whole application, so that its failures are observed too."""

    app: ASGIApp
    metrics: RequestMetrics
    traces: Traces | None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        began_s = time.perf_counter()
        http = scope["type"] == "http"
        method = scope["method"] if http else "WEBSOCKET"
        span = self.traces.begin_request(scope["headers"]) if self.traces and http else None
        ref = RequestRef(_id_of(scope), span)
        scope.setdefault("state", {})["request_ref"] = ref
        # The server runs each request in a separate context, so this needs no reset.
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=ref.id)
        status = 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] in _STARTS:
                status = message.get("status", 101)
                message = {**message, "headers": list(message.get("headers", ()))}
                MutableHeaders(scope=message)[HEADER] = ref.id
                if not http:  # may stay open for hours
                    self.metrics.count(_route_of(scope), method, status)
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        finally:
            route = _route_of(scope)
            if http:
                self.metrics.count(route, method, status, time.perf_counter() - began_s)
            if self.traces is not None and span is not None:
                self.traces.end_request(span, method, route, scope["path"][:200], status, ref.id)


def _route_of(scope: Scope) -> str | None:
    """Return the template of the path, once the router has found a route."""
    path: str | None = getattr(scope.get("route"), "path", None)
    return path


def _id_of(scope: Scope) -> str:
    """Return the identifier in the request's headers, if it is valid, else a new one."""
    for name, value in scope["headers"]:
        if name == HEADER.lower().encode() and _VALID_ID.fullmatch(value):
            return str(value.decode("ascii"))
    return uuid4().hex
