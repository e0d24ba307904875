"""The log lines of a real server: which frame, which request, and no secrets."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from websockets.sync.client import connect

from senoscope.access.api_keys import add_key
from senoscope.logs import without_secrets
from support import miniature as mini
from support.image_bytes import npy
from support.raw_microscope import Microscope
from support.servers import Server, ServerProcess, ServerThread, start_server_process, stop_server
from support.slow_engine import SlowEngine

MASTER = "master-key-of-more-than-32-characters"
BANNER = "Senoscope listens on"


@pytest.fixture(scope="module")
def server(miniature: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    running = start_server_process(
        miniature, tmp_path_factory.mktemp("logs") / "log.txt", "--log-format", "json"
    )
    yield running
    stop_server(running)
    lines(running)  # to the very last: each is one JSON document


def lines(server: Server) -> list[dict]:
    text = server.log.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in text if not line.startswith(BANNER)]


def line(server: Server, fits: Callable[[dict], bool]) -> dict:
    """Return the first line that matches, as soon as it is written."""
    deadline = time.monotonic() + 90
    while not (found := [one for one in lines(server) if fits(one)]):
        assert time.monotonic() < deadline, server.log.read_text()
        time.sleep(0.05)
    return found[0]


def test_each_line_has_an_event_a_level_and_a_time(server: ServerProcess) -> None:
    found = lines(server)
    assert {"loading ensemble", "ready"} <= {one["event"] for one in found}
    assert all({"event", "level", "timestamp"} <= one.keys() for one in found)


def test_a_line_about_a_frame_names_series_and_frame(server: ServerProcess) -> None:
    scope = Microscope(server.frames)
    try:
        scope.send(scope.frame(7, np.zeros((3, 20, 20), np.uint16)))
        found = line(server, lambda one: one["event"] == "message rejected")
    finally:
        scope.close()
    assert (found["series"], found["series_uid"], found["frame"]) == ("plate 3", str(scope.uid), 7)
    assert found["reason"] == "wrong_frame_size"


@pytest.mark.parametrize("given", ["abc-123", "3f2504e0-4f89-11d3-9a0c-0305e82c3301", "A.b_c-" + "9" * 58])
def test_a_valid_request_id_is_kept(server: ServerProcess, given: str) -> None:
    answer = httpx.get(f"{server.url}/livez", headers={"X-Request-ID": given})
    assert answer.headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "-a", "a b", "a\tb", "é", "a" * 65, 'a"b', "<a>", "a;b", "a\\n"])
def test_any_other_request_id_is_replaced(server: ServerProcess, given: str) -> None:
    answer = httpx.get(f"{server.url}/livez", headers={"X-Request-ID": given.encode()})
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


def test_each_answer_has_a_unique_id(server: ServerProcess) -> None:
    with httpx.Client() as client:
        paths = ("/livez", "/livez", "/v1/nowhere", "/v1/model", "/metrics")
        ids = [client.get(server.url + path).headers["x-request-id"] for path in paths]
    assert len(set(ids)) == len(paths)
    with connect(server.ws) as connection:
        assert connection.response.headers["X-Request-ID"] not in ids


@pytest.mark.parametrize(
    ("code", "request_id", "ask"),
    [
        ("not_found", "id-404", lambda url, h: httpx.get(f"{url}/v1/nowhere", headers=h)),
        ("method_not_allowed", "id-405", lambda url, h: httpx.put(f"{url}/v1/stream", headers=h)),
        ("invalid_request", "id-422", lambda url, h: httpx.get(f"{url}/v1/results?limit=x", headers=h)),
        (
            "wrong_frame_size",
            "id-size",
            lambda url, h: httpx.post(
                f"{url}/v1/classify", content=npy(np.zeros((3, 9, 9), np.uint16)), headers=h
            ),
        ),
    ],
)
def test_the_line_about_a_problem_names_its_request(
    server: ServerProcess, code: str, request_id: str, ask: Callable[[str, dict], httpx.Response]
) -> None:
    deadline = time.monotonic() + 90
    while True:  # another of its kind may just have been written
        answer = ask(server.url, {"X-Request-ID": request_id})
        assert (answer.headers["x-request-id"], answer.json()["code"]) == (request_id, code)
        found = next((one for one in lines(server) if one.get("request_id") == request_id), None)
        if found is not None:
            break
        assert time.monotonic() < deadline, server.log.read_text()
        time.sleep(0.2)
    assert (found["code"], found["status"]) == (code, answer.status_code)
    assert found["detail"] == answer.json()["detail"]


def test_many_problems_do_not_flood_the_log(server: ServerProcess) -> None:
    with httpx.Client() as client:
        for n in range(100):
            client.get(f"{server.url}/v1/flood/{n}")
    stop = time.monotonic() + 90
    while not (written := [o for o in lines(server) if "/v1/flood/" in o.get("path", "")]):
        httpx.get(f"{server.url}/v1/flood/more")
        assert time.monotonic() < stop
        time.sleep(0.2)
    assert len(written) < 100


def test_the_line_about_a_disconnected_client_names_its_request(start: Callable[..., ServerThread]) -> None:
    """The line is written by another thread than the request's."""
    server = start("--log-format", "json")
    with SlowEngine(server).held():
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                f"{server.url}/v1/classify",
                content=npy(np.stack([mini.bright()] * 20)),
                headers={"X-Request-ID": "impatient"},
                timeout=httpx.Timeout(60, read=0.3),
            )
        found = line(server, lambda one: one.get("request_id") == "impatient")
        assert found["code"] == "client_closed_request"


