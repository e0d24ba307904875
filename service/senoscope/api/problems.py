"""Errors as RFC 9457 problem documents, and under ``/v2`` in the form of the Open Inference Protocol."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from senoscope_client.errors import (
    Busy,
    InvalidRequest,
    NotFound,
    PayloadTooLarge,
    Problem,
    RequestTimeout,
    SenoscopeError,
)
from senoscope_client.rate_limiter import RateLimiter

_log = structlog.get_logger(__name__)
_MEDIA_TYPE = "application/problem+json"
# Any client can cause these log lines.
_log_lines = RateLimiter(interval_s=1.0)


def problem_response(error: SenoscopeError, path: str = "") -> JSONResponse:
    """Return the answer to a request that failed, in the form that its path has."""
    headers = {}
    if isinstance(error, Busy):
        headers["Retry-After"] = str(math.ceil(error.retry_after_s))
    if isinstance(error, PayloadTooLarge | RequestTimeout):
        headers["Connection"] = "close"  # the rest of the body is not read
    return _response(error.problem(), path, headers)


def _response(problem: Problem, path: str, headers: dict[str, str] | None = None) -> JSONResponse:
    if path == "/v2" or path.startswith("/v2/"):
        # The protocol has one status for all invalid requests.
        status = 400 if problem.status in {415, 422} else problem.status
        return JSONResponse({"error": problem.detail}, status, headers)
    return JSONResponse(problem.model_dump(), problem.status, headers, media_type=_MEDIA_TYPE)


def _log_problem(request: Request, problem: Problem) -> None:
    suppressed = _log_lines.suppressed_since_last(problem.code)
    if suppressed is None:
        return
    more = {"suppressed": suppressed} if suppressed else {}
    write = _log.warning if problem.status >= 500 else _log.info
    write(
        "request answered with a problem",
        code=problem.code,
        status=problem.status,
        detail=problem.detail[:300],
        method=request.scope.get("method"),
        path=request.url.path[:200],
        **more,
    )


def describe_validation_errors(errors: Sequence[Any], where: str = "") -> str:
    """Return the first five of pydantic's ``errors()`` as one text; ``where`` is used if one has no location.

    Its length is limited: the keys in it were chosen by the client.
    """
    described = (
        f"{'.'.join(map(str, error['loc']))[:80] or where}: {error['msg'][:200]}" for error in errors[:5]
    )
    return "; ".join(described)


class ClientDisconnected(SenoscopeError):
    """The client closed the connection before it was answered; the status is the one that nginx logs."""

    code, status, title = "client_closed_request", 499, "Client closed request"


async def _on_error(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, RequestValidationError):
        error = InvalidRequest(describe_validation_errors(error.errors()))
    elif isinstance(error, ClientDisconnect):
        error = ClientDisconnected(f"the client closed the connection while sending: {error}")
    assert isinstance(error, SenoscopeError)
    _log_problem(request, error.problem())
    return problem_response(error, request.url.path)


async def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "bad_request")
    detail = str(error.detail)
    problem = Problem(
        type=f"urn:senoscope:problem:{code}", title=detail, status=error.status_code, detail=detail, code=code
    )
    _log_problem(request, problem)
    return _response(problem, request.url.path, dict(error.headers or {}))


async def _without_route(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request whose path has no route; a WebSocket gets the same answer, not an empty 403."""
    if scope["type"] == "websocket":
        await problem_response(NotFound("there is no WebSocket at this path"))(scope, receive, send)
    else:
        raise HTTPException(404)


async def _on_unexpected(request: Request, error: Exception) -> JSONResponse:
    _log.error("request failed", path=request.url.path, exc_info=error)
    failed = SenoscopeError("the service failed on this request; see its log")
    return problem_response(failed, request.url.path)


def install(app: FastAPI) -> None:
    """Install the error handlers, so that an application answers every error in one of the two forms."""
    app.router.default = _without_route
    for error in (SenoscopeError, ClientDisconnect, RequestValidationError):
        app.add_exception_handler(error, _on_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(Exception, _on_unexpected)
