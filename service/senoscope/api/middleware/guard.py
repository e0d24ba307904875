"""Access control: the scope that each request needs, and the middleware that checks it."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as AsgiScope

from senoscope.access.api_keys import Scope
from senoscope.access.key_ring import KeyRing
from senoscope.api.problems import problem_response
from senoscope_client.errors import Forbidden, SenoscopeError, Unauthorized
from senoscope_client.http.live import FORBIDDEN, UNAUTHORIZED
from senoscope_client.rate_limiter import RateLimiter

_log = structlog.get_logger(__name__)
_LOG_INTERVAL_S = 10.0
REASONS = ("no_key", "wrong_key", "missing_scope", "foreign_page", "foreign_host")
_SUBPROTOCOL = "senoscope"
_KEY_PREFIX = "bearer."
_Fault = tuple[str, SenoscopeError]  # the reason, as it is counted, and the error


class Rule(NamedTuple):
    """The scope that requests of some methods and paths need; None if they need no key."""

    methods: frozenset[str]
    path: re.Pattern[str]
    scope: Scope | None


_READING = frozenset({"GET", "HEAD"})
# The first rule that matches applies; requests that match none need admin.
RULES = (
    Rule(_READING, re.compile(r"/(livez|readyz|v2/health/(live|ready))"), None),
    # The page has a login of its own; it sends the key with its requests.
    Rule(_READING, re.compile(r"/(dashboard/[^/]+)?"), None),
    Rule(_READING | {"WEBSOCKET"}, re.compile(r"/.*", re.DOTALL), "read"),
    Rule(frozenset({"POST"}), re.compile(r"/v2/repository/index"), "read"),
    Rule(frozenset({"POST"}), re.compile(r"/v1/classify"), "classify"),
    Rule(frozenset({"POST"}), re.compile(r"/v2/models/[^/]+(/versions/[^/]+)?/infer"), "classify"),
)


def scope_needed(method: str, path: str) -> Scope | None:
    """Return the scope that a request needs, or None if it needs no key."""
    for rule in RULES:
        if method in rule.methods and rule.path.fullmatch(path):
            return rule.scope
    return "admin"


class Refusals:
    """Counts of refused requests by reason, made on the event loop; any thread may read ``counts``."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._log_lines = RateLimiter(_LOG_INTERVAL_S)

    def count(self, reason: str, **facts: object) -> None:
        """Count a refusal, and log it unless one with the same reason was logged shortly before."""
        self.counts[reason] += 1
        if self._log_lines.suppressed_since_last(reason) is not None:
            _log.warning("request refused", reason=reason, count=self.counts[reason], **facts)


@dataclass(frozen=True)
class Guard:
    """ASGI middleware that checks the access of every request, WebSockets included.

    With keys, each request needs one with the right scope; the key of a WebSocket is checked again before
    each message. Without keys, only clients on this machine are served. Any page in a browser on this machine
    is such a client, so requests from other sites' pages are refused.

    Unless ``any_host`` is set, requests without keys must be addressed to localhost or to an IP address: a
    page of another site can circumvent the browser's same-origin policy by pointing its own name to this
    machine (DNS rebinding).
    """

    app: ASGIApp
    keys: KeyRing | None
    refusals: Refusals
    any_host: bool

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        presented = _take_keys(scope)
        refusal = self._refusal(scope, presented)
        if refusal is not None:
            answer = problem_response(refusal, scope["path"])
            if isinstance(refusal, Unauthorized):
                answer.headers["WWW-Authenticate"] = 'Bearer realm="senoscope"'
            await answer(scope, receive, send)
            return
        send = _with_subprotocol(scope, send)
        if scope["type"] == "websocket" and self.keys is not None:
            send = self._with_key_checks(scope, presented, send)
        await self.app(scope, receive, send)

    def _refusal(self, scope: AsgiScope, presented: Sequence[str]) -> SenoscopeError | None:
        """Check a request; if it is refused, count it and return the error."""
        if self.keys is None:
            fault = _check_origin(Headers(scope=scope), self.any_host)
        else:
            fault = _check_key(self.keys, presented, scope_needed(_method(scope), scope["path"]))
        if fault is None:
            return None
        reason, error = fault
        client = scope.get("client")
        self.refusals.count(
            reason, method=_method(scope), path=scope["path"][:200], client=client[0] if client else None
        )
        return error

    def _with_key_checks(self, scope: AsgiScope, presented: Sequence[str], send: Send) -> Send:
        """Return a ``send`` that closes the WebSocket once its key no longer permits messages."""

        async def checked_send(message: Message) -> None:
            if message["type"] == "websocket.send":
                refusal = self._refusal(scope, presented)
                if refusal is not None:
                    code = UNAUTHORIZED if isinstance(refusal, Unauthorized) else FORBIDDEN
                    await send({"type": "websocket.close", "code": code, "reason": str(refusal)[:120]})
                    raise OSError("the key was revoked")  # as when the client disconnected
            await send(message)

        return checked_send


