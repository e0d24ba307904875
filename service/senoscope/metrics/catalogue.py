"""Every metric that a service has: name, type, labels and meaning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)

Kind = Literal["counter", "gauge", "histogram", "info"]
_UNITS: Final = frozenset({"seconds", "bytes", "ratio", "bits"})


@dataclass(frozen=True)
class Declared:
    """A metric; its labels have few values, none of which a client can choose.

    Attributes
    ----------
    kind : {"counter", "gauge", "histogram", "info"}
    name : str
        As in a scrape, with ``_total`` or ``_info``.
    help : str
    labels : tuple of str
    """

    kind: Kind
    name: str
    help: str
    labels: tuple[str, ...] = ()

    @property
    def family(self) -> str:
        """The name without the suffix of its type."""
        return self.name.removesuffix("_total").removesuffix("_info")

    @property
    def unit(self) -> str:
        """The base unit, which is the last word of the family's name; empty where things are counted."""
        word = self.family.rpartition("_")[2]
        return word if word in _UNITS else ""

    def gather(self) -> CounterMetricFamily | GaugeMetricFamily:
        """A family to be filled while it is scraped."""
        kind = CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily
        return kind(self.family, self.help, labels=self.labels, unit=self.unit)

    def inform(self, facts: dict[str, str] | None) -> Metric:
        """A family that only tells facts; empty while there are none."""
        family = InfoMetricFamily(self.family, self.help)
        if facts is not None:
            family.add_metric((), facts)
        return family

    def counter(self, registry: CollectorRegistry) -> Counter:
        """One that counts by itself."""
        return Counter(self.family, self.help, self.labels, unit=self.unit, registry=registry)

    def histogram(self, registry: CollectorRegistry, buckets: tuple[float, ...]) -> Histogram:
        """One that observes."""
        return Histogram(
            self.family, self.help, self.labels, unit=self.unit, registry=registry, buckets=buckets
        )


ALL: list[Declared] = []


def _declare(kind: Kind, name: str, help_text: str, *labels: str) -> Declared:
    declared = Declared(kind, name, help_text, labels)
    ALL.append(declared)
    return declared


BUILD = _declare("info", "senoscope_build_info", "The version that runs.", "version")
MODEL = _declare(
    "info",
    "senoscope_model_info",
    "The ensemble in use, and what computes it.",
    "name",
    "version",
    "digest",
    "device",
    "for_science",
)
READY = _declare("gauge", "senoscope_ready", "1 while fields of view can be classified.")
DEGRADED = _declare(
    "gauge", "senoscope_degraded", "1 while something around the classification fails, such as the run log."
)
THREAD_UP = _declare("gauge", "senoscope_thread_up", "1 while the thread runs.", "thread")
THREAD_DEATHS = _declare(
    "counter",
    "senoscope_thread_deaths_total",
    "How often the thread died; most are restarted.",
    "thread",
)
DEADLINE = _declare(
    "gauge", "senoscope_deadline_seconds", "What a frame may take from arrival to result (--deadline-ms)."
)

CONNECTED = _declare("gauge", "senoscope_stream_connected", "1 while the frame publisher is connected.")
CONNECTIONS = _declare("counter", "senoscope_stream_connections_total", "Connections to the frame publisher.")
STREAM_REFUSALS = _declare(
    "counter",
    "senoscope_stream_refusals_total",
    "How often the frame publisher refused this service.",
)
STREAM_FAULTS = _declare(
    "counter",
    "senoscope_stream_faults_total",
    "Connections to the frame publisher that ended: lost, without a handshake, or because they broke the "
    "protocol.",
    "reason",
)
SILENCE = _declare(
    "gauge",
    "senoscope_stream_silence_seconds",
    "Since the frame publisher's last message, heartbeats too.",
)
MESSAGES = _declare("counter", "senoscope_stream_messages_total", "Messages of the stream that came.", "type")
REJECTED = _declare(
    "counter",
    "senoscope_stream_rejected_total",
    "Messages that broke the format or fit no ensemble.",
    "reason",
)
MISSING = _declare(
    "gauge",
    "senoscope_stream_frames_missing",
    "Gaps: frames of the remembered series that were sent but never came; a late one fills its gap.",
)
REPEATED = _declare(
    "gauge", "senoscope_stream_frames_repeated", "Frames of the remembered series that came again."
)
IMPLAUSIBLE = _declare(
    "counter",
    "senoscope_frame_timestamps_implausible_total",
    "Frames whose timestamp is in the future or over a minute old, by the two machines' clocks.",
)

