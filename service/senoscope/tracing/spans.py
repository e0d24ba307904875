"""Spans of requests and of results, made from times that are measured in any case."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from typing import Final

import structlog
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from senoscope import __version__
from senoscope.logs import about
from senoscope.results.delivery import DeliveryTimes, ResultSink, SinkStage
from senoscope.results.record import Record
from senoscope_client.models.status import TracesStatus

_log = structlog.get_logger(__name__)
# About 8 MB; a minute of frames at 25 Hz.
_QUEUE: Final = 8192
_BATCH: Final = 512
_INTERVAL_MS: Final = 1000
_TIMEOUT_S: Final = 5.0
_FLUSH_S: Final = 2.0
_NO_PARENT: Final = Context()
_W3C: Final = TraceContextTextMapPropagator()


class _CountingExporter(OTLPSpanExporter):
    """Counts the spans that the collector accepted, and logs when it stops or starts to accept them."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(f"{endpoint.rstrip('/')}/v1/traces", timeout=_TIMEOUT_S)
        self._collector = endpoint
        self._works = True
        self.sent = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch; called from the processor's thread."""
        result = super().export(spans)
        works = result is SpanExportResult.SUCCESS
        self.sent += works * len(spans)
        if works and not self._works:
            _log.info("traces are accepted again", endpoint=self._collector)
        elif self._works and not works:
            _log.warning("traces are not accepted, and are lost", endpoint=self._collector)
        self._works = works
        return result


class _CountingProcessor(BatchSpanProcessor):
    """Counts the spans that it queues for the exporter's thread; a full queue drops the oldest."""

    made = 0

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a span."""
        self.made += 1
        super().on_end(span)


class Traces:
    """The maker of spans, which never waits for the collector.

    Parameters
    ----------
    endpoint : str
        Of an OTLP/HTTP collector, without ``/v1/traces``. Headers are set by the variable
        ``OTEL_EXPORTER_OTLP_HEADERS``, which the exporter reads.

    Attributes
    ----------
    results : ResultSpans
        The sink of results.
    """

    def __init__(self, endpoint: str) -> None:
        self._exporter = _CountingExporter(endpoint)
        self._processor = _CountingProcessor(
            self._exporter,
            max_queue_size=_QUEUE,
            schedule_delay_millis=_INTERVAL_MS,
            max_export_batch_size=_BATCH,
        )
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": "senoscope", "service.version": __version__}),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(self._processor)
        self._tracer = self._provider.get_tracer("senoscope", __version__)
        self.results = ResultSpans(self._tracer)

    def begin_request(self, headers: Iterable[tuple[bytes, bytes]]) -> Context:
        """Begin the span of a request, as a child of the one in its headers (W3C Trace Context)."""
        carrier = {
            name.decode(): value.decode("latin-1")
            for name, value in headers
            if name in {b"traceparent", b"tracestate"}
        }
        parent = _W3C.extract(carrier, _NO_PARENT) if carrier else _NO_PARENT
        span = self._tracer.start_span("request", parent, SpanKind.SERVER)
        return set_span_in_context(span, _NO_PARENT)

    @staticmethod
    def end_request(
        context: Context, method: str, route: str | None, path: str, status: int, request_id: str
    ) -> None:
        """End the span of a request, with the facts of its answer."""
        span = get_current_span(context)
        span.update_name(f"{method} {route}" if route else method)
        span.set_attributes(
            {
                "http.request.method": method,
                "http.response.status_code": status,
                "url.path": path,
                "senoscope.request_id": request_id,
                **({"http.route": route} if route else {}),
            }
        )
        if status >= 500:
            span.set_status(StatusCode.ERROR)
        span.end()

    def status(self) -> TracesStatus:
        """Return how many spans were made, and how many the collector accepted; others wait or are lost."""
        return TracesStatus(made=self._processor.made, sent=self._exporter.sent)

    def close(self) -> None:
        """Send the spans that wait, if that is possible within two seconds."""
        # A collector that does not respond would delay this for longer.
        closing = threading.Thread(target=self._provider.shutdown, name="traces flush", daemon=True)
        closing.start()
        closing.join(_FLUSH_S)


class ResultSpans(ResultSink):
    """The sink that makes the spans of each result."""

    stage = SinkStage.OBSERVE

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def on_result(self, record: Record, times: DeliveryTimes) -> None:
        """Make the spans of a result."""
        fov, result = record.fov, record.result
        parent = fov.request.span if fov.request is not None and fov.request.span is not None else _NO_PARENT
        started_s = fov.arrived_s + result.timing_ms.queue / 1e3
        made_s = fov.arrived_s + result.timing_ms.total / 1e3
        epoch_ns = time.time_ns() - time.perf_counter_ns()
        whole = self._tracer.start_span(
            "field of view",
            parent,
            attributes={
                "senoscope.result_id": str(result.id),
                "senoscope.label": result.label,
                "senoscope.probability": result.probability,
                "senoscope.deadline_met": result.deadline_met,
                "senoscope.precision": result.model.precision,
                **{f"senoscope.{name}": fact for name, fact in about(fov).items()},
            },
            start_time=epoch_ns + int(fov.arrived_s * 1e9),
        )
        if whole.is_recording():
            within = set_span_in_context(whole, _NO_PARENT)
            for name, from_s, to_s in (
                ("queue", fov.arrived_s, started_s),
                ("compute", started_s, started_s + result.timing_ms.compute / 1e3),
                ("log commit", made_s, times.logged_s),
                ("publish", times.logged_s, times.notified_s),
            ):
                part: Span = self._tracer.start_span(name, within, start_time=epoch_ns + int(from_s * 1e9))
                part.end(epoch_ns + int(to_s * 1e9))
        whole.end(epoch_ns + int(times.notified_s * 1e9))
