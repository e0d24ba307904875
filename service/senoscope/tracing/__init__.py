"""Traces of requests and results, where they are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from senoscope_client.errors import NotReady

if TYPE_CHECKING:
    from senoscope.tracing.spans import Traces


def open_traces(endpoint: str) -> Traces | None:
    """Traces that go to an OTLP/HTTP collector; None where no endpoint is given.

    Raises
    ------
    NotReady
        If what they need is not installed.
    """
    if not endpoint:
        return None
    try:
        from senoscope.tracing.spans import Traces
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "opentelemetry":
            raise
        raise NotReady(
            '--otlp-endpoint needs OpenTelemetry, which is not installed: `pip install "senoscope[otel]"`'
        ) from None
    return Traces(endpoint)
