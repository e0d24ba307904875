"""Metrics of a real server."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import zmq
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from senoscope.access.api_keys import add_key
from senoscope.api.app import create_app
from senoscope.engine.devices import gpu_problem
from senoscope.metrics import catalogue
from senoscope.metrics.device import GpuMemory
from senoscope.metrics.results import latency_buckets
from senoscope.service import Service
from senoscope.settings import Settings
from senoscope_client.wire.messages import Timestamp
from support import miniature as mini
from support.image_bytes import npy
from support.raw_microscope import Microscope
from support.servers import Server, start_server, stop_server


class Scrape:
    """The samples of one scrape."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families: list[Metric] = list(text_string_to_metric_families(text))
        self.samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families
            for sample in family.samples
        }

    def get(self, sample: str, default: float | None = None, /, **labels: str) -> float:
        value = self.samples.get((sample, frozenset(labels.items())), default)
        assert value is not None, f"{sample}{labels} is not there"
        return value

    def values(self, label: str) -> set[str]:
        return {value for _, labels in self.samples for key, value in labels if key == label}


def scrape(server: Server, **options) -> Scrape:
    answer = httpx.get(f"{server.url}/metrics", **options)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain")
    return Scrape(answer.text)


def until(server: Server, condition: Callable[[Scrape], bool]) -> Scrape:
    deadline = time.monotonic() + 90
    while not condition(seen := scrape(server)):
        assert time.monotonic() < deadline, seen.text
        time.sleep(0.05)
    return seen


def post(server: Server, pixels: np.ndarray, **options) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/classify", content=npy(pixels), timeout=30, **options)


@pytest.fixture
def microscope(server: Server) -> Iterator[Microscope]:
    scope = Microscope(server.frames)
    yield scope
    scope.close()
    server.wait(lambda status: not status["receiver"]["connected"])


def now() -> Timestamp:
    return Timestamp.from_ns(time.time_ns())


def test_frames_and_stacks_are_observed(server: Server, microscope: Microscope) -> None:
    before = scrape(server)
    saturated = mini.bright()
    saturated[0, :125] = 2000  # half of the SRS channel is above the range of 0 to 1000
    microscope.send(
        microscope.frame(0, saturated, timestamp=now()),
        microscope.frame(1, mini.dark(), timestamp=now()),
        microscope.frame(4, mini.dark()),  # two are missing; its timestamp is years old
    )
    assert post(server, np.stack([mini.bright()] * 5)).status_code == 200
    notified = "senoscope_fov_tell_seconds_count"
    after = until(server, lambda seen: seen.get(notified) == before.get(notified) + 8)

    def more(name: str, **labels: str) -> float:
        return after.get(name, **labels) - before.get(name, 0.0, **labels)

    for histogram in ("fov_queue", "fov_compute", "fov_latency"):
        assert more(f"senoscope_{histogram}_seconds_count", source="live") == 3
        assert more(f"senoscope_{histogram}_seconds_count", source="batch") == 5
        assert more(f"senoscope_{histogram}_seconds_sum", source="live") > 0
    assert more("senoscope_results_total", source="live", label="senescent") == 1
    assert more("senoscope_results_total", source="live", label="control") == 2
    assert more("senoscope_results_total", source="batch", label="senescent") == 5
    assert more("senoscope_fovs_computed_total", lane="live") == 3
    assert more("senoscope_fovs_computed_total", lane="batch") == 5
    assert more("senoscope_result_entropy_bits_count", source="live") == 3
    assert 0 < more("senoscope_result_entropy_bits_sum", source="live") <= 3
    assert more("senoscope_fov_saturated_ratio_sum", channel="SRS") == pytest.approx(0.5)
    assert more("senoscope_fov_saturated_ratio_bucket", channel="SRS", le="0.3") == 7
    assert more("senoscope_fov_saturated_ratio_sum", channel="TPEF") == 0
    assert more("senoscope_fov_transport_seconds_count") == 2
    assert more("senoscope_frame_timestamps_implausible_total") == 1
    assert more("senoscope_stream_messages_total", type="image") == 3
    assert more("senoscope_stream_frames_missing") == 2
    assert more("senoscope_run_log_written_total") == 8
    assert more("senoscope_fov_commit_seconds_count") == 8
    assert after.get("senoscope_stream_connected") == 1


