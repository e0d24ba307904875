"""Traces of a real server, sent to a real OTLP/HTTP receiver."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

import senoscope.tracing.spans
from support import miniature as mini
from support.commands import run_command
from support.image_bytes import npy
from support.otlp_collector import Collector, collector
from support.raw_microscope import Microscope
from support.servers import Server, start_server, stop_server

PARTS = {"queue", "compute", "log commit", "publish"}


@pytest.fixture(scope="module", autouse=True)
def in_a_hurry() -> Iterator[None]:
    """Set short intervals, so that spans are sent soon and a failing collector is not waited for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(senoscope.tracing.spans, "_INTERVAL_MS", 50)
        patch.setattr(senoscope.tracing.spans, "_TIMEOUT_S", 1.0)
        patch.setattr(senoscope.tracing.spans, "_FLUSH_S", 1.0)
        yield


@pytest.fixture(scope="module")
def receiver() -> Iterator[Collector]:
    with collector() as there:
        yield there


@pytest.fixture(scope="module")
def server(
    miniature: Path, receiver: Collector, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("tracing") / "log.txt"
    running = start_server(miniature, log, "--otlp-endpoint", f"{receiver.url}/")
    yield running
    stop_server(running)


def spans(receiver: Collector, fits: Callable[[Span], bool], count: int = 1) -> list[Span]:
    deadline = time.monotonic() + 90
    while len(found := [span for span in list(receiver.spans) if fits(span)]) < count:
        assert time.monotonic() < deadline, receiver.spans
        time.sleep(0.05)
    return found


def facts(span: Span) -> dict[str, object]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in span.attributes}


def children(receiver: Collector, parent: Span, count: int) -> list[Span]:
    return spans(receiver, lambda span: span.parent_span_id == parent.span_id, count)


def test_each_frame_is_a_separate_trace(server: Server, receiver: Collector) -> None:
    scope = Microscope(server.frames)
    before_ns = time.time_ns()
    try:
        scope.send(scope.frame(5))
        whole, *more = spans(receiver, lambda span: facts(span).get("senoscope.series_uid") == str(scope.uid))
    finally:
        scope.close()
    assert not more
    assert (whole.name, whole.parent_span_id) == ("field of view", b"")
    attributes = facts(whole)
    assert (attributes["senoscope.series"], attributes["senoscope.frame"]) == ("plate 3", 5)
    assert attributes["senoscope.label"] == "senescent"
    parts = {span.name: span for span in children(receiver, whole, len(PARTS))}
    assert parts.keys() == PARTS
    assert before_ns < whole.start_time_unix_nano < whole.end_time_unix_nano < time.time_ns()
    for span in parts.values():
        assert span.trace_id == whole.trace_id
        assert (
            whole.start_time_unix_nano
            <= span.start_time_unix_nano
            <= span.end_time_unix_nano
            <= whole.end_time_unix_nano
        )
    assert parts["queue"].end_time_unix_nano == parts["compute"].start_time_unix_nano
    assert parts["compute"].end_time_unix_nano <= parts["log commit"].start_time_unix_nano
    assert receiver.services == {"senoscope"}
    assert set(receiver.paths) == {"/v1/traces"}


def test_the_spans_of_a_posted_stack_are_children_of_its_request(server: Server, receiver: Collector) -> None:
    answer = httpx.post(
        f"{server.url}/v1/classify",
        content=npy(np.stack([mini.bright(), mini.dark()])),
        headers={"X-Request-ID": "traced", "traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"},
    )
    assert answer.status_code == 200
    (request,) = spans(
        receiver, lambda s: s.name == "POST /v1/classify" and facts(s)["senoscope.request_id"] == "traced"
    )
    attributes = facts(request)
    assert (request.trace_id, request.parent_span_id) == (b"\xab" * 16, b"\xcd" * 8)
    assert request.kind == Span.SPAN_KIND_SERVER
    assert (attributes["http.route"], attributes["http.response.status_code"]) == ("/v1/classify", 200)
    fovs = children(receiver, request, 2)
    assert {span.trace_id for span in fovs} == {b"\xab" * 16}
    ids = [result["id"] for result in answer.json()["results"]]
    assert [facts(span)["senoscope.result_id"] for span in fovs] == ids
    assert {facts(span)["senoscope.request_id"] for span in fovs} == {"traced"}
    for fov in fovs:
        assert {span.name for span in children(receiver, fov, len(PARTS))} == PARTS


