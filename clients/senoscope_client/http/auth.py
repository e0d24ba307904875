"""API keys as a client sends them."""

from __future__ import annotations

import re

# What both an Authorization header and a WebSocket subprotocol can carry.
KEY_PATTERN = re.compile(r"[A-Za-z0-9._~-]+")


def authorization(api_key: str | None) -> dict[str, str]:
    """The header that carries a key; none without one.

    Raises
    ------
    ValueError
        If the text cannot be a key; it is not repeated in the message.
    """
    if api_key is None:
        return {}
    if not KEY_PATTERN.fullmatch(api_key):
        raise ValueError("the API key is empty or has characters that no key has; was it copied whole?")
    return {"Authorization": f"Bearer {api_key}"}