def test_counts_are_those_of_the_stream_page(server: Server, microscope: Microscope) -> None:
    notified = "senoscope_fov_tell_seconds_count"
    before = scrape(server).get(notified)
    microscope.send(*(microscope.frame(n) for n in range(3)), [b"fov/nlo-1/image", b"nonsense"])
    server.wait(lambda status: status["receiver"]["rejected"])
    seen = until(server, lambda now: now.get(notified) == before + 3)
    status = server.stream()
    live, receiver = status["live"], status["receiver"]
    assert seen.get("senoscope_deadline_misses_total") == live["late"]
    assert live["dropped"] == sum(live["dropped_reasons"].values())
    for reason, frames in live["dropped_reasons"].items():
        assert seen.get("senoscope_frames_dropped_total", reason=reason) == frames
    assert seen.get("senoscope_frames_failed_total") == live["failed"] == 0
    assert seen.get("senoscope_lane_capacity", lane="live") == live["capacity"] == 8
    assert seen.get("senoscope_lane_capacity", lane="batch") == status["batch"]["capacity"] == 1024
    assert seen.get("senoscope_engine_retries_total") == status["engine"]["retried"] == 0
    assert seen.get("senoscope_results_failed_total") == status["engine"]["results_failed"] == 0
    for reason, count in receiver["rejected"].items():
        assert seen.get("senoscope_stream_rejected_total", reason=reason) == count
    assert status["engine"]["thread_problems"] == {}
    for thread, deaths in status["engine"]["thread_deaths"].items():
        assert seen.get("senoscope_thread_deaths_total", thread=thread) == deaths == 0
        assert seen.get("senoscope_thread_up", thread=thread) == 1
    assert {"receiver", "scheduler", "delivery", "run log"} <= seen.values("thread")


def test_the_service_reports_its_version_and_model(server: Server) -> None:
    seen = scrape(server)
    model = httpx.get(f"{server.url}/v1/model").json()
    facts = {key: model[key] for key in ("name", "version", "digest")}
    assert seen.get("senoscope_model_info", device="cpu", precision="fp32", for_science="false", **facts) == 1
    assert seen.get("senoscope_ready") == 1
    assert seen.get("senoscope_degraded") == 0
    assert "senoscope_deadline_seconds" in {family.name for family in seen.families}
    assert seen.get("senoscope_run_log_state", state="ok") == 1
    assert seen.get("senoscope_run_log_state", state="full") == 0
    there = {name for name, _ in seen.samples}
    assert "senoscope_archive_up" not in there, "there is no archive"
    assert "senoscope_device_memory_used_bytes" not in there, "there is no GPU"


def test_before_it_is_ready_and_without_a_run_log() -> None:
    service = Service(Settings(database_url="none", model="starter"))
    create_app(service)
    ready = service.registry.get_sample_value("senoscope_ready")
    assert ready == 0
    assert service.registry.get_sample_value("senoscope_run_log_written_total") is None
    assert service.registry.get_sample_value("senoscope_lane_waiting", {"lane": "live"}) is None


def test_two_services_count_separately() -> None:
    one, other = (Service(Settings(database_url="none")) for _ in range(2))
    create_app(one).state.refusals.count("no_key")
    create_app(other)
    refused = [
        s.registry.get_sample_value("senoscope_requests_refused_total", {"reason": "no_key"})
        for s in (one, other)
    ]
    assert refused == [1, 0]


