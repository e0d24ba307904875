"""Text from strangers, made fit to be told: in messages, headers, logs and JSON."""

from __future__ import annotations

from typing import Final

_UNFIT: Final = "\N{REPLACEMENT CHARACTER}"


def tellable(text: str, limit: int) -> str:
    """The text without what cannot be printed, such as line ends and halves of characters, and cut off."""
    cut = text if len(text) <= limit else f"{text[: limit - 1]}…"
    return "".join(character if character.isprintable() else _UNFIT for character in cut)