def test_no_line_contains_a_key(miniature: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    keys = [add_key(file, scope, (scope,)) for scope in ("read", "classify")]
    os.environ["SENOSCOPE_API_KEY"] = MASTER
    try:
        options = ("--api-keys", str(file), "--log-format", "json", "--otlp-endpoint", "")
        server = start_server_process(miniature, tmp_path / "log.txt", *options)
    finally:
        del os.environ["SENOSCOPE_API_KEY"]
    wrong = "senoscope_" + "w" * 43
    try:
        for key in (*keys, MASTER, wrong, "short"):
            headers = {"Authorization": f"Bearer {key}", "X-Request-ID": f"of-{key[-4:]}"}
            httpx.get(f"{server.url}/v1/nowhere", headers=headers)
            httpx.post(f"{server.url}/v1/classify", headers=headers, content=b"nonsense")
            httpx.put(f"{server.url}/v1/classify", headers=headers)
        refused = line(server, lambda one: one.get("reason") == "wrong_key")
        assert refused["request_id"] == "of-wwww"
        assert line(server, lambda one: one.get("code") == "unsupported_media_type")
    finally:
        stop_server(server)
    text = server.log.read_text()
    assert not any(secret in text for secret in (*keys, MASTER, wrong, "Bearer", "authorization"))


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("{'authorization': 'bearer abc'}", "{'authorization': 'bearer ***'}"),
        ("subprotocols senoscope, bearer.abc", "subprotocols senoscope, bearer.***"),
        ("key senoscope_" + "aB3-_" * 8 + "xyz.", "key senoscope_***."),
        ("cannot reach postgresql://lab:secret@db/runs", "cannot reach postgresql://lab:***@db/runs"),
        ("sqlite:////data/runlog.sqlite3", "sqlite:////data/runlog.sqlite3"),
        ("http://127.0.0.1:8750/v1/stream", "http://127.0.0.1:8750/v1/stream"),
        ("senoscope_fov_latency_seconds_bucket", "senoscope_fov_latency_seconds_bucket"),
    ],
)
def test_secrets_in_lines_of_libraries_are_masked(text: str, clean: str) -> None:
    assert without_secrets(text) == clean


def test_sockets_that_cannot_be_accepted_do_not_fill_the_log() -> None:
    """asyncio writes a line for each of hundreds of attempts per second."""
    code = (
        "import logging; from senoscope.logs import configure_logging; configure_logging('console')\n"
        "for _ in range(500): logging.getLogger('asyncio').error('socket.accept() out of system resource')\n"
        "logging.getLogger('asyncio').error('something else')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.count("out of system resource") == 1
    assert "something else" in done.stderr


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_names_do_not_control_the_terminal(log_format: str) -> None:
    program = (
        "import structlog; from senoscope.logs import configure_logging; "
        f"configure_logging({log_format!r}); "
        r"structlog.get_logger().warning('saw', file='a\x1b[31m\x9b2J\x08.npy')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    escaped = r"a\x1b[31m\x9b2J\x08.npy"
    assert (json.dumps(escaped) if log_format == "json" else escaped) in done.stderr
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", done.stderr)
