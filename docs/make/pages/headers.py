"""The JSON headers of the frame stream."""

from __future__ import annotations

from pydantic import BaseModel

from pages.markdown import attributes, prose
from pages.schema import properties
from senoscope_client.wire.headers import EndHeader, HeartbeatHeader, ImageHeader, StartHeader

_HEAD = """# Headers of the frame stream

What part 1 of each message holds, as JSON: see [the frame stream](wire-format.md). Keys that are not
required may be left out or be null. Unknown keys are refused; what is yours goes into `user_data`.

Made from `senoscope_client.wire.headers` by `python docs/make/reference.py`.
"""
_HEADERS: dict[str, type[BaseModel]] = {
    "start": StartHeader,
    "image": ImageHeader,
    "heartbeat": HeartbeatHeader,
    "end": EndHeader,
}
_ALWAYS = {
    "format": "Always this.",
    "version": "Of the format.",
    "htype": "As in htypes.",
    "type": "As in the topic.",
}


def page() -> str:
    """The reference as Markdown."""
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
    """Of all fields, inherited ones included."""
    told = dict(_ALWAYS)
    for base in reversed(model.__mro__):
        told |= attributes(base.__doc__) if issubclass(base, BaseModel) else {}
    return told
