"""Sanitizing of untrusted text for messages, headers, logs and JSON."""

from __future__ import annotations

from typing import Final

_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"


def sanitize_for_display(text: str, limit: int) -> str:
    """Truncate text to ``limit`` characters, and replace unprintable ones, such as line ends."""
    cut = text if len(text) <= limit else f"{text[: limit - 1]}…"
    return "".join(character if character.isprintable() else _REPLACEMENT for character in cut)
