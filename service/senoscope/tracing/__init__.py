"""Traces of requests and results, if the settings name a collector."""

from __future__ import annotations

from typing import TYPE_CHECKING

from senoscope_client.errors import NotReady

if TYPE_CHECKING:
    from senoscope.tracing.spans import Traces


def open_traces(endpoint: str) -> Traces | None:
    """Return traces that are sent to an OTLP/HTTP collector, or None if no endpoint is given.

    Raises
    ------
    NotReady
        If OpenTelemetry is not installed.
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
