"""What the service answers to HTTP requests, beside results."""

from __future__ import annotations

from senoscope_client._model import OpenModel
from senoscope_client.result import Result


class ClassifyResponse(OpenModel):
    """The answer to a posted stack.

    Attributes
    ----------
    results : tuple of Result
        One per field of view, in the order of the stack.
    warnings : tuple of str
        What the service assumed about the file.
    count : int
        How many fields of view the stack held.
    """

    results: tuple[Result, ...]
    warnings: tuple[str, ...] = ()
    count: int


class ReadyResponse(OpenModel):
    """Whether the service takes work, and if not, why."""

    status: str
    reason: str | None = None

    @property
    def ready(self) -> bool:
        """Whether it does."""
        return self.status == "ready"
