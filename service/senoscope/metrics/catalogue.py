"""All metrics of a service: name, type, labels and help text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)

Kind = Literal["counter", "gauge", "histogram", "info"]
Values = float | Mapping[str, float | None] | Mapping[tuple[str, ...], float | None] | None
"""The value of a metric, or one for each value of its labels; None if it is unknown."""

_UNITS: Final = frozenset({"seconds", "bytes", "ratio", "bits"})


@dataclass(frozen=True)
class Declared:
    """The declaration of a metric; its labels have few values, which clients cannot choose."""

    kind: Kind
    name: str  # as in a scrape, with ``_total`` or ``_info``
    help: str
    labels: tuple[str, ...] = ()

    @property
    def family(self) -> str:
        """The name without the suffix of its type."""
        return self.name.removesuffix("_total").removesuffix("_info")

    @property
    def unit(self) -> str:
        """The base unit, which is the last word of the family's name; empty for counts."""
        word = self.family.rpartition("_")[2]
        return word if word in _UNITS else ""

    def gather(self, values: Values) -> Metric:
        """Return a family of the values that are known."""
        kind = CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily
        family = kind(self.family, self.help, labels=self.labels, unit=self.unit)
        for labels, value in (values if isinstance(values, Mapping) else {(): values}).items():
            if value is not None:
                family.add_metric([labels] if isinstance(labels, str) else labels, float(value))
        return family

    def inform(self, facts: dict[str, str] | None) -> Metric:
        """Return a family whose labels are facts; empty while there are none."""
        family = InfoMetricFamily(self.family, self.help)
        if facts is not None:
            family.add_metric((), facts)
        return family

    def counter(self, registry: CollectorRegistry) -> Counter:
        """Return a registered counter."""
        return Counter(self.family, self.help, self.labels, unit=self.unit, registry=registry)

    def histogram(self, registry: CollectorRegistry, buckets: tuple[float, ...]) -> Histogram:
        """Return a registered histogram."""
        return Histogram(
            self.family, self.help, self.labels, unit=self.unit, registry=registry, buckets=buckets
        )


ALL: list[Declared] = []


def _declare(kind: Kind, name: str, help_text: str, *labels: str) -> Declared:
    declared = Declared(kind, name, help_text, labels)
    ALL.append(declared)
    return declared


_counter = partial(_declare, "counter")
_gauge = partial(_declare, "gauge")
_histogram = partial(_declare, "histogram")
_info = partial(_declare, "info")

BUILD = _info("senoscope_build_info", "Version of the service.", "version")
MODEL = _info(
    "senoscope_model_info",
    "The ensemble in use, and the device and the precision that it is computed with.",
    "name",
    "version",
    "digest",
    "device",
    "precision",
    "for_science",
)
READY = _gauge("senoscope_ready", "1 while fields of view can be classified.")
DEGRADED = _gauge(
    "senoscope_degraded",
    "1 while fields of view are classified, but another part fails, such as the run log.",
)
THREAD_UP = _gauge("senoscope_thread_up", "1 while the thread runs.", "thread")
THREAD_DEATHS = _counter(
    "senoscope_thread_deaths_total", "Failures of the thread; most threads are restarted.", "thread"
)
DEADLINE = _gauge(
    "senoscope_deadline_seconds", "Time allowed from a frame's arrival to its result (--deadline-ms)."
)

CONNECTED = _gauge("senoscope_stream_connected", "1 while the frame publisher is connected.")
CONNECTIONS = _counter("senoscope_stream_connections_total", "Connections to the frame publisher.")
STREAM_REFUSALS = _counter(
    "senoscope_stream_refusals_total", "Refusals of this service by the frame publisher."
)
STREAM_FAULTS = _counter(
    "senoscope_stream_faults_total",
    "Connections to the frame publisher that ended: lost, without a handshake, or with a violation of "
    "the protocol.",
    "reason",
)
SILENCE = _gauge(
    "senoscope_stream_silence_seconds", "Time since the frame publisher's last message, including heartbeats."
)
MESSAGES = _counter("senoscope_stream_messages_total", "Messages received on the stream.", "type")
REJECTED = _counter(
    "senoscope_stream_rejected_total",
    "Messages that violate the format, or do not fit the ensemble.",
    "reason",
)
MISSING = _gauge(
    "senoscope_stream_frames_missing",
    "Frames of the most recent series that were sent but not received; a frame that arrives late is removed.",
)
REPEATED = _gauge(
    "senoscope_stream_frames_repeated", "Frames of the most recent series that were received again."
)
IMPLAUSIBLE = _counter(
    "senoscope_frame_timestamps_implausible_total",
    "Frames with a timestamp in the future or over a minute old, by the clocks of both machines.",
)

