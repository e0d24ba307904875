"""The reference of the configuration file, generated from its typed model."""

from __future__ import annotations

from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pages.markdown import code, codes, line, prose, table
from senoscope_training.config import Config

_HEAD = """# The configuration file

A configuration is a YAML file. `name` and `data.path` are required; the default of every other key is the
value that the paper uses. Unknown keys are rejected.

Generated from `senoscope_training.config` by `python docs/make/reference.py`.
"""


def page() -> str:
    """Return the reference as Markdown."""
    return _HEAD + "".join(_tables(Config, ""))


def _tables(model: type[BaseModel], prefix: str) -> list[str]:
    rows: list[tuple[str, str, str]] = []
    nested: list[str] = []
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            nested += [f"\n## {key}\n\n{prose(inner.__doc__)}\n", *_tables(inner, f"{key}.")]
            continue
        rows.append((code(key), _default(field), line(field.description or "") + _choices(inner)))
    return ["\n" + table(("key", "default", ""), rows), *nested]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "*required*"
    value: Any = field.default
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return codes(value) or "none"
    return code(str(value).lower() if isinstance(value, bool) else value)


def _choices(annotation: Any) -> str:
    values = get_args(annotation)
    if get_origin(annotation) is None or not all(isinstance(value, str) for value in values) or not values:
        return ""
    return f" One of {codes(values)}."
