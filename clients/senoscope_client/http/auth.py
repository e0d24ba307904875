"""API keys as a client sends them."""

from __future__ import annotations

import re

# Characters that are allowed both in an Authorization header and in a WebSocket subprotocol.
KEY_PATTERN = re.compile(r"[A-Za-z0-9._~-]+")


def authorization_header(api_key: str | None) -> dict[str, str]:
    """Return the header that carries a key; empty without a key.

    Raises
    ------
    ValueError
        If the text is not a valid key; the message does not repeat it.
    """
    if api_key is None:
        return {}
    if not KEY_PATTERN.fullmatch(api_key):
        raise ValueError(
            "the API key is empty or contains characters that are not allowed; check that it was copied "
            "completely"
        )
    return {"Authorization": f"Bearer {api_key}"}
