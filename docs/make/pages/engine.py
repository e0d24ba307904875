"""The reference of the engine as a library, generated from the docstrings of its public names."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

import senoscope
from pages.markdown import code, table
from senoscope import engine

_HEAD = """# The engine

The public names of `senoscope` and `senoscope.engine`; [The engine as a
library](../how-to/engine-as-a-library.md) has examples. Arrays are described by their dtype and shape: N
fields of view, C channels, H rows, W columns, K networks.

Generated from the docstrings by `python docs/make/reference.py`.
"""
_TABLES = {
    "Parameters": ("parameter", "type", ""),
    "Attributes": ("attribute", "type", ""),
    "Returns": ("returns", "type", ""),
    "Raises": ("raises", ""),
}
_LONGEST_LINE = 80


def page() -> str:
    """Return the reference as Markdown."""
    parts = [_HEAD]
    seen: set[int] = set()
    for module in (senoscope, engine):
        for name in module.__all__:
            value = getattr(module, name)
            if not name.startswith("__") and id(value) not in seen:
                seen.add(id(value))
                parts += _name(module.__name__, name, value)
    return "".join(parts)


def _name(module: str, name: str, value: Any) -> Iterator[str]:
    yield f"\n## {module}.{name}\n"
    if not inspect.isclass(value):
        yield _signature(name, value) + _docstring(value)
        return
    if dataclasses.is_dataclass(value):
        yield _signature(name, value)
    if issubclass(value, BaseModel):
        yield f"\n{_prose(value.__doc__)}\n"
        yield "\nA pydantic model with the fields of [the manifest](manifest.md).\n"
        return
    yield _docstring(value)
    for member_name, member in vars(value).items():
        if not member_name.startswith("_"):
            yield from _member(name, member_name, member)


def _member(of: str, name: str, member: Any) -> Iterator[str]:
    if isinstance(member, property):
        kind = inspect.signature(member.fget).return_annotation  # type: ignore[arg-type]
        yield f"\n### {of}.{name}\n\nA property of type `{kind}`.\n{_docstring(member)}"
    elif isinstance(member, (classmethod, staticmethod)) or inspect.isfunction(member):
        function = getattr(member, "__func__", member)
        yield f"\n### {of}.{name}\n{_signature(name, function, method=True)}{_docstring(function)}"


def _signature(name: str, value: Any, *, method: bool = False) -> str:
    signature = inspect.signature(value)
    texts: list[str] = []
    for parameter in [*signature.parameters.values()][1 if method else 0 :]:
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in texts:
            texts.append("*")
        texts.append(_parameter(parameter))
    arrow = "" if inspect.isclass(value) else f" -> {signature.return_annotation}"
    line = f"{name}({', '.join(texts)}){arrow}"
    if len(line) > _LONGEST_LINE:
        line = f"{name}(\n" + "".join(f"    {text},\n" for text in texts) + f"){arrow}"
    return f"\n```text\n{line}\n```\n"


def _parameter(parameter: inspect.Parameter) -> str:
    text = f"{parameter.name}: {parameter.annotation}".replace("'", '"')
    if parameter.default is parameter.empty:
        return text
    default = parameter.default
    return f'{text} = "{default}"' if isinstance(default, str) else f"{text} = {default}"


def _docstring(value: Any) -> str:
    text = inspect.cleandoc(value.__doc__ or "")
    parts = [f"\n{_prose(text)}\n"]
    for heading, body in _sections(text):
        if heading in _TABLES:
            rows = list(_entries(heading, body))
            unnamed = heading == "Returns" and not rows[0][0]
            parts.append(_unnamed(rows[0]) if unnamed else "\n" + table(_TABLES[heading], rows))
        elif heading == "Notes":
            parts.append(f"\n{_prose(body)}\n")
    return "".join(parts)


def _unnamed(row: tuple[str, ...]) -> str:
    _, kind, meaning = row
    return f"\nReturns: {kind}. {meaning}".rstrip() + "\n"


def _sections(text: str) -> Iterator[tuple[str, str]]:
    """Yield heading and body of each section of a numpy docstring."""
    parts = re.split(r"(?m)^(\w+)\n-+\n", text)
    yield from zip(parts[1::2], parts[2::2], strict=True)


def _entries(heading: str, body: str) -> Iterator[tuple[str, ...]]:
    """Yield the rows of a section: name, type and meaning, or for errors class and meaning."""
    for entry in re.split(r"(?m)^(?=\S)", body.strip())[1:]:
        first, _, meaning = entry.partition("\n")
        name, _, kind = first.partition(" : ")
        if heading == "Raises":
            yield ", ".join(code(one) for one in first.split(", ")), _line(meaning)
        elif heading == "Returns" and not kind:
            yield "", _line(first), _line(meaning)
        else:
            yield ", ".join(code(one) for one in name.split(", ")), _line(kind), _line(meaning)


def _prose(text: str | None) -> str:
    before = re.split(r"(?m)^\w+\n-+\n", inspect.cleandoc(text or ""))[0]
    return "\n\n".join(_line(paragraph) for paragraph in re.split(r"\n\s*\n", before.strip()))


def _line(text: str) -> str:
    text = re.sub(r":\w+:`~?([\w.]+)`", r"`\1`", text.replace("``", "`"))
    return " ".join(text.split())
