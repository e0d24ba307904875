"""The reference of HTTP and WebSocket, generated from the service's OpenAPI document and routes."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI
from starlette.routing import WebSocketRoute

from pages.markdown import code, codes, line, prose, table
from pages.schema import default, properties, words
from senoscope.api.app import create_app
from senoscope.api.middleware.guard import scope_needed
from senoscope.service import Service
from senoscope.settings import Settings
from senoscope_client import errors

_HEAD = """# HTTP and WebSocket

Every path, parameter, answer and error; [Use HTTP and WebSocket](../how-to/http.md) has examples. A running
service describes the same for tools as OpenAPI at `/openapi.json`. Paths with parameters reject unknown
ones. With API keys, each request needs one (`Authorization: Bearer KEY`) of the scope that is named here;
`admin` includes the other scopes, see the [threat model](../explanation/threat-model.md).

Generated from the service by `python docs/make/reference.py`.
"""
_ERRORS = """
## Errors

An error is a problem document (RFC 9457, `application/problem+json`) with `type`, `title`, `status`,
`detail` and a stable `code`. `detail` describes what is wrong, where, and what to do. Paths that are not
listed here answer 404 `not_found`, methods 405 `method_not_allowed`, and a route that fails answers 500
`internal_error`. Under `/v2` an error is `{"error": "..."}`, as the Open Inference Protocol specifies, with
400 in place of 415 and 422.

"""
_DOCUMENTS = """
## Documents

The JSON documents of the answers above. Keys without a value are omitted.
"""


def page() -> str:
    """Return the reference as Markdown."""
    app = create_app(Service(Settings(database_url="none", stream="", results="", otlp_endpoint="")))
    schema = app.openapi()
    parts = [_HEAD]
    for path, methods in sorted(schema["paths"].items(), key=_place):
        for method, operation in methods.items():
            parts += _operation(method.upper(), path, operation)
    parts += _websockets(app)
    parts += [_ERRORS, _codes(), _DOCUMENTS]
    for name, model in sorted(schema["components"]["schemas"].items()):
        if not name.endswith("ValidationError"):  # FastAPI's own, which this service never sends
            parts.append(f"\n### {name}\n\n{prose(model.get('description'))}\n\n{properties(model)}")
    return "".join(parts)


def _place(item: tuple[str, Any]) -> tuple[int, str]:
    """Return a sort key that puts the most used paths first."""
    path = item[0]
    order = ("/v1/classify", "/v1/results", "/v1/series", "/v1/normalization", "/v1/model", "/v1/")
    return next((n for n, start in enumerate(order) if path.startswith(start)), len(order)), path


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"\n## {method} {path}\n\n{prose(operation.get('description'))}\n"
    scope = scope_needed(method, path)
    yield f"\nScope: {code(scope)}.\n" if scope else "\nNeeds no key.\n"
    parameters = operation.get("parameters", [])
    if parameters:
        rows = [_parameter(parameter) for parameter in parameters]
        yield "\n" + table(("parameter", "value", "default", ""), rows)
    body = operation.get("requestBody")
    if body:
        optional = "" if body.get("required") else ", or none"
        yield f"\nBody: {codes(body['content'])}{optional}.\n"
        for kind, content in body["content"].items():
            if kind in {"application/json", "multipart/form-data"} and "properties" in content["schema"]:
                yield f"\n{properties(content['schema'])}"
    yield "\n" + _answers(operation["responses"])


def _parameter(parameter: Mapping[str, Any]) -> tuple[str, str, str, str]:
    schema = parameter["schema"]
    schema = {**schema, "anyOf": [s for s in schema.get("anyOf", []) if s.get("type") != "null"]}
    schema = schema if schema["anyOf"] else {key: value for key, value in schema.items() if key != "anyOf"}
    in_path = parameter["in"] == "path"
    meaning = line(parameter.get("description", "")) or ("In the path." if in_path else "")
    return code(parameter["name"]), words(schema), "*required*" if in_path else default(schema), meaning


def _answers(responses: Mapping[str, Any]) -> str:
    rows, refused = [], []
    for status, response in sorted(responses.items()):
        content = response.get("content", {})
        schemas = [one.get("schema", {}) for one in content.values()]
        if int(status) < 400:
            rows.append((status, codes(content), _meaning(response, schemas)))
        elif "application/problem+json" in content:
            (schema,) = schemas
            refused.append(f"{status} {codes(schema['properties']['code']['enum'])}")
        elif not any(schema.get("$ref", "").endswith("HTTPValidationError") for schema in schemas):
            refused.append(status)
    errors_ = f"\nErrors: {'; '.join(refused)}.\n" if refused else ""
    return table(("answer", "as", ""), rows) + errors_


def _meaning(response: Mapping[str, Any], schemas: list[Mapping[str, Any]]) -> str:
    for schema in schemas:
        if "$ref" in schema:
            return words(schema)
    text = str(response.get("description", ""))
    return "" if text == "Successful Response" else text


def _websockets(app: FastAPI) -> Iterator[str]:
    for route in sorted(_leaves(app.routes), key=lambda route: route.path):
        yield f"\n## WebSocket {route.path}\n\n{prose(inspect.getdoc(route.endpoint))}\n"
        yield f"\nScope: {code(scope_needed('WEBSOCKET', route.path))}.\n"


def _leaves(routes: Any) -> Iterator[WebSocketRoute]:
    for route in routes:
        if isinstance(route, WebSocketRoute):
            yield route
        router = getattr(route, "original_router", None)  # FastAPI keeps the router that was included
        yield from _leaves(router.routes if router else ())


def _codes() -> str:
    kinds = [kind for kind in vars(errors).values() if inspect.isclass(kind) and issubclass(kind, Exception)]
    meanings = {kind.code: (kind.status, prose(kind.__doc__).partition("\n")[0]) for kind in kinds}
    del meanings[errors.Unreachable.code]  # raised by clients alone
    meanings[errors.SenoscopeError.code] = (
        errors.SenoscopeError.status,
        "The service failed; its log has the details.",
    )
    rows = sorted((str(status), code(name), text) for name, (status, text) in meanings.items())
    return table(("status", "code", ""), rows)
