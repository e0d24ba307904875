"""Markdown that MkDocs and GitHub render alike."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int] = ()) -> str:
    """Return a table; columns in ``numbers`` are right-aligned.

    Raises
    ------
    ValueError
        If a cell has a bar in a code span, which the two render differently.
    """
    right = set(numbers)
    rule = ["---:" if n in right else "---" for n in range(len(headings))]
    lines = [_line(headings), f"|{'|'.join(rule)}|", *map(_line, rows)]
    return "\n".join(lines) + "\n"


def code(text: object) -> str:
    """Return text as a code span."""
    return f"`{text}`"


def codes(texts: Iterable[object], between: str = ", ") -> str:
    """Return several texts as code spans."""
    return between.join(map(code, texts))


def prose(docstring: str | None) -> str:
    """Return the prose of a docstring or help text as Markdown, with single backticks for code.

    Sections such as ``Attributes`` are omitted; `attributes` reads them.
    """
    text = re.split(r"(?m)^ *\w+\n *-+$", docstring or "")[0]
    paragraphs = re.split(r"\n\s*\n", text.strip())
    return "\n\n".join(line(paragraph) for paragraph in paragraphs)


def line(text: str) -> str:
    """Return text of a docstring on one line."""
    return re.sub(r"\bNone\b", "null", " ".join(text.replace("``", "`").split()))


def attributes(docstring: str | None) -> dict[str, str]:
    """Return the meanings in the section ``Attributes`` of a numpy docstring, by name."""
    _, heading, section = (docstring or "").partition("Attributes\n")
    found: dict[str, str] = {}
    if not heading:
        return found
    indent = re.search(r"(?m)^( *)-+$", section)
    margin = indent[1] if indent else ""
    for entry in re.split(rf"(?m)^{margin}(?=\w)", section)[1:]:
        names, _, meaning = entry.partition("\n")
        text = line(meaning.partition("\n\n")[0])
        found |= {name.strip(): text for name in names.partition(" : ")[0].split(",")}
    return found


def _escaped(text: str) -> str:
    return re.sub(r"<(?!br>)", "&lt;", text.replace("|", "&#124;"))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(text: str) -> str:
    text = " ".join(text.split())
    parts = text.split("`")
    if any("|" in span for span in parts[1::2]):
        raise ValueError(f"a bar in code would end the cell: {text}")
    parts[::2] = [_escaped(part) for part in parts[::2]]
    return "`".join(parts)
