"""The reference of the frame stream's JSON headers, generated from their models."""

from __future__ import annotations

from pydantic import BaseModel

from pages.markdown import attributes, prose
from pages.schema import properties
from senoscope_client.wire.headers import EndHeader, HeartbeatHeader, ImageHeader, StartHeader

_HEAD = """# Headers of the frame stream

Part 1 of each message of [the frame stream](wire-format.md) is one of these headers, as JSON. Keys that are
not required may be omitted or null. Unknown keys are rejected; put your own data into `user_data`.

Generated from `senoscope_client.wire.headers` by `python docs/make/reference.py`.
"""
_HEADERS: dict[str, type[BaseModel]] = {
    "start": StartHeader,
    "image": ImageHeader,
    "heartbeat": HeartbeatHeader,
    "end": EndHeader,
}
_ALWAYS = {
    "format": "Name of the format.",
    "version": "Version of the format.",
    "htype": "Layout of the pixels, as in htypes.",
    "type": "Type of the message, as in the topic.",
}


def page() -> str:
    """Return the reference as Markdown."""
    parts = [_HEAD]
    inner: dict[str, dict[str, object]] = {}
    for name, model in _HEADERS.items():
        schema = model.model_json_schema()
        inner |= schema.get("$defs", {})
        parts.append(f"\n## {name}\n\n{prose(model.__doc__)}\n\n{properties(schema, _meanings(model))}")
    for name in sorted(inner.keys() - {"JsonValue"}):
        schema = inner[name]
        parts.append(f"\n## {name}\n\n{prose(str(schema['description']))}\n\n{properties(schema)}")
    return "".join(parts)


def _meanings(model: type[BaseModel]) -> dict[str, str]:
    """Return the meaning of each field, inherited ones included."""
    meanings = dict(_ALWAYS)
    for base in reversed(model.__mro__):
        meanings |= attributes(base.__doc__) if issubclass(base, BaseModel) else {}
    return meanings
