"""``POST /v1/classify`` on a real server."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import socket
import subprocess
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import httpx
import numpy as np
import psutil
import pytest

from support import miniature as mini
from support.classify_requests import (
    BAD,
    BAD_PICTURES,
    BY_TURNS,
    NAMES,
    WRONG_ADDRESSES,
    Bad,
    containers,
    form,
)
from support.image_bytes import npy, tiff
from support.run_logs import wait_for
from support.servers import Server, ServerProcess, ServerThread, start_server, stop_server
from support.slow_engine import SlowEngine


def post(server: Server, body: bytes, media_type: str = "image/tiff", **params) -> httpx.Response:
    return httpx.post(
        f"{server.url}/v1/classify",
        content=body,
        params=params,
        headers={"Content-Type": media_type},
        timeout=60,
    )


def labels(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [result["label"] for result in answer.json()["results"]]


def test_a_stack_gives_its_results_in_order(server: Server, fovs: np.ndarray) -> None:
    answer = post(server, tiff(fovs, imagej=True, metadata={"axes": "TCYX"}))
    assert labels(answer) == BY_TURNS
    body = answer.json()
    assert body["count"] == 4
    assert [r["source"]["frame"] for r in body["results"]] == [0, 1, 2, 3]
    first = body["results"][0]
    assert first["source"]["kind"] == "upload"
    assert set(first["networks"]) == set(mini.NAMES)
    assert first["probability"] == pytest.approx(np.mean(list(first["networks"].values())), abs=1e-6)
    assert first["model"]["name"] == "miniature"
    assert first["normalization"] == {"source": "model", "low": [0, 0, 0], "high": [1000, 1000, 1000]}
    assert "not_for_science" in [flag["code"] for flag in first["flags"]]
    assert first["timing_ms"]["total"] >= first["timing_ms"]["compute"] > 0


def test_saturated_channels_are_flagged_with_their_fraction(server: Server) -> None:
    fov = mini.dark()
    fov[1, :50] = 5000
    (result,) = post(server, npy(fov), "application/x-npy").json()["results"]
    (flag,) = [flag for flag in result["flags"] if flag["code"] == "saturated"]
    assert (flag["channel"], flag["value"]) == ("TPEF", pytest.approx(0.2))


def test_channels_without_light_are_flagged(server: Server) -> None:
    fov = mini.bright()
    fov[2] = np.random.default_rng(0).integers(0, 40, fov[2].shape)
    fov[2, 3, :5] = 4000  # hot pixels
    (result,) = post(server, npy(fov), "application/x-npy").json()["results"]
    assert [flag["channel"] for flag in result["flags"] if flag["code"] == "no_signal"] == ["Transmission"]


@pytest.mark.parametrize("cam", ["none", "grid", "png"])
def test_cam_selects_the_form_of_inline_maps(server: Server, fovs: np.ndarray, cam: str) -> None:
    result = post(server, npy(fovs[0]), "application/x-npy", cam=cam).json()["results"][0]
    gradcam = result["gradcam"]
    assert set(gradcam) == {"none": {"href"}, "grid": {"href", "grids"}, "png": {"href", "png"}}[cam]
    if cam == "grid":
        shapes = {name: np.shape(grid) for name, grid in gradcam["grids"].items()}
        assert shapes == dict(zip(mini.NAMES, mini.GRIDS, strict=True))
        assert np.max(gradcam["grids"]["xception"]) > 0
    if cam == "png":
        picture = cv2.imdecode(np.frombuffer(base64.b64decode(gradcam["png"]), np.uint8), 1)
        assert picture.shape == (250, 300, 3)


@pytest.mark.parametrize("style", ["map", "overlay", "intensity"])
@pytest.mark.parametrize("network", [None, "densenet121"])
def test_gradcam_pictures(server: Server, style: str, network: str | None) -> None:
    fov = mini.dark()
    fov[:, 100:150, 120:180] = 950  # one bright cell
    result = post(server, npy(fov), "application/x-npy").json()["results"][0]
    params = {"style": style, "channel": "SRS"} | ({"network": network} if network else {})
    answer = httpx.get(server.url + result["gradcam"]["href"], params=params)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    picture = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR).astype(int).sum(2)
    assert picture.shape == (250, 300)
    assert picture[110:140, 130:170].mean() > 3 * picture[:40].mean() + 10, "bright where the cell is"


@pytest.mark.parametrize(("path", "params", "status", "code"), BAD_PICTURES)
def test_bad_requests_for_pictures(server: Server, path: str, params: dict, status: int, code: str) -> None:
    href = post(server, npy(mini.dark()), "application/x-npy").json()["results"][0]["gradcam"]["href"]
    answer = httpx.get(server.url + path.format(href=href), params=params)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_csv_on_request(server: Server, fovs: np.ndarray) -> None:
    answer = httpx.post(
        f"{server.url}/v1/classify",
        files={"file": ("=cmd.npy", npy(fovs), "application/x-npy")},
        headers={"Accept": "text/csv"},
    )
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["label"] for row in rows] == BY_TURNS
    assert rows[0]["file"] == "'=cmd.npy", "not a formula for the spreadsheet that opens it"
    assert float(rows[0]["p_mobilenet"]) > 0.9


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("text/csv", "text/csv; charset=utf-8"),
        ("text/csv;q=0, application/json", "application/json"),
        ("text/csv;q=0.1, application/json", "application/json"),
        ("*/*", "application/json"),
    ],
)
def test_the_preferred_media_type_is_sent(server: Server, fovs: np.ndarray, accept: str, kind: str) -> None:
    answer = httpx.post(f"{server.url}/v1/classify", content=npy(fovs[:1]), headers={"Accept": accept})
    assert answer.headers["content-type"] == kind


@pytest.mark.parametrize(
    ("filename", "charset", "shown"),
    [
        (b"folder\\stack.npy", "utf-8", "stack.npy"),
        (b"+2AA-", "utf-7", "\N{REPLACEMENT CHARACTER}"),
        (b"\\ud800", "unicode_escape", "\N{REPLACEMENT CHARACTER}"),
        (b"a\tb", "utf-8", "a\N{REPLACEMENT CHARACTER}b"),
        (b"a" * 3000, "utf-8", "a" * 254 + "…"),
        (b"\xff", "no such charset", "ÿ"),
    ],
)
def test_any_name_of_a_file_can_be_shown(server: Server, filename: bytes, charset: str, shown: str) -> None:
    request = form(npy(mini.bright()), filename, charset)
    answer = httpx.post(f"{server.url}/v1/classify", **request, timeout=30)
    assert labels(answer) == ["senescent"]
    assert answer.json()["results"][0]["source"]["file"] == shown
    refused = httpx.post(f"{server.url}/v1/classify", **form(b"text", filename, charset), timeout=30)
    assert (refused.status_code, refused.json()["code"]) == (415, "unsupported_media_type")
    assert server.stream()["engine"]["thread_deaths"]["delivery"] == 0


def test_a_line_end_in_the_name_of_a_channel_adds_no_header(server: Server) -> None:
    names = [*NAMES, "x\r\nEvil: 1"]
    body = tiff(mini.bright(4), metadata={"axes": "CYX", "Channel": {"Name": names}})
    answer = httpx.post(f"{server.url}/v1/classify", content=body, headers={"Accept": "text/csv"})
    assert answer.status_code == 200, answer.text
    assert "left out: x" in answer.headers["Senoscope-Warnings"]
    assert "evil" not in answer.headers


def test_three_times_three_planes_are_classified_with_a_warning(server: Server) -> None:
    stack = np.stack([mini.bright(), mini.dark(), mini.dark()])
    answer = post(server, npy(stack), "application/x-npy").json()
    assert [result["label"] for result in answer["results"]] == ["senescent", "control", "control"]
    assert "axes=CPYX" in answer["warnings"][0]


@pytest.mark.system("curl")
@pytest.mark.parametrize(
    "arguments",
    [
        ["--data-binary", "@stack.tif", "-H", "Content-Type: image/tiff"],
        ["--data-binary", "@stack.tif"],
        ["-F", "file=@stack.tif"],
        ["-F", "file=@stack.npy"],
    ],
)
def test_curl(server: Server, fovs: np.ndarray, tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "stack.tif").write_bytes(tiff(fovs, metadata={"axes": "TCYX"}))
    (tmp_path / "stack.npy").write_bytes(npy(fovs))
    done = subprocess.run(
        ["curl", "-sS", *arguments, f"{server.url}/v1/classify"],
        cwd=tmp_path,
        capture_output=True,
        check=True,
    )
    assert [result["label"] for result in json.loads(done.stdout)["results"]] == BY_TURNS


@pytest.mark.system("curl")
@pytest.mark.parametrize("name", ["stack.tif", "stack.npy"])
def test_the_error_names_the_option_with_which_curl_keeps_line_ends(
    server: Server, fovs: np.ndarray, tmp_path: Path, name: str
) -> None:
    noise = fovs + np.random.default_rng(0).integers(0, 200, fovs.shape, dtype=np.uint16)
    (tmp_path / "stack.tif").write_bytes(tiff(noise, metadata={"axes": "TCYX"}))
    (tmp_path / "stack.npy").write_bytes(npy(noise))
    for data in (f"@{name}", name):  # without @ the name itself is sent
        done = subprocess.run(
            ["curl", "-sS", "-d", data, f"{server.url}/v1/classify"],
            cwd=tmp_path,
            capture_output=True,
            check=True,
        )
        assert "--data-binary @FILE" in json.loads(done.stdout)["detail"]


def test_the_error_of_a_damaged_file_with_line_ends_does_not_name_curl(server: Server) -> None:
    answer = post(server, tiff(mini.dark())[:200_000] + b"\n", "application/x-www-form-urlencoded")
    assert answer.status_code == 422
    assert "curl" not in answer.json()["detail"]


ONE = npy(mini.dark())


@pytest.mark.parametrize(
    ("coding", "pack"), [("gzip", gzip.compress), ("x-gzip", gzip.compress), ("deflate", zlib.compress)]
)
@pytest.mark.parametrize("make", [tiff, npy])
def test_compressed_files_are_decompressed(server: Server, fovs: np.ndarray, coding: str, pack, make) -> None:
    body = make(fovs, metadata={"axes": "TCYX"}) if make is tiff else make(fovs)
    answer = httpx.post(
        f"{server.url}/v1/classify", content=pack(body), headers={"Content-Encoding": coding}, timeout=60
    )
    assert labels(answer) == BY_TURNS


@pytest.mark.parametrize(
    ("pack", "coding", "status", "code", "words"),
    [
        pytest.param(
            lambda: gzip.compress(ONE)[:-9], "gzip", 422, "invalid_request", "one complete", id="cut"
        ),
        pytest.param(
            lambda: gzip.compress(ONE) + b"x",
            "gzip",
            422,
            "invalid_request",
            "one complete gzip",
            id="more",
        ),
        pytest.param(lambda: ONE, "gzip", 422, "invalid_request", "declared as gzip", id="not compressed"),
        pytest.param(lambda: ONE, "br", 415, "unsupported_media_type", "gzip or deflate", id="br"),
        pytest.param(lambda: ONE, "gzip, gzip", 415, "unsupported_media_type", "gzip or deflate", id="twice"),
        pytest.param(
            lambda: gzip.compress(ONE),
            None,
            415,
            "unsupported_media_type",
            "Content-Encoding: gzip",
            id="not declared",
        ),
        pytest.param(
            lambda: gzip.compress(b"hello, microscope"),
            "gzip",
            415,
            "unsupported_media_type",
            "is text",
            id="text",
        ),
        pytest.param(
            lambda: gzip.compress(bytes(200 << 20), 1),
            "gzip",
            413,
            "payload_too_large",
            "the decompressed body has more than",
            id="large",
        ),
    ],
)
def test_compressed_files_that_cannot_be_read_are_refused_with_a_code(
    server: Server,
    fovs: np.ndarray,
    pack: Callable[[], bytes],
    coding: str | None,
    status: int,
    code: str,
    words: str,
) -> None:
    headers = {} if coding is None else {"Content-Encoding": coding}
    answer = httpx.post(f"{server.url}/v1/classify", content=pack(), headers=headers, timeout=60)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert words in answer.json()["detail"]
    assert labels(post(server, npy(fovs), "application/x-npy")) == BY_TURNS


def test_compressed_forms_are_refused(server: Server, fovs: np.ndarray) -> None:
    sent = form(npy(fovs), b"a.npy")
    answer = httpx.post(
        f"{server.url}/v1/classify",
        content=gzip.compress(sent["content"]),
        headers=sent["headers"] | {"Content-Encoding": "gzip"},
    )
    assert answer.status_code == 415
    assert "as the body" in answer.json()["detail"]


def test_the_readers_warnings_are_in_every_answer(server: Server, fovs: np.ndarray) -> None:
    body = tiff(fovs, metadata={"axes": "TCYX", "Channel": {"Name": ["a", "b", "c"]}})
    (warning,) = post(server, body).json()["warnings"]
    assert "(a, b, c) are taken as" in warning
    answer = httpx.post(
        f"{server.url}/v1/classify",
        content=body,
        headers={"Accept": "text/csv", "Content-Type": "image/tiff"},
    )
    assert answer.headers["Senoscope-Warnings"] == warning
    calibrated = httpx.post(f"{server.url}/v1/normalization/calibrate", content=body, timeout=60).json()
    assert calibrated["warnings"] == [warning]
    assert httpx.delete(f"{server.url}/v1/normalization").status_code == 200


def test_containers_do_not_change_probabilities(server: Server, fovs: np.ndarray) -> None:
    expected = None
    for name, body in containers(fovs).items():
        answer = post(server, body, "application/octet-stream")
        assert answer.status_code == 200, (name, answer.text)
        got = [result["probability"] for result in answer.json()["results"]]
        expected = expected or got
        assert got == pytest.approx(expected[: len(got)], abs=1e-6), name


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_bad_input_gets_its_code_and_the_next_request_is_served(
    server_process: ServerProcess, bad: Bad
) -> None:
    body = bad.make()
    process = psutil.Process(server_process.process.pid)
    before = process.memory_info().rss
    answer = post(server_process, body, bad.media_type, **dict(bad.params))
    grown = process.memory_info().rss - before
    assert (answer.status_code, answer.json().get("code")) == (bad.status, bad.code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == bad.status
    assert problem["title"]
    assert len(problem["detail"]) > 10
    assert "Traceback" not in answer.text
    assert "/work" not in answer.text
    assert "/tmp" not in answer.text
    assert grown < 100e6
    assert labels(post(server_process, npy(mini.bright()), "application/x-npy")) == ["senescent"]


def test_clients_that_disconnect_while_sending_have_no_effect(server: Server) -> None:
    request = b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\n"
    request += b"Content-Length: 99999\r\n\r\nabc"
    port = int(server.url.rpartition(":")[2])
    for media_type in (b"image/tiff", b"multipart/form-data; boundary=x"):
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(request % media_type)
    assert labels(post(server, npy(mini.bright()), "application/x-npy")) == ["senescent"]
    assert "Traceback" not in server.log.read_text()


@pytest.mark.system("curl")
@pytest.mark.parametrize(
    ("how", "expect"),
    [
        (["--data-binary", "@big.tif"], "Expect:"),
        (["-F", "file=@big.tif"], "Expect: 100-continue"),
        (["-T", "big.tif"], "Expect:"),
        pytest.param(["--data-binary", "@big.tif"], "Expect: 100-continue", marks=pytest.mark.full),
        pytest.param(["-F", "file=@big.tif"], "Expect:", marks=pytest.mark.full),
        pytest.param(["-T", "big.tif"], "Expect: 100-continue", marks=pytest.mark.full),
    ],
)
def test_curl_receives_the_answer_to_two_gigabytes(
    server: Server, tmp_path: Path, how: list[str], expect: str
) -> None:
    with (tmp_path / "big.tif").open("wb") as big:
        big.truncate(2 << 30)  # sparse
    if how[0] == "--data-binary":  # curl would read it into its own memory first
        how = ["-X", "POST", "-T", "big.tif", "-H", "Transfer-Encoding: chunked"]
    done = subprocess.run(
        ["curl", "-sS", "-X", "POST", "-H", expect, *how, f"{server.url}/v1/classify"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert json.loads(done.stdout)["code"] == "payload_too_large", done.stderr


def test_two_gigabytes_are_refused_without_keeping_them(server_process: ServerProcess) -> None:
    process = psutil.Process(server_process.process.pid)
    before = process.memory_info().rss
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(2048):
            sent += 1 << 20
            yield bytes(1 << 20)

    declared = httpx.post(
        f"{server_process.url}/v1/classify",
        content=endless(),
        headers={"Content-Length": str(2 << 30)},
        timeout=30,
    )
    assert (declared.status_code, declared.json()["code"]) == (413, "payload_too_large")
    sent = 0
    undeclared = httpx.post(f"{server_process.url}/v1/classify", content=endless(), timeout=60)
    assert (undeclared.status_code, undeclared.json()["code"]) == (413, "payload_too_large")
    assert process.memory_info().rss - before < 100e6
    assert labels(post(server_process, npy(mini.bright()), "application/x-npy")) == ["senescent"]


def test_stacks_of_disconnected_clients_are_not_computed(server: ServerThread) -> None:
    stack = npy(np.zeros((30, 3, 250, 300), np.uint8))
    before = server.stream()["batch"]["classified"]
    with SlowEngine(server).held():
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{server.url}/v1/classify", content=stack, timeout=httpx.Timeout(30, read=0.3))
        server.wait(lambda status: status["batch"]["waiting"] == 0)
    assert server.stream()["batch"]["classified"] - before < 30


def test_stacks_at_the_same_time_get_their_own_results(server: Server, fovs: np.ndarray) -> None:
    answers: dict[int, list[str]] = {}

    def send(k: int) -> None:
        order = fovs if k % 2 else fovs[::-1]
        answers[k] = labels(post(server, npy(order), "application/x-npy"))

    threads = [threading.Thread(target=send, args=(k,)) for k in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {k: BY_TURNS if k % 2 else BY_TURNS[::-1] for k in range(12)}


def test_the_answer_of_a_full_lane_has_retry_after(miniature: Path, tmp_path: Path) -> None:
    server = start_server(miniature, tmp_path / "log.txt", "--batch-queue", "50")
    try:
        stack = npy(np.zeros((30, 3, 250, 300), np.uint8))
        results: list[httpx.Response] = []
        threads = [
            threading.Thread(target=lambda: results.append(post(server, stack, "application/x-npy")))
            for _ in range(4)
        ]
        with SlowEngine(server).held():
            for thread in threads:
                thread.start()
            wait_for(lambda: len(results) >= 2)
        for thread in threads:
            thread.join()
        refused = [answer for answer in results if answer.status_code == 503]
        assert refused
        assert {answer.status_code for answer in results} == {200, 503}
        assert all(answer.json()["code"] == "busy" for answer in refused)
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    finally:
        stop_server(server)


@pytest.mark.parametrize(("method", "path", "status", "code"), WRONG_ADDRESSES)
def test_wrong_methods_and_paths(server: Server, method: str, path: str, status: int, code: str) -> None:
    answer = httpx.request(method, server.url + path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/results?label=senescent&label=control"),
        ("GET", "/v1/results?limit=5&limit=5"),
        ("GET", "/v1/results/export?format=csv&format=parquet"),
        ("POST", "/v1/classify?cam=grid&axes=CYX&axes=YXC"),
        ("POST", "/v1/normalization/calibrate?fovs=5&fovs=6"),
    ],
)
def test_a_parameter_that_is_given_twice_is_refused(server: Server, method: str, path: str) -> None:
    answer = httpx.request(method, f"{server.url}{path}", timeout=60)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert "2 times; give it once" in answer.json()["detail"]
