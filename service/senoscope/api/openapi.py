"""What OpenAPI is told of answers that the routes' own types do not tell: errors, files and pictures."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel

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
"""By status, as FastAPI's ``responses`` takes them."""

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
"""What a posted stack can be refused for, beside what any request can."""

BINARY: Final[dict[str, Any]] = {"schema": {"type": "string", "format": "binary"}}
IMAGE_PNG: Final = {"image/png": BINARY}
APPLICATION_NPY: Final = {"application/x-npy": BINARY}
TEXT_CSV: Final[dict[str, Any]] = {"text/csv": {"schema": {"type": "string"}}}
JSON_OBJECT: Final[dict[str, Any]] = {"application/json": {"schema": {"type": "object"}}}

# The Open Inference Protocol has a form of its own for errors, and no finer kinds of them.
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
        400: "The request cannot be meant",
        401: Unauthorized.title,
        403: Forbidden.title,
        404: "No such model, or not loaded",
        408: RequestTimeout.title,
        413: PayloadTooLarge.title,
        503: f"{Busy.title}, or {NotReady.title.lower()}",
    }.items()
}


def problems(*errors: type[SenoscopeError]) -> Responses:
    """The problem documents that a route answers with: those of any route, and these."""
    kinds: dict[int, list[type[SenoscopeError]]] = {}
    wanted: set[type[SenoscopeError]] = {*_ANY_ROUTE, *errors}
    for error in sorted(wanted, key=lambda error: error.code):
        kinds.setdefault(error.status, []).append(error)
    return {
        status: {
            "description": ", ".join(error.title for error in of_status),
            "content": {"application/problem+json": {"schema": _schema([error.code for error in of_status])}},
        }
        for status, of_status in sorted(kinds.items())
    }


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """The body of a request that a route reads itself, as ``openapi_extra``."""
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": model.model_json_schema()}},
        }
    }


def _schema(codes: list[str]) -> dict[str, Any]:
    schema = Problem.model_json_schema()
    schema["properties"]["code"]["enum"] = codes
    schema["description"] = "A problem document (RFC 9457)."
    return schema