def test_the_span_of_a_request_without_a_route_has_its_method_as_name(
    server: Server, receiver: Collector
) -> None:
    httpx.get(f"{server.url}/v1/nowhere", headers={"traceparent": "nonsense"})
    (request,) = spans(receiver, lambda span: facts(span).get("url.path") == "/v1/nowhere")
    assert (request.name, request.parent_span_id) == ("GET", b"")
    assert facts(request)["http.response.status_code"] == 404
    assert request.status.code != Status.STATUS_CODE_ERROR, "it is the client's"


def test_spans_are_counted(server: Server, receiver: Collector) -> None:
    httpx.get(f"{server.url}/livez")
    deadline = time.monotonic() + 90
    while (traces := server.stream()["traces"])["sent"] < 1:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    text = httpx.get(f"{server.url}/metrics").text
    assert "senoscope_trace_spans_total " in text
    assert traces["made"] >= traces["sent"]


def test_spans_that_wait_are_sent_when_the_service_stops(miniature: Path, tmp_path: Path) -> None:
    with collector() as there:
        server = start_server(miniature, tmp_path / "log.txt", "--otlp-endpoint", there.url)
        httpx.get(f"{server.url}/v1/model")
        assert stop_server(server) == 0
        assert any(span.name == "GET /v1/model" for span in there.spans)


def test_a_failing_collector_is_reported_and_used_again_when_it_works(
    miniature: Path, tmp_path: Path
) -> None:
    with collector() as there:
        there.broken.set()
        server = start_server(
            miniature, tmp_path / "log.txt", *("--otlp-endpoint", there.url, "--log-format", "json")
        )
        try:
            httpx.get(f"{server.url}/v1/model")
            wait_for(server, "traces are not accepted, and are lost")
            there.broken.clear()
            httpx.get(f"{server.url}/v1/series")
            spans(there, lambda span: span.name == "GET /v1/series")
            assert server.log.read_text().count("traces are not accepted") == 1
            wait_for(server, "traces are accepted again")
        finally:
            stop_server(server)


def wait_for(server: Server, text: str) -> None:
    deadline = time.monotonic() + 90
    while text not in (log := server.log.read_text()):
        assert time.monotonic() < deadline, log
        time.sleep(0.05)


def test_a_collector_that_does_not_respond_delays_nothing(miniature: Path, tmp_path: Path) -> None:
    """It accepts connections and never answers; waiting for it would exceed the time limit of the test."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        server = start_server(miniature, tmp_path / "log.txt", "--otlp-endpoint", endpoint)
        try:
            with httpx.Client() as client:
                for _ in range(30):
                    assert client.get(f"{server.url}/livez").status_code == 200
                answer = client.post(f"{server.url}/v1/classify", content=npy(mini.bright()))
            assert answer.json()["count"] == 1
            assert server.stream()["traces"]["sent"] == 0
        finally:
            assert stop_server(server) == 0


def test_without_the_extra_it_says_what_to_install(miniature: Path) -> None:
    # The bare interface of OpenTelemetry comes with FastAPI.
    serve = "import sys; sys.modules['opentelemetry.sdk'] = None; from senoscope.cli import main; "
    serve += "sys.exit(main())"
    command = [sys.executable, "-c", serve, "serve", "--model", str(miniature), "--port", "0"]
    run = subprocess.run(
        [*command, "--otlp-endpoint", "http://127.0.0.1:4318"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"SENOSCOPE_DATABASE_URL": "none"},
    )
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1] == (
        "senoscope: --otlp-endpoint needs OpenTelemetry, which is not installed: "
        '`pip install "senoscope[otel]"`'
    )
    assert "Traceback" not in run.stderr


def test_an_endpoint_is_an_address() -> None:
    run = run_command("senoscope", "serve", "--otlp-endpoint", "localhost:4318")
    assert run.returncode == 2
    assert "--otlp-endpoint or SENOSCOPE_OTLP_ENDPOINT" in run.stderr
