"""OpenAPI descriptions that do not follow from the types of the routes: errors, files and pictures."""

from __future__ import annotations

from typing import Any, Final

from senoscope_client import errors
from senoscope_client.errors import Problem, SenoscopeError

Responses = dict[int | str, dict[str, Any]]
"""Descriptions of answers by status, in the form of FastAPI's ``responses``."""

_Kinds = tuple[type[SenoscopeError], ...]
_ANY_ROUTE: Final[_Kinds] = (errors.Unauthorized, errors.Forbidden, errors.InvalidRequest, errors.NotReady)
STACK_ERRORS: Final[_Kinds] = (
    errors.AmbiguousAxes,
    errors.Busy,
    errors.InsufficientStorage,
    errors.NonFinitePixels,
    errors.PayloadTooLarge,
    errors.RequestTimeout,
    errors.TooManyFields,
    errors.UnreadableImage,
    errors.UnsupportedMediaType,
    errors.WrongChannelCount,
    errors.WrongFrameSize,
)
"""Errors of routes that take a stack, in addition to those of any route."""

BINARY: Final[dict[str, Any]] = {"schema": {"type": "string", "format": "binary"}}
TEXT_CSV: Final[dict[str, Any]] = {"text/csv": {"schema": {"type": "string"}}}
JSON_OBJECT: Final[dict[str, Any]] = {"application/json": {"schema": {"type": "object"}}}

# The Open Inference Protocol has its own form of errors, without error codes.
_ERROR: Final = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
PROTOCOL_ERRORS: Final[Responses] = {
    status: {"description": description, "content": {"application/json": {"schema": _ERROR}}}
    for status, description in {
        400: errors.InvalidRequest.title,
        401: errors.Unauthorized.title,
        403: errors.Forbidden.title,
        404: "The model does not exist, or is not loaded",
        408: errors.RequestTimeout.title,
        413: errors.PayloadTooLarge.title,
        503: f"{errors.Busy.title}, or {errors.NotReady.title.lower()}",
    }.items()
}


def request_body(content: dict[str, Any], *, required: bool = True) -> dict[str, Any]:
    """Describe the body of a route that reads it itself, in the form of FastAPI's ``openapi_extra``."""
    return {"requestBody": {"required": required, "content": content}}


def problems(*kinds: type[SenoscopeError]) -> Responses:
    """Describe the problem documents of a route: those of any route, and those of these errors."""
    by_status: dict[int, list[type[SenoscopeError]]] = {}
    for error in sorted({*_ANY_ROUTE, *kinds}, key=lambda error: error.code):
        by_status.setdefault(error.status, []).append(error)
    return {
        status: {
            "description": ", ".join(error.title for error in of_status),
            "content": {"application/problem+json": {"schema": _schema([error.code for error in of_status])}},
        }
        for status, of_status in sorted(by_status.items())
    }


def _schema(codes: list[str]) -> dict[str, Any]:
    schema = Problem.model_json_schema()
    schema["properties"]["code"]["enum"] = codes
    schema["description"] = "A problem document (RFC 9457)."
    return schema
