"""Which form of an answer a client likes."""

from __future__ import annotations


def wants_csv(accept: str) -> bool:
    """Whether CSV is named, and not less liked than JSON (RFC 9110, section 12.5.1)."""
    liked = {}
    for part in accept.lower().split(","):
        kind, *parameters = (text.strip() for text in part.split(";"))
        quality = next((text[2:] for text in parameters if text.startswith("q=")), "1")
        try:
            liked[kind] = float(quality)
        except ValueError:
            liked[kind] = 0.0
    return liked.get("text/csv", 0.0) > 0 and liked["text/csv"] >= liked.get("application/json", 0.0)