WATCHED = _counter(
    "senoscope_watched_files_total",
    "Files of the watched folder (--watch): classified, unreadable, or changed after they were classified.",
    "outcome",
)
WATCHED_WAITING = _gauge(
    "senoscope_watched_files_waiting", "Files of the watched folder that are not classified yet."
)

WAITING = _gauge("senoscope_lane_waiting", "Fields of view that wait to be computed.", "lane")
CAPACITY = _gauge("senoscope_lane_capacity", "Fields of view that may wait.", "lane")
COMPUTED = _counter("senoscope_fovs_computed_total", "Fields of view that were computed.", "lane")
DROPPED = _counter(
    "senoscope_frames_dropped_total",
    "Frames that were received and not computed: the live lane was full, another ensemble took over, or "
    "the service stopped.",
    "reason",
)
FAILED = _counter("senoscope_frames_failed_total", "Frames that the engine failed on.")
RESULTS_FAILED = _counter(
    "senoscope_results_failed_total", "Computed fields of view of which no result could be made."
)
RETRIES = _counter(
    "senoscope_engine_retries_total", "Batches that the engine computed again after a failure."
)
MISSES = _counter("senoscope_deadline_misses_total", "Frames whose result took longer than the deadline.")

RESULTS = _counter("senoscope_results_total", "Results that were sent.", "source", "label")
TRANSPORT = _histogram(
    "senoscope_fov_transport_seconds",
    "From a frame's timestamp to its arrival, by the clocks of both machines; without implausible ones.",
)
QUEUE = _histogram("senoscope_fov_queue_seconds", "From arrival to the start of the computation.", "source")
COMPUTE = _histogram(
    "senoscope_fov_compute_seconds",
    "In the engine; each field of view of a batch has the time of the batch.",
    "source",
)
LATENCY = _histogram("senoscope_fov_latency_seconds", "From arrival to result.", "source")
COMMIT = _histogram(
    "senoscope_fov_commit_seconds", "From result until it was in the run log, or could not be logged."
)
NOTIFY = _histogram(
    "senoscope_fov_tell_seconds", "From the commit to the run log until all outputs were notified."
)
ENTROPY = _histogram(
    "senoscope_result_entropy_bits",
    "Uncertainty: entropy of the ensemble's probability, 0 (sure) to 1.",
    "source",
)
SATURATED = _histogram(
    "senoscope_fov_saturated_ratio", "Fraction of the pixels above the intensity range.", "channel"
)

LOG_WRITTEN = _counter("senoscope_run_log_written_total", "Results written to the run log.")
LOG_WAITING = _gauge("senoscope_run_log_waiting", "Results that wait in memory for the run log.")
LOG_LOST = _counter(
    "senoscope_run_log_lost_total", "Results that are missing in the run log because too many waited."
)
LOG_STATE = _gauge("senoscope_run_log_state", "1 for the state that the run log is in.", "state")
ARCHIVE_UP = _gauge("senoscope_archive_up", "1 while pixels are archived (--archive).")
ARCHIVE_WRITTEN = _counter("senoscope_archive_written_total", "Fields of view in the archive.")
ARCHIVE_LOST = _counter(
    "senoscope_archive_lost_total",
    "Fields of view that could not be archived: the disk was too slow or full.",
)

SUBSCRIBERS = _gauge("senoscope_subscribers", "Connections that results are sent to.", "kind")
SUBSCRIBERS_REFUSED = _counter(
    "senoscope_subscribers_refused_total", "Subscribers that were refused.", "kind", "reason"
)
SUBSCRIBERS_LOST = _counter(
    "senoscope_subscribers_dropped_total",
    "Results that were dropped for slow subscribers; ZeroMQ does not report what it drops.",
    "kind",
)

REQUESTS = _counter(
    "senoscope_http_requests_total",
    "Requests that were answered, and WebSockets that were opened.",
    "route",
    "method",
    "status",
)
DURATION = _histogram(
    "senoscope_http_request_duration_seconds",
    "From a request's head to the end of its answer.",
    "route",
    "method",
)
REQUESTS_REFUSED = _counter(
    "senoscope_requests_refused_total", "Requests that were refused by access control.", "reason"
)

MEMORY_USED = _gauge(
    "senoscope_device_memory_used_bytes", "Memory of the GPU in use by all processes.", "device"
)
MEMORY_SIZE = _gauge("senoscope_device_memory_size_bytes", "Memory of the GPU.", "device")
SPANS = _counter("senoscope_trace_spans_total", "Spans that were made (--otlp-endpoint).")
SPANS_SENT = _counter(
    "senoscope_trace_spans_sent_total", "Spans that the collector accepted; the others wait or are lost."
)
