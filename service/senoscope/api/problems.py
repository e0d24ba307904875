"""Errors as RFC 9457 problem documents, and under ``/v2`` as the Open Inference Protocol wants them."""

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
# Any client can cause these lines.
_log_lines = RateLimiter(interval_s=1.0)


def problem_response(error: SenoscopeError, path: str = "") -> JSONResponse:
    """The answer to a request that failed in a way that its sender can act on.

    Parameters
    ----------
    path : str, optional
        That was asked for; it tells which form of errors the client understands.
    """
    headers = {}
    if isinstance(error, Busy):
        headers["Retry-After"] = str(math.ceil(error.retry_after_s))
    if isinstance(error, PayloadTooLarge | RequestTimeout):
        headers["Connection"] = "close"  # the rest of the body stays unread
    return _response(error.problem(), path, headers)


def _response(problem: Problem, path: str, headers: dict[str, str] | None = None) -> JSONResponse:
    if path == "/v2" or path.startswith("/v2/"):
        # The protocol knows no finer kinds of a wrong request.
        status = 400 if problem.status in {415, 422} else problem.status
        return JSONResponse({"error": problem.detail}, status, headers)
    return JSONResponse(problem.model_dump(), problem.status, headers, media_type=_MEDIA_TYPE)


def _note(request: Request, problem: Problem) -> None:
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


def told_faults(faults: Sequence[Any], where: str = "") -> str:
    """What pydantic found wrong, in a bounded number of words: keys are the sender's."""
    told = (f"{'.'.join(map(str, fault['loc']))[:80] or where}: {fault['msg'][:200]}" for fault in faults[:5])
    return "; ".join(told)


class ClientGone(SenoscopeError):
    """Nobody waits for the answer; the status is the one that nginx logs for this."""

    code, status, title = "client_closed_request", 499, "Client closed request"


async def _on_disconnect(request: Request, error: Exception) -> JSONResponse:
    gone = ClientGone(f"the client closed the connection while it sent: {error}")
    _note(request, gone.problem())
    return problem_response(gone, request.url.path)


async def _on_senoscope_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, SenoscopeError)
    _note(request, error.problem())
    return problem_response(error, request.url.path)


async def _on_invalid_parameters(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    invalid = InvalidRequest(told_faults(error.errors()))
    _note(request, invalid.problem())
    return problem_response(invalid, request.url.path)


async def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "bad_request")
    detail = str(error.detail)
    problem = Problem(
        type=f"urn:senoscope:problem:{code}", title=detail, status=error.status_code, detail=detail, code=code
    )
    _note(request, problem)
    return _response(problem, request.url.path, dict(error.headers or {}))


async def _nowhere(scope: Scope, receive: Receive, send: Send) -> None:
    """No route has this path; a WebSocket is told so like any request, in place of a bare 403."""
    if scope["type"] == "websocket":
        await problem_response(NotFound("no WebSocket is offered here"))(scope, receive, send)
    else:
        raise HTTPException(404)


async def _on_unexpected(request: Request, error: Exception) -> JSONResponse:
    _log.error("request failed", path=request.url.path, exc_info=error)
    failed = SenoscopeError("the service failed on this request; its log tells more")
    return problem_response(failed, request.url.path)


def install(app: FastAPI) -> None:
    """Make an application answer every error in one of the two forms."""
    app.router.default = _nowhere
    app.add_exception_handler(SenoscopeError, _on_senoscope_error)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(RequestValidationError, _on_invalid_parameters)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(Exception, _on_unexpected)
