"""``/v2`` on a real server: raw requests, and the examples of the documentation."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
import tifffile

from senoscope.api.app import create_app
from senoscope.service import Service
from senoscope.settings import Settings
from support import miniature as mini
from support.inference_requests import (
    BAD,
    FOV,
    INFER,
    MODEL,
    Bad,
    post,
    request,
)
from support.run_logs import wait_for
from support.servers import Server, ServerProcess, ServerThread, start_server, stop_server
from support.slow_engine import SlowEngine

DOCS = Path(__file__).parents[4] / "docs" / "how-to" / "inference-protocol.md"


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_bad_requests_get_the_reason_and_the_next_one_is_served(
    server_process: ServerProcess, bad: Bad
) -> None:
    body, headers = bad.make()
    process = psutil.Process(server_process.process.pid)
    before = process.memory_info().rss
    answer = post(server_process, body, headers, bad.path)
    grown = process.memory_info().rss - before
    assert answer.status_code == bad.status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()) == {"error"}
    assert bad.says in answer.json()["error"]
    assert len(answer.json()["error"]) < 600
    assert grown < 150e6
    assert post(server_process, *request(FOV)).json()["outputs"][1]["data"] == ["control"]
    assert "Traceback" not in server_process.log.read_text()


def test_two_gigabytes_are_refused_in_the_protocols_form(start: Callable[..., Server]) -> None:
    server = start("--max-upload-mib", "16")

    def endless() -> Iterator[bytes]:
        for _ in range(2048):
            yield bytes(1 << 20)

    for headers in ({"Content-Length": str(2 << 30)}, {}):
        answer = httpx.post(server.url + INFER, content=endless(), headers=headers, timeout=60)
        assert answer.status_code == 413
        assert "--max-upload-mib" in answer.json()["error"]


def test_a_request_directly_after_one_that_was_refused_unread_is_served(server: Server) -> None:
    body, headers = request(FOV.astype(np.float32))
    sent = b""
    for path in ("/v2/models/other/infer", INFER):
        head = {"Host": "localhost", "Content-Length": str(len(body)), **headers}
        lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items())]
        sent += "\r\n".join([*lines, "", ""]).encode() + body
    port = int(server.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(sent)
        received = b""
        while b'"control"' not in received:
            chunk = connection.recv(65536)
            assert chunk, received
            received += chunk
    assert re.findall(rb"HTTP/1.1 (\d+)", received) == [b"404", b"200"]


def test_a_request_for_an_answer_beyond_the_limit_is_refused(server: Server) -> None:
    stack = np.zeros((400, 3, 250, 300), np.uint8)
    body, headers = request(stack, _outputs=[{"name": "gradcam"}])
    before = server.stream()["batch"]["classified"]
    answer = post(server, body, headers)
    assert answer.status_code == 413
    assert "binary data" in answer.json()["error"]
    assert server.stream()["batch"]["classified"] == before


def test_the_body_may_consist_of_pixels_only(server: Server, fovs: np.ndarray) -> None:
    answer = post(server, fovs.astype("<f4").tobytes(), {"Inference-Header-Content-Length": "0"})
    outputs = {output["name"]: output for output in answer.json()["outputs"]}
    assert outputs["label"] == {
        "name": "label",
        "datatype": "BYTES",
        "shape": [4],
        "data": ["senescent", "control"] * 2,
    }


def test_json_may_be_nested_and_have_unknown_keys(server: Server) -> None:
    body = {
        "model_name": MODEL,
        "id": "ä\u2028",
        "parameters": {"sequence_id": 5, "sequence_start": True, "priority": 2, "timeout": 1},
        "inputs": [
            {
                "name": "image",
                "shape": [1, 3, 250, 300],
                "datatype": "UINT16",
                "data": mini.bright()[None].tolist(),
            }
        ],
        "outputs": [{"name": "label", "parameters": {"binary_data": False}}],
    }
    answer = post(server, json.dumps(body).encode()).json()
    assert answer["id"] == "ä\u2028"
    assert answer["outputs"] == [{"name": "label", "datatype": "BYTES", "shape": [1], "data": ["senescent"]}]


def test_binary_outputs_follow_the_json_in_its_order(server: Server, fovs: np.ndarray) -> None:
    outputs = [{"name": "label"}, {"name": "network_probabilities", "parameters": {"binary_data": False}}]
    outputs.append({"name": "probability"})
    body, headers = request(fovs[:2], _outputs=outputs, _parameters={"binary_data_output": True})
    answer = post(server, body, headers)
    assert answer.headers["content-type"] == "application/octet-stream"
    length = int(answer.headers["inference-header-content-length"])
    received = json.loads(answer.content[:length])["outputs"]
    assert [output.get("parameters") for output in received] == [
        {"binary_data_size": 24},
        None,
        {"binary_data_size": 8},
    ]
    tensors = answer.content[length:]
    assert tensors[:24] == b"\x09\0\0\0senescent\x07\0\0\0control"
    means = np.mean(np.reshape(received[1]["data"], (2, 7)), axis=1)
    np.testing.assert_allclose(np.frombuffer(tensors[24:], "<f4"), means, rtol=1e-6)


def test_stacks_of_disconnected_clients_are_not_computed(server: ServerThread) -> None:
    body, headers = request(np.zeros((30, 3, 250, 300), np.uint8))
    before = server.stream()["batch"]["classified"]
    with SlowEngine(server).held():
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(server.url + INFER, content=body, headers=headers, timeout=httpx.Timeout(30, read=0.3))
        server.wait(lambda status: status["batch"]["waiting"] == 0)
    assert server.stream()["batch"]["classified"] - before < 30


def test_the_answer_of_a_full_lane_has_retry_after(miniature: Path, tmp_path: Path) -> None:
    server = start_server(miniature, tmp_path / "log.txt", "--batch-queue", "50")
    try:
        body, headers = request(np.zeros((30, 3, 250, 300), np.uint8))
        answers: list[httpx.Response] = []
        threads = [
            threading.Thread(target=lambda: answers.append(post(server, body, headers))) for _ in range(4)
        ]
        with SlowEngine(server).held():
            for thread in threads:
                thread.start()
            wait_for(lambda: len(answers) >= 2)
        for thread in threads:
            thread.join()
        refused = [answer for answer in answers if answer.status_code == 503]
        assert refused
        assert {answer.status_code for answer in answers} == {200, 503}
        assert all("try again" in answer.json()["error"] for answer in refused)
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    finally:
        stop_server(server)


def test_before_it_is_ready_it_is_live_and_reports_the_reason(miniature: Path) -> None:
    options = {"device": "cpu", "stream": "", "results": "", "database_url": "none"}
    service = Service(Settings(model=str(miniature), **options))  # never started

    async def ask() -> dict[str, httpx.Response]:
        transport = httpx.ASGITransport(create_app(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as asking:
            paths = ("/v2", "/v2/health/live", "/v2/health/ready", f"/v2/models/{MODEL}/ready")
            return {path: await asking.get(path) for path in paths}

    answers = asyncio.run(ask())
    assert [answer.status_code for answer in answers.values()] == [200, 200, 503, 503]
    assert "being loaded" in answers["/v2/health/ready"].json()["error"]


# -- what the documentation shows


def printed(folder: Path, command: list[str]) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.system("curl")
@pytest.mark.system("sh")
def test_the_examples_of_the_documentation_run_as_printed(tmp_path: Path, fovs: np.ndarray) -> None:
    tifffile.imwrite(tmp_path / "stack.tif", fovs, photometric="minisblack", metadata={"axes": "TCYX"})
    server = start_server(mini.build(tmp_path / "starter", name="starter"), tmp_path / "log.txt")
    try:
        address = server.url.removeprefix("http://")
        text = DOCS.read_text(encoding="utf-8").replace("localhost:8750", address)
        (python,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        (shell,) = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
        lines = printed(tmp_path, [sys.executable, "-c", python]).splitlines()
        assert [line.split()[0] for line in lines] == ["senescent", "control"] * 2
        shell = shell.replace("python -c", f"'{sys.executable}' -c").replace("curl", "curl -sS")
        answer = json.loads(printed(tmp_path, ["sh", "-c", shell]))
        labels = next(output for output in answer["outputs"] if output["name"] == "label")
        assert labels["data"] == ["senescent", "control"] * 2
    finally:
        stop_server(server)
