"""JSON Schema as text and tables, for pydantic models, OpenAPI and the manifest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pages.markdown import attributes, code, codes, line, table

Schema = Mapping[str, Any]
_LARGEST = 2**53 - 1  # the largest integer that JSON carries without loss; not worth showing
_ANY = "any JSON"
_FORMATS = {"uuid": "UUID", "date-time": "time, ISO 8601", "binary": "bytes"}


def words(schema: Schema) -> str:
    """Describe the type of a value and its bounds; models are links to their headings."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return _ANY if name == "JsonValue" else f"[{name}](#{name.lower()})"
    if "const" in schema or "enum" in schema:
        return codes(schema.get("enum") or [schema["const"]])
    if "anyOf" in schema:
        return ", or ".join(dict.fromkeys(words(choice) for choice in schema["anyOf"]))
    kind = schema.get("type", _ANY)
    if kind == "array":
        return _list(schema)
    if kind == "object":
        values = schema.get("additionalProperties")
        return f"object of {words(values)}" if isinstance(values, Mapping) else "object"
    name = _FORMATS.get(schema.get("format", ""), {"string": "text", "number": "number"}.get(kind, kind))
    return f"{name}{_bounds(schema)}"


def properties(schema: Schema, meanings: Mapping[str, str] | None = None) -> str:
    """Return a table of an object's keys.

    Parameters
    ----------
    meanings : mapping, optional
        By key; the section ``Attributes`` of the description by default.
    """
    known = attributes(schema.get("description")) if meanings is None else meanings
    required = schema.get("required", ())
    rows = [
        (
            code(key),
            words(inner),
            "*required*" if key in required else default(inner),
            known.get(key) or line(inner.get("description", "")),
        )
        for key, inner in schema.get("properties", {}).items()
    ]
    return table(("key", "value", "default", ""), rows)


def default(schema: Schema) -> str:
    """Describe the value of a key that is omitted."""
    value = schema.get("default")
    if value is None:
        return ""
    if isinstance(value, bool):
        return code(str(value).lower())
    if isinstance(value, Mapping):
        return "" if not value else "the defaults of its keys"
    if isinstance(value, list | tuple):
        return codes(value) or "empty"
    return code(value) if value != "" else "empty"


def _list(schema: Schema) -> str:
    if "prefixItems" in schema:
        items = [words(item) for item in schema["prefixItems"]]
        same = len(set(items)) == 1
        return f"list of {len(items)}: {items[0] if same else ', '.join(items)}"
    items = words(schema["items"]) if schema.get("items") else "any"
    return f"list of {items}"


def _bounds(schema: Schema) -> str:
    bounds = []
    for key, sign in (
        ("minimum", "at least"),
        ("exclusiveMinimum", "above"),
        ("maximum", "at most"),
        ("exclusiveMaximum", "below"),
    ):
        if key in schema and schema[key] < _LARGEST:
            bounds.append(f"{sign} {schema[key]:.17g}")
    if "minLength" in schema and "maxLength" in schema:
        bounds.append(f"{schema['minLength']} to {schema['maxLength']} characters")
    elif "maxLength" in schema:
        bounds.append(f"at most {schema['maxLength']} characters")
    return f", {', '.join(bounds)}" if bounds else ""