def _check_key(keys: KeyRing, presented: Sequence[str], needed: Scope | None) -> _Fault | None:
    if needed is None:
        return None
    if not presented:
        return "no_key", Unauthorized(
            "this service requires an API key: send `Authorization: Bearer KEY` (senoscope-client: --api-key "
            "or SENOSCOPE_API_KEY)"
        )
    key = keys.identify(presented[0]) if len(presented) == 1 else None
    if key is None:
        return "wrong_key", Unauthorized("this API key is invalid, or was revoked")
    if not key.may(needed):
        scopes = ", ".join(key.scopes)
        return "missing_scope", Forbidden(f"this API key has scope {scopes}; the request needs {needed}")
    return None


def _method(scope: AsgiScope) -> str:
    return scope["method"] if scope["type"] == "http" else "WEBSOCKET"


def _take_keys(scope: AsgiScope) -> list[str]:
    """Remove the keys from a request, so that no other part of the application can log them, and return them.

    They are in the header or, for browsers' WebSockets, in a subprotocol.
    """
    found = []
    for value in Headers(scope=scope).getlist("authorization"):
        kind, _, key = value.partition(" ")
        found.append(key.strip() if kind.lower() == "bearer" else "")
    hidden = {b"authorization", b"sec-websocket-protocol"}
    scope["headers"] = [(name, value) for name, value in scope["headers"] if name.lower() not in hidden]
    if "subprotocols" in scope:
        offered = scope["subprotocols"]
        found += [name.removeprefix(_KEY_PREFIX) for name in offered if name.startswith(_KEY_PREFIX)]
        scope["subprotocols"] = [name for name in offered if not name.startswith(_KEY_PREFIX)]
    return found


def _with_subprotocol(scope: AsgiScope, send: Send) -> Send:
    """Return a ``send`` that selects our subprotocol if it was offered.

    Browsers close the connection if the server selects none of the offered subprotocols.
    """
    if _SUBPROTOCOL not in scope.get("subprotocols", ()):
        return send

    async def selecting_send(message: Message) -> None:
        if message["type"] == "websocket.accept":
            message = {**message, "subprotocol": message.get("subprotocol") or _SUBPROTOCOL}
        await send(message)

    return selecting_send


def _check_origin(headers: Headers, any_host: bool) -> _Fault | None:
    host, origin = headers.get("host", ""), headers.get("origin")
    if origin is not None and _host_of(origin) != host.lower():
        return "foreign_page", Forbidden(f"a page of {origin[:100]} may not use this service")
    if not any_host and host and not _is_localhost_or_address(host):
        return "foreign_host", Forbidden(
            "without API keys this service accepts requests to localhost or to an IP address only, not to "
            f"{host[:100]}"
        )
    return None


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:  # for example, a bracket that is not closed
        return None


def _is_localhost_or_address(host: str) -> bool:
    """Return whether a ``Host`` header cannot be the name of another site: localhost or an IP address."""
    name = re.sub(r":\d*$", "", host).strip("[]").lower()
    if name == "localhost":
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
