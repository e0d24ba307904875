"""The one error that only a client knows: nobody answers."""

from __future__ import annotations

from senoscope_client.errors import SenoscopeError


class Unreachable(SenoscopeError):
    """There is no service at the address, or the connection to it was lost."""

    code, status, title = "unreachable", 503, "Service unreachable"