def test_a_broken_run_log_is_visible(miniature: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.with_suffix(".sqlite3").write_bytes(b"this is no database" * 100)
    server = start_server(miniature, log)
    try:
        until(server, lambda s: s.get("senoscope_run_log_state", state="corrupt") == 1)
        assert post(server, mini.bright()).status_code == 200
        seen = scrape(server)
        assert seen.get("senoscope_run_log_waiting") == 1
        assert seen.get("senoscope_run_log_state", state="ok") == 0
        assert (seen.get("senoscope_ready"), seen.get("senoscope_degraded")) == (1, 1)
    finally:
        stop_server(server)


def test_the_archive_is_visible(miniature: Path, tmp_path: Path) -> None:
    server = start_server(miniature, tmp_path / "log.txt", "--archive", str(tmp_path / "archive"))
    scope = Microscope(server.frames)
    try:
        scope.send(scope.frame(0))
        seen = until(server, lambda s: s.get("senoscope_archive_written_total") == 1)
        assert (seen.get("senoscope_archive_up"), seen.get("senoscope_archive_lost_total")) == (1, 0)
        assert seen.get("senoscope_thread_up", thread="archive") == 1
    finally:
        scope.close()
        stop_server(server)


def test_requests_by_route_method_and_status(server: Server) -> None:
    before = scrape(server)
    identifier = post(server, mini.dark()).json()["results"][0]["id"]
    assert httpx.get(f"{server.url}/v1/results/{identifier}").status_code == 200
    assert httpx.get(f"{server.url}/v1/results/{identifier}x").status_code == 422
    assert httpx.put(f"{server.url}/v1/stream").status_code == 405
    assert httpx.get(f"{server.url}/v2/models/unknown").status_code == 404
    assert httpx.request("PROPFIND", f"{server.url}/v1/stream").status_code == 405
    assert post(server, np.zeros(3)).status_code == 422
    after = scrape(server)

    def more(route: str, method: str, status: int) -> float:
        labels = {"route": route, "method": method, "status": str(status)}
        name = "senoscope_http_requests_total"
        return after.get(name, **labels) - before.get(name, 0.0, **labels)

    assert more("/v1/classify", "POST", 200) == 1
    assert more("/v1/classify", "POST", 422) == 1
    assert more("/v1/results/{identifier}", "GET", 200) == 1
    assert more("/v1/results/{identifier}", "GET", 422) == 1
    assert more("/v2/models/{name}", "GET", 404) == 1
    assert more("/v1/stream", "PUT", 405) == 1
    assert more("/v1/stream", "other", 405) == 1
    took = {"route": "/v1/classify", "method": "POST"}
    assert after.get("senoscope_http_request_duration_seconds_sum", **took) > 0


def test_clients_cannot_make_metrics_grow(server: Server, microscope: Microscope) -> None:
    def be_a_nuisance(n: int) -> None:
        httpx.get(f"{server.url}/v1/nowhere-{n}")
        httpx.get(f"{server.url}/v2/models/model-{n}", headers={"X-Request-ID": f"request-{n}"})
        httpx.request(f"VERB{n}", f"{server.url}/nowhere/{n}")
        post(server, np.zeros(n + 1))
        notified = scrape(server).get("senoscope_fov_tell_seconds_count")
        series = {"instrument": f"nlo-{n}", "series_id": f"plate {n}", "series_uid": uuid.uuid4()}
        microscope.send(microscope.frame(n, **series))
        until(server, lambda seen: seen.get("senoscope_fov_tell_seconds_count") > notified)

    be_a_nuisance(0)
    before = scrape(server)
    for n in range(1, 6):
        be_a_nuisance(n)
    after = scrape(server)
    assert after.samples.keys() == before.samples.keys()
    assert after.samples != before.samples


def test_connected_and_refused_subscribers_are_counted(miniature: Path, tmp_path: Path) -> None:
    server = start_server(miniature, tmp_path / "log.txt", "--max-live-clients", "1")
    subscriber = zmq.Context.instance().socket(zmq.SUB)
    try:
        subscriber.connect(server.results)
        with connect(server.ws):
            with pytest.raises(InvalidStatus):
                connect(server.ws)
            seen = until(server, lambda s: s.get("senoscope_subscribers", kind="zeromq") == 1)
            assert seen.get("senoscope_subscribers", kind="websocket") == 1
            assert seen.get("senoscope_subscribers_refused_total", kind="websocket", reason="too_many") == 1
            assert seen.get("senoscope_subscribers_dropped_total", kind="websocket") == 0
            opened = {"route": "/v1/live", "method": "WEBSOCKET"}
            assert seen.get("senoscope_http_requests_total", **opened, status="101") == 1
            assert seen.get("senoscope_http_requests_total", **opened, status="503") == 1
            assert server.stream()["results_subscribers"] == 1
        subscriber.close(0)
        until(server, lambda s: s.get("senoscope_subscribers", kind="zeromq") == 0)
        until(server, lambda s: s.get("senoscope_subscribers", kind="websocket") == 0)
    finally:
        subscriber.close(0)
        stop_server(server)


def test_with_keys_reading_metrics_needs_one(miniature: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    read, classify = add_key(file, "prometheus", ("read",)), add_key(file, "scanner", ("classify",))
    server = start_server(miniature, tmp_path / "log.txt", "--api-keys", str(file))
    try:
        assert httpx.get(f"{server.url}/metrics").status_code == 401
        wrong = httpx.get(f"{server.url}/metrics", headers={"Authorization": f"Bearer {classify}"})
        assert wrong.status_code == 403
        seen = scrape(server, headers={"Authorization": f"Bearer {read}"})
        assert seen.get("senoscope_requests_refused_total", reason="no_key") == 1
        assert seen.get("senoscope_requests_refused_total", reason="missing_scope") == 1
        refused = {"route": "none", "method": "GET"}
        assert seen.get("senoscope_http_requests_total", **refused, status="401") == 1
        assert seen.get("senoscope_http_requests_total", **refused, status="403") == 1
        assert read not in seen.text
    finally:
        stop_server(server)


def test_openmetrics_on_request(server: Server) -> None:
    post(server, mini.bright())
    answer = httpx.get(
        f"{server.url}/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}
    )
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    units = {family.name: family.unit for family in parse_openmetrics(answer.text)}
    assert units["senoscope_fov_latency_seconds"] == "seconds"
    assert units["senoscope_result_entropy_bits"] == "bits"


def test_scraped_metrics_are_those_of_the_catalogue(server: Server) -> None:
    post(server, mini.bright())
    seen = scrape(server)
    kinds = {"counter": "counter", "gauge": "gauge", "histogram": "histogram", "info": "gauge"}
    declared = {one.name.removesuffix("_total"): one for one in catalogue.ALL}
    mine = [family for family in seen.families if family.name.startswith("senoscope_")]
    assert {family.name for family in mine} == set(declared)
    for family in mine:
        one = declared[family.name]
        assert family.type == kinds[one.kind]
        assert family.documentation == one.help
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(one.labels), sample


@pytest.mark.parametrize("declared", catalogue.ALL, ids=lambda declared: declared.name)
def test_names_keep_the_conventions(declared: catalogue.Declared) -> None:
    """https://prometheus.io/docs/practices/naming/."""
    assert declared.name.startswith("senoscope_")
    assert declared.name == declared.name.lower()
    assert declared.name.endswith("_total") == (declared.kind == "counter")
    assert declared.name.endswith("_info") == (declared.kind == "info")
    assert not declared.family.endswith(("_ms", "_mib", "_percent", "_count", "_sum", "_bucket"))
    if declared.kind == "histogram":
        assert declared.unit
    assert not set(declared.labels) & {"le", "quantile", "series", "series_uid", "path", "instance", "job"}
    assert declared.help.endswith((".", ")."))


@pytest.mark.skipif(gpu_problem() is None, reason="there is a GPU")
def test_without_a_gpu_its_memory_is_unknown() -> None:
    memory = GpuMemory()
    assert [memory.read(), memory.read()] == [(None, None)] * 2


@pytest.mark.skipif(gpu_problem() is not None, reason="there is no GPU")
def test_the_memory_of_a_gpu() -> None:
    pytest.importorskip("pynvml")
    used, size = GpuMemory().read()
    assert used is not None
    assert size is not None
    assert 0 < used <= size


@pytest.mark.parametrize("deadline_s", [0.001, 0.024, 0.5, 30.0])
def test_buckets_are_narrow_around_the_deadline(deadline_s: float) -> None:
    buckets = latency_buckets(deadline_s)
    assert list(buckets) == sorted(set(buckets))
    assert deadline_s in buckets
    assert sum(0.8 * deadline_s <= bound <= 1.2 * deadline_s for bound in buckets) >= 7
    assert 15 <= len(buckets) <= 30
