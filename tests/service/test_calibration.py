"""The intensity range of a session, on a real server."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from websockets.sync.client import connect

from senoscope.engine import fit_range
from support import miniature as mini
from support.raw_microscope import Microscope
from support.servers import Server


@pytest.fixture(autouse=True)
def _models_range(server: Server) -> Iterator[None]:
    yield
    assert httpx.delete(f"{server.url}/v1/normalization").json()["source"] == "model"


@pytest.fixture
def fovs() -> np.ndarray:
    return np.random.default_rng(3).normal(400, 60, (4, 3, 250, 300)).clip(0, 900).astype(np.uint16)


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def calibrate(server: Server, body: bytes = b"", **params) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/normalization/calibrate", content=body, params=params, timeout=60)


def ask(server: Server) -> dict:
    return httpx.get(f"{server.url}/v1/normalization").json()


def classify(server: Server, fov: np.ndarray) -> dict:
    return httpx.post(f"{server.url}/v1/classify", content=npy(fov), timeout=60).json()["results"][0]


def test_without_calibration_the_models_range_is_in_force(server: Server) -> None:
    answer = ask(server)
    assert (answer["source"], answer["session"], answer["calibrating"]) == ("model", None, None)
    assert answer["low"] == [mini.LOW] * 3
    assert answer["high"] == [mini.HIGH] * 3


def test_a_posted_stack_sets_the_range_and_every_result_says_so(server: Server, fovs: np.ndarray) -> None:
    before = classify(server, fovs[0])
    answer = calibrate(server, npy(fovs))
    assert answer.status_code == 200
    low, high = fit_range(fovs)
    assert answer.json()["low"] == pytest.approx(low.tolist())
    assert answer.json()["high"] == pytest.approx(high.tolist())
    assert answer.json()["session"]["fitted_on"] == "upload"
    after = classify(server, fovs[0])
    assert (before["normalization"]["source"], after["normalization"]["source"]) == ("model", "session")
    assert after["normalization"]["high"] == pytest.approx(high.tolist())
    assert after["probability"] != before["probability"]


def test_the_next_frames_of_the_stream_set_the_range(server: Server, fovs: np.ndarray) -> None:
    scope = Microscope(server.frames)
    try:
        with connect(server.ws) as live:
            server.wait(lambda status: status["live_clients"]["connected"] >= 1)
            begun = calibrate(server, fovs=3)
            assert begun.status_code == 202
            assert begun.json()["calibrating"] == {"fovs": 0, "of": 3}
            scope.send(scope.frame(0, fovs[0]), scope.frame(1, fovs[1]))
            for _ in range(2):
                assert json.loads(live.recv(timeout=30))["normalization"]["source"] == "model"
            assert ask(server)["calibrating"] == {"fovs": 2, "of": 3}
            scope.send(scope.frame(2, fovs[2]))
            until = time.monotonic() + 90
            while ask(server)["source"] != "session":
                assert time.monotonic() < until
                time.sleep(0.05)
            json.loads(live.recv(timeout=30))
            scope.send(scope.frame(3, fovs[3]))
            result = json.loads(live.recv(timeout=30))
        answer = ask(server)
        low, high = fit_range(fovs[:3])
        assert answer["low"] == pytest.approx(low.tolist())
        assert answer["high"] == pytest.approx(high.tolist())
        assert answer["session"]["series_id"] == "plate 3"
        assert (answer["session"]["fovs"], answer["session"]["fitted_on"]) == (3, "stream")
        assert result["normalization"]["source"] == "session"
    finally:
        scope.close()


def test_a_calibration_can_be_given_up(server: Server, fovs: np.ndarray) -> None:
    calibrate(server, fovs=3)
    answer = httpx.delete(f"{server.url}/v1/normalization").json()
    assert answer["calibrating"] is None


def test_a_dark_detector_is_refused_and_changes_nothing(server: Server, fovs: np.ndarray) -> None:
    fovs[:, 1] = 7
    answer = calibrate(server, npy(fovs))
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert answer.json()["detail"].startswith("TPEF is 7 ")
    assert ask(server)["source"] == "model"


@pytest.mark.parametrize(
    ("body", "params", "status", "code"),
    [
        (b"", {}, 422, "unreadable_image"),
        (b"", {"fovs": 0}, 422, "invalid_request"),
        (b"", {"fovs": 100_000}, 422, "invalid_request"),
        (b"x", {"fovs": 3}, 409, "conflict"),
        (b"no image", {}, 415, "unsupported_media_type"),
    ],
)
def test_bad_requests(server: Server, body: bytes, params: dict, status: int, code: str) -> None:
    answer = calibrate(server, body, **params)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
