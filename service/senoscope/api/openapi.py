"""OpenAPI descriptions that do not follow from the types of the routes: errors, files and pictures."""

from __future__ import annotations

from typing import Any, Final

from senoscope_client.errors import (
    AmbiguousAxes,
    Busy,
    Forbidden,
    InsufficientStorage,
    InvalidRequest,
    NonFinitePixels,
    NotReady,
    PayloadTooLarge,
    Problem,
    RequestTimeout,
    SenoscopeError,
    TooManyFields,
    Unauthorized,
    UnreadableImage,
    UnsupportedMediaType,
    WrongChannelCount,
    WrongFrameSize,
)

Responses = dict[int | str, dict[str, Any]]
"""Descriptions of answers by status, in the form of FastAPI's ``responses``."""

_ANY_ROUTE: Final[tuple[type[SenoscopeError], ...]] = (Unauthorized, Forbidden, InvalidRequest, NotReady)
STACK_ERRORS: Final[tuple[type[SenoscopeError], ...]] = (
    AmbiguousAxes,
    Busy,
    InsufficientStorage,
    NonFinitePixels,
    PayloadTooLarge,
    RequestTimeout,
    TooManyFields,
    UnreadableImage,
    UnsupportedMediaType,
    WrongChannelCount,
    WrongFrameSize,
)
"""Errors of routes that take a stack, in addition to those of any route."""

BINARY: Final[dict[str, Any]] = {"schema": {"type": "string", "format": "binary"}}
IMAGE_PNG: Final = {"image/png": BINARY}
APPLICATION_NPY: Final = {"application/x-npy": BINARY}
TEXT_CSV: Final[dict[str, Any]] = {"text/csv": {"schema": {"type": "string"}}}
JSON_OBJECT: Final[dict[str, Any]] = {"application/json": {"schema": {"type": "object"}}}

# The Open Inference Protocol has its own form of errors, without error codes.
PROTOCOL_ERRORS: Final[Responses] = {
    status: {
        "description": description,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {"error": {"type": "string"}},
                    "required": ["error"],
                }
            }
        },
    }
    for status, description in {
        400: InvalidRequest.title,
        401: Unauthorized.title,
        403: Forbidden.title,
        404: "The model does not exist, or is not loaded",
        408: RequestTimeout.title,
        413: PayloadTooLarge.title,
        503: f"{Busy.title}, or {NotReady.title.lower()}",
    }.items()
}


def problems(*errors: type[SenoscopeError]) -> Responses:
    """Describe the problem documents of a route: those of any route, and those of these errors."""
    by_status: dict[int, list[type[SenoscopeError]]] = {}
    of_route: set[type[SenoscopeError]] = {*_ANY_ROUTE, *errors}
    for error in sorted(of_route, key=lambda error: error.code):
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