WAITING = _declare("gauge", "senoscope_lane_waiting", "Fields of view that wait to be computed.", "lane")
CAPACITY = _declare("gauge", "senoscope_lane_capacity", "How many may wait.", "lane")
COMPUTED = _declare("counter", "senoscope_fovs_computed_total", "Fields of view that were computed.", "lane")
DROPPED = _declare(
    "counter",
    "senoscope_frames_dropped_total",
    "Frames that came and were not computed: the live lane was full, or another ensemble took over.",
    "reason",
)
FAILED = _declare("counter", "senoscope_frames_failed_total", "Frames that the engine failed on.")
RESULTS_FAILED = _declare(
    "counter",
    "senoscope_results_failed_total",
    "Computed fields of view that got no result.",
)
RETRIES = _declare("counter", "senoscope_engine_retries_total", "Batches that the engine was given twice.")
MISSES = _declare(
    "counter", "senoscope_deadline_misses_total", "Frames whose result took longer than the deadline."
)

RESULTS = _declare("counter", "senoscope_results_total", "Results that were told.", "source", "label")
TRANSPORT = _declare(
    "histogram",
    "senoscope_fov_transport_seconds",
    "From a frame's timestamp to its arrival, by the two machines' clocks; implausible ones are left out.",
)
QUEUE = _declare(
    "histogram", "senoscope_fov_queue_seconds", "From arrival to the start of the computation.", "source"
)
COMPUTE = _declare(
    "histogram",
    "senoscope_fov_compute_seconds",
    "In the engine; a batch's time counts for each FOV.",
    "source",
)
LATENCY = _declare("histogram", "senoscope_fov_latency_seconds", "From arrival to result.", "source")
COMMIT = _declare(
    "histogram", "senoscope_fov_commit_seconds", "From result until it was in the run log, or could not be."
)
NOTIFY = _declare(
    *(
        "histogram",
        "senoscope_fov_tell_seconds",
        "From the commit to the run log until all outputs were notified.",
    )
)
ENTROPY = _declare(
    "histogram",
    "senoscope_result_entropy_bits",
    "Uncertainty: entropy of the ensemble's probability, 0 (sure) to 1.",
    "source",
)
SATURATED = _declare(
    "histogram",
    "senoscope_fov_saturated_ratio",
    "Fraction of the pixels above the intensity range.",
    "channel",
)

LOG_WRITTEN = _declare("counter", "senoscope_run_log_written_total", "Results written to the run log.")
LOG_WAITING = _declare("gauge", "senoscope_run_log_waiting", "Results that wait in memory for the run log.")
LOG_LOST = _declare(
    "counter", "senoscope_run_log_lost_total", "Results that the run log lost: too many waited."
)
LOG_STATE = _declare("gauge", "senoscope_run_log_state", "1 for the state that the run log is in.", "state")
ARCHIVE_UP = _declare("gauge", "senoscope_archive_up", "1 while pixels are kept (--archive).")
ARCHIVE_WRITTEN = _declare("counter", "senoscope_archive_written_total", "Fields of view in the archive.")
ARCHIVE_LOST = _declare(
    "counter",
    "senoscope_archive_lost_total",
    "Fields of view that the archive lost: its disk was too slow or full.",
)

SUBSCRIBERS = _declare(
    "gauge", "senoscope_subscribers", "Connections of that kind that are told of results.", "kind"
)
SUBSCRIBERS_REFUSED = _declare(
    "counter", "senoscope_subscribers_refused_total", "Subscribers that were not let in.", "kind", "reason"
)
SUBSCRIBERS_LOST = _declare(
    "counter",
    "senoscope_subscribers_dropped_total",
    "Results that slow subscribers did not get; ZeroMQ does not tell what it drops.",
    "kind",
)

REQUESTS = _declare(
    "counter",
    "senoscope_http_requests_total",
    "Requests that were answered, WebSockets that opened.",
    "route",
    "method",
    "status",
)
DURATION = _declare(
    *(
        "histogram",
        "senoscope_http_request_duration_seconds",
        "From a request's head to the end of its answer.",
    ),
    *("route", "method"),
)
REQUESTS_REFUSED = _declare(
    "counter", "senoscope_requests_refused_total", "Requests that the guard refused.", "reason"
)

MEMORY_USED = _declare(
    "gauge", "senoscope_device_memory_used_bytes", "Memory of the GPU that is in use, by whomever.", "device"
)
MEMORY_SIZE = _declare("gauge", "senoscope_device_memory_size_bytes", "Memory of the GPU.", "device")
SPANS = _declare("counter", "senoscope_trace_spans_total", "Spans that were made (--otlp-endpoint).")
SPANS_SENT = _declare(
    "counter",
    "senoscope_trace_spans_sent_total",
    "Spans that the collector took; the others wait or are lost.",
)
