"""The reference of the configuration file, made from its typed model."""

from __future__ import annotations

from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from senoscope_training.config import Config

_HEAD = """# The configuration file

YAML; every key but `name` and `data.path` has the paper's value as its default. Unknown keys are refused.
Made from `senoscope_training.config` by `python docs/make/configuration.py`.
"""


def reference() -> str:
    """The reference as Markdown."""
    parts = [_HEAD, *_tables(Config, "")]
    return "\n".join(parts)


def _tables(model: type[BaseModel], prefix: str) -> list[str]:
    rows = ["| key | default | |", "|---|---|---|"]
    nested: list[str] = []
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            nested += [f"\n## {key}\n\n{(inner.__doc__ or '').strip()}\n", *_tables(inner, f"{key}.")]
            continue
        text = " ".join((field.description or "").split())
        rows.append(f"| `{key}` | {_default(field)} | {text}{_choices(inner)} |")
    return [*rows, *nested]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "*required*"
    value: Any = field.default
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return ", ".join(f"`{item}`" for item in value) or "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _choices(annotation: Any) -> str:
    values = get_args(annotation)
    if get_origin(annotation) is None or not all(isinstance(value, str) for value in values) or not values:
        return ""
    return f" One of {', '.join(f'`{value}`' for value in values)}."
