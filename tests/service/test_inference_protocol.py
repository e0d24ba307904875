"""``/v2`` on a real server: with raw requests, and as the documentation shows."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import socket
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
from support.servers import Server, ServerProcess, start_server, stop_server

MODEL = "miniature"
INFER = f"/v2/models/{MODEL}/infer"
DATATYPES = {"UINT8": np.uint8, "UINT16": np.uint16, "FP32": np.float32}
DOCS = Path(__file__).parents[2] / "docs" / "how-to" / "inference-protocol.md"


def request(
    pixels: np.ndarray | bytes = b"", header_length: int | str | None = None, **changes: object
) -> tuple[bytes, dict[str, str]]:
    """A binary request; ``changes`` are to its one input, or with a leading underscore to the whole."""
    if isinstance(pixels, np.ndarray):
        datatype = next(name for name, dtype in DATATYPES.items() if dtype == pixels.dtype)
        tensor = pixels.tobytes()
        described: dict[str, object] = {"shape": list(pixels.shape), "datatype": datatype}
    else:
        tensor = pixels
        described = {"shape": [1, 3, 250, 300], "datatype": "UINT8"}
    described |= {"name": "image", "parameters": {"binary_data_size": len(tensor)}}
    described |= {key: value for key, value in changes.items() if not key.startswith("_")}
    whole = {"inputs": [{key: value for key, value in described.items() if value is not None}]}
    whole |= {key[1:]: value for key, value in changes.items() if key.startswith("_")}
    text = json.dumps(whole).encode()
    length = len(text) if header_length is None else header_length
    return text + tensor, {"Inference-Header-Content-Length": str(length)}


def post(
    server: Server, body: bytes, headers: dict[str, str] | None = None, path: str = INFER
) -> httpx.Response:
    return httpx.post(server.url + path, content=body, headers=headers, timeout=60)


def as_json(data: object, **changes: object) -> tuple[bytes, dict[str, str]]:
    """A request whose pixels are JSON."""
    given = {"name": "image", "shape": [1, 3, 250, 300], "datatype": "FP32", "data": data, **changes}
    return json.dumps({"inputs": [given]}).encode(), {}


FOV = np.zeros((1, 3, 250, 300), np.uint8)
PIXELS = FOV.tobytes()
COUNT = FOV.size


def _with_nan() -> np.ndarray:
    pixels = FOV.astype(np.float32)
    pixels[0, 1, 2, 3] = np.nan
    return pixels


def _packed(coding: str, pack: Callable[[bytes], bytes], body: bytes) -> tuple[bytes, dict[str, str]]:
    return pack(body), {"Content-Encoding": coding}


@dataclass(frozen=True)
class Bad:
    name: str
    make: Callable[[], tuple[bytes, dict[str, str]]]
    says: str
    status: int = 400
    path: str = INFER


BAD = [
    Bad("empty body", lambda: (b"", {}), "not JSON"),
    Bad("no JSON", lambda: (b"nonsense", {}), "not JSON"),
    Bad("no UTF-8", lambda: (b"\xff\xfe", {}), "not JSON"),
    Bad("deep JSON", lambda: (b"[" * 100_000, {}), "nested too deeply"),
    Bad("endless integer", lambda: (b"1" * 10_000, {}), "not JSON"),
    Bad("JSON of another kind", lambda: (b"[]", {}), "no inference request"),
    Bad("no inputs", lambda: (b"{}", {}), "inputs"),
    Bad("empty inputs", lambda: (b'{"inputs": []}', {}), "given 0 times"),
    Bad("a million wrong outputs", lambda: request(PIXELS, _outputs=[0] * 1_000_000), "outputs"),
    Bad("binary without its header", lambda: (request(PIXELS)[0], {}), "not JSON"),
    Bad("header no number", lambda: request(PIXELS, header_length="ten"), "number of bytes"),
    Bad("header negative", lambda: request(PIXELS, header_length=-1), "number of bytes"),
    Bad("header endless", lambda: request(PIXELS, header_length="9" * 5000), "number of bytes"),
    Bad("header beyond the body", lambda: request(PIXELS, header_length=10**9), "only"),
    Bad("header too short", lambda: request(PIXELS, header_length=20), "not JSON"),
    Bad("unknown input", lambda: request(PIXELS, name="picture"), "input 'picture' is unknown"),
    Bad("surrogate as input", lambda: request(PIXELS, name="\ud800"), "is unknown"),
    Bad(
        "input twice", lambda: request(b"", _inputs=[json.loads(as_json([])[0])["inputs"][0]] * 2), "2 times"
    ),
    Bad("unknown output", lambda: request(PIXELS, _outputs=[{"name": "mask"}]), "output 'mask' is unknown"),
    Bad("output twice", lambda: request(PIXELS, _outputs=[{"name": "label"}] * 2), "asked for twice"),
    Bad("unknown datatype", lambda: request(PIXELS, datatype="INT16"), "UINT8"),
    Bad("datatype missing", lambda: request(PIXELS, datatype=None), "datatype"),
    Bad("wrong datatype for the bytes", lambda: request(PIXELS, datatype="FP32"), "900000 bytes"),
    Bad("shape without batch", lambda: request(PIXELS, shape=[3, 250, 300]), "[N, 3, 250, 300]"),
    Bad("four channels", lambda: request(PIXELS, shape=[1, 4, 250, 300]), "SRS, TPEF, Transmission"),
    Bad("other size", lambda: request(PIXELS, shape=[1, 3, 300, 250]), "[N, 3, 250, 300]"),
    Bad("batch of zero", lambda: request(b"", shape=[0, 3, 250, 300]), "at least 1"),
    Bad("negative batch", lambda: request(PIXELS, shape=[-1, 3, 250, 300]), "[-1, 3, 250, 300]"),
    Bad("fractional batch", lambda: request(PIXELS, shape=[1.5, 3, 250, 300]), "shape.0"),
    Bad("text as batch", lambda: request(PIXELS, shape=["1", 3, 250, 300]), "shape.0"),
    Bad("too many FOVs", lambda: request(PIXELS, shape=[513, 3, 250, 300]), "at most 512", 413),
    Bad("huge batch", lambda: request(PIXELS, shape=[10**30, 3, 250, 300]), "at most 512", 413),
    Bad("huge frame", lambda: request(PIXELS, shape=[1, 3, 10**18, 10**18]), "[N, 3, 250, 300]"),
    Bad("a million dimensions", lambda: request(PIXELS, shape=[1] * 1_000_000), "shape"),
    Bad(
        "too few bytes", lambda: request(PIXELS[:-1], parameters={"binary_data_size": COUNT}), "224999 bytes"
    ),
    Bad("too many bytes", lambda: request(PIXELS + b"0", parameters={"binary_data_size": COUNT}), "225001"),
    Bad("wrong byte count", lambda: request(PIXELS, parameters={"binary_data_size": 5}), "binary_data_size"),
    Bad("text byte count", lambda: request(PIXELS, parameters={"binary_data_size": "225000"}), "binary_data"),
    Bad("bytes that nobody declares", lambda: request(PIXELS, parameters=None), "follow the JSON"),
    Bad("data twice", lambda: request(PIXELS, data=[0] * COUNT), "both"),
    Bad("shared memory", lambda: request(b"", parameters={"shared_memory_region": "a"}), "not offered"),
    Bad("NaN", lambda: request(_with_nan()), "field of view 0, channel TPEF"),
    Bad("NaN in JSON", lambda: as_json([float("nan")] * COUNT), "NaN"),
    Bad("more than float32 holds", lambda: as_json([1e300] * COUNT), "infinite"),
    Bad("more than float64 holds", lambda: as_json([10**400] + [0] * (COUNT - 1)), "no datatype can hold"),
    Bad("no data", lambda: as_json(None), "neither data"),
    Bad("text as data", lambda: as_json("0" * COUNT), "neither data"),
    Bad("too few values", lambda: as_json([0]), "1 values"),
    Bad("texts", lambda: as_json(["0"] * COUNT), "not a number"),
    Bad("nothings", lambda: as_json([None] * COUNT), "not a number"),
    Bad("booleans", lambda: as_json([True] * COUNT), "not a number"),
    Bad("list among numbers", lambda: as_json([0] * (COUNT - 1) + [[0]]), "not a number"),
    Bad("ragged", lambda: as_json([[[[0] * 300] * 250] * 2]), "nested"),
    Bad("half nested", lambda: as_json([[0] * COUNT]), "nested"),
    Bad("256 as UINT8", lambda: as_json([256] * COUNT, datatype="UINT8"), "no uint8"),
    Bad("-1 as UINT16", lambda: as_json([-1] * COUNT, datatype="UINT16"), "no uint16"),
    Bad("0.5 as UINT16", lambda: as_json([0.5] * COUNT, datatype="UINT16"), "no uint16"),
    Bad("infinity as UINT8", lambda: as_json([float("inf")] * COUNT, datatype="UINT8"), "no uint8"),
    Bad("20 MiB of JSON", lambda: (b'{"inputs": [' + b"[]," * 7_000_000, {}), "binary data", 413),
    Bad(
        "raw bytes, no whole FOV", lambda: (PIXELS, {"Inference-Header-Content-Length": "0"}), "900000 bytes"
    ),
    Bad(
        "flag no boolean", lambda: request(PIXELS, _parameters={"binary_data_output": "yes"}), "true or false"
    ),
    Bad("parameters no object", lambda: request(PIXELS, _parameters=[1]), "parameters"),
    Bad("id no text", lambda: request(PIXELS, _id=5), "id"),
    Bad("unknown coding", lambda: _packed("br", bytes, b"{}"), "Content-Encoding 'br'"),
    Bad("two codings", lambda: _packed("gzip, deflate", bytes, b"{}"), "Content-Encoding"),
    Bad("no gzip", lambda: _packed("gzip", bytes, b"{}"), "cannot be unpacked"),
    Bad(
        "cut off gzip",
        lambda: _packed("gzip", lambda body: gzip.compress(body)[:-9], PIXELS),
        "single, whole",
    ),
    Bad("gzip and more", lambda: _packed("gzip", lambda body: gzip.compress(body) + b"x", b"{}"), "single"),
    Bad("gzip as deflate", lambda: _packed("deflate", gzip.compress, b"{}"), "cannot be unpacked"),
    Bad(
        "300 kB that unpack to 300 MB",
        lambda: _packed("gzip", gzip.compress, bytes(300 << 20)),
        "64 MiB",
        413,
    ),
    Bad("the same as deflate", lambda: _packed("deflate", zlib.compress, bytes(300 << 20)), "64 MiB", 413),
    Bad("unknown model", lambda: request(PIXELS), "'other' is not loaded", 404, "/v2/models/other/infer"),
    Bad("odd model", lambda: request(PIXELS), "not loaded", 404, "/v2/models/%ED%A0%80%0A/infer"),
    Bad(
        "unknown version",
        lambda: request(PIXELS),
        "no version '2'",
        404,
        f"/v2/models/{MODEL}/versions/2/infer",
    ),
    Bad("unknown path", lambda: request(PIXELS), "Not Found", 404, f"/v2/models/{MODEL}/explain"),
    Bad("no POST", lambda: request(PIXELS), "Method Not Allowed", 405, f"/v2/models/{MODEL}/config"),
]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_bad_requests_are_told_what_is_wrong_and_the_next_is_served(
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


def test_two_gigabytes_are_refused_in_the_protocols_form(server: Server) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(2048):
            yield bytes(1 << 20)

    for headers in ({"Content-Length": str(2 << 30)}, {}):
        answer = httpx.post(server.url + INFER, content=endless(), headers=headers, timeout=60)
        assert answer.status_code == 413
        assert "--max-upload-mib" in answer.json()["error"]


def test_a_request_right_behind_one_that_was_refused_unread_is_served(server: Server) -> None:
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


def test_an_answer_beyond_the_limit_is_not_begun(server: Server) -> None:
    stack = np.zeros((400, 3, 250, 300), np.uint8)
    body, headers = request(stack, _outputs=[{"name": "gradcam"}])
    before = server.stream()["batch"]["classified"]
    answer = post(server, body, headers)
    assert answer.status_code == 413
    assert "binary data" in answer.json()["error"]
    assert server.stream()["batch"]["classified"] == before


def test_the_body_may_be_pixels_and_nothing_else(server: Server, fovs: np.ndarray) -> None:
    answer = post(server, fovs.astype("<f4").tobytes(), {"Inference-Header-Content-Length": "0"})
    outputs = {output["name"]: output for output in answer.json()["outputs"]}
    assert outputs["label"] == {
        "name": "label",
        "datatype": "BYTES",
        "shape": [4],
        "data": ["senescent", "control"] * 2,
    }


def test_json_may_be_nested_and_know_keys_that_the_service_does_not(server: Server) -> None:
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
    told = json.loads(answer.content[:length])["outputs"]
    assert [output.get("parameters") for output in told] == [
        {"binary_data_size": 24},
        None,
        {"binary_data_size": 8},
    ]
    tensors = answer.content[length:]
    assert tensors[:24] == b"\x09\0\0\0senescent\x07\0\0\0control"
    means = np.mean(np.reshape(told[1]["data"], (2, 7)), axis=1)
    np.testing.assert_allclose(np.frombuffer(tensors[24:], "<f4"), means, rtol=1e-6)


def test_what_a_client_that_left_would_have_got_is_not_computed(server: Server) -> None:
    body, headers = request(np.zeros((300, 3, 250, 300), np.uint8))
    before = server.stream()["batch"]["classified"]
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(server.url + INFER, content=body, headers=headers, timeout=httpx.Timeout(30, read=0.3))
    server.wait(lambda status: status["batch"]["waiting"] == 0)
    assert server.stream()["batch"]["classified"] - before < 300


def test_a_full_lane_says_when_to_come_back(miniature: Path, tmp_path: Path) -> None:
    server = start_server(miniature, tmp_path / "log.txt", "--batch-queue", "50")
    try:
        body, headers = request(np.zeros((256, 3, 250, 300), np.uint8))
        answers: list[httpx.Response] = []
        threads = [
            threading.Thread(target=lambda: answers.append(post(server, body, headers))) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        refused = [answer for answer in answers if answer.status_code == 503]
        assert refused
        assert {answer.status_code for answer in answers} == {200, 503}
        assert all("try again" in answer.json()["error"] for answer in refused)
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    finally:
        stop_server(server)


def test_before_it_is_ready_it_lives_and_says_why(miniature: Path) -> None:
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
