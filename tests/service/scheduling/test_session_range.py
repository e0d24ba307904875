"""The intensity range of a session, on a real server."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from websockets.sync.client import connect

import senoscope.scheduling.session_range
from senoscope.engine import fit_range
from senoscope.fov import Fov
from senoscope_client.images.axes import FovSpec
from senoscope_client.models.result import Source
from support import miniature as mini
from support.image_bytes import npy
from support.raw_microscope import Microscope
from support.servers import Server, ServerThread, start_server


@pytest.fixture(autouse=True)
def _models_range(server: Server) -> Iterator[None]:
    yield
    assert httpx.delete(f"{server.url}/v1/normalization").json()["source"] == "model"


@pytest.fixture
def fovs() -> np.ndarray:
    return np.random.default_rng(3).normal(400, 60, (4, 3, 250, 300)).clip(0, 900).astype(np.uint16)


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


def test_a_posted_stack_sets_the_range_of_all_results(server: Server, fovs: np.ndarray) -> None:
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


def test_a_calibration_can_be_cancelled(server: Server, fovs: np.ndarray) -> None:
    calibrate(server, fovs=3)
    answer = httpx.delete(f"{server.url}/v1/normalization").json()
    assert answer["calibrating"] is None


def test_a_dark_detector_is_refused_and_changes_nothing(server: Server, fovs: np.ndarray) -> None:
    fovs[:, 1] = 7
    answer = calibrate(server, npy(fovs))
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert answer.json()["detail"].startswith("TPEF is 7 ")
    assert ask(server)["source"] == "model"


@pytest.fixture
def held_fit(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Set when a range begins to be computed, and to be set for it to go on."""
    entered, may_go = threading.Event(), threading.Event()

    def fit(stack: np.ndarray, k_iqr: float) -> tuple[np.ndarray, np.ndarray]:
        entered.set()
        assert may_go.wait(60)
        return fit_range(stack, k_iqr)

    monkeypatch.setattr(senoscope.scheduling.session_range, "fit_range", fit)
    return entered, may_go


def test_a_calibration_that_is_cancelled_while_it_is_computed_is_never_in_force(
    server: ServerThread, fovs: np.ndarray, held_fit: tuple[threading.Event, threading.Event]
) -> None:
    entered, may_go = held_fit
    answers: list[httpx.Response] = []
    calibrating = threading.Thread(target=lambda: answers.append(calibrate(server, npy(fovs))))
    calibrating.start()
    assert entered.wait(30)
    assert ask(server)["calibrating"] is not None
    undone = httpx.delete(f"{server.url}/v1/normalization").json()
    assert (undone["source"], undone["calibrating"]) == ("model", None)
    assert calibrate(server, npy(fovs)).status_code == 409, "the first one still computes"
    may_go.set()
    calibrating.join(30)
    assert (answers[0].status_code, answers[0].json()["code"]) == (409, "conflict")
    assert "cancelled by a later request" in answers[0].json()["detail"]
    now = ask(server)
    assert (now["source"], now["session"], now["problem"]) == ("model", None, None)
    assert server.service.log is not None
    assert server.service.log.log.get_value(f"session_range {server.settings.instrument_name}") is None
    assert calibrate(server, npy(fovs)).status_code == 200


def test_a_calibration_from_the_stream_can_be_cancelled_while_it_is_computed(
    server: ServerThread, fovs: np.ndarray, held_fit: tuple[threading.Event, threading.Event]
) -> None:
    entered, may_go = held_fit
    scope = Microscope(server.frames)
    try:
        assert calibrate(server, fovs=1).status_code == 202
        scope.send(scope.frame(0, fovs[0]))
        assert entered.wait(30)
        httpx.delete(f"{server.url}/v1/normalization")
        may_go.set()
        deadline = time.monotonic() + 30
        while calibrate(server, fovs=1).status_code == 409:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        now = ask(server)
        assert (now["source"], now["problem"], now["calibrating"]) == ("model", None, {"fovs": 0, "of": 1})
    finally:
        scope.close()


def test_the_range_in_force_is_the_stored_one_in_any_order(server: ServerThread, fovs: np.ndarray) -> None:
    """Calibrations and their undoing at the same time: a restart finds what was in force before it."""

    def repeat(order: Callable[[], Any]) -> None:
        for _ in range(15):
            order()

    orders = (
        lambda: calibrate(server, npy(fovs)),
        lambda: httpx.delete(f"{server.url}/v1/normalization", timeout=60),
    )
    threads = [threading.Thread(target=repeat, args=(order,)) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert server.service.log is not None
    kept = server.service.log.log.get_value(f"session_range {server.settings.instrument_name}")
    session = ask(server)["session"]
    assert (kept and kept["calibrated_at"]) == (session and session["calibrated_at"])


def test_services_that_share_a_run_log_do_not_share_a_calibration(
    miniature: Path, tmp_path: Path, start: Callable[..., ServerThread], fovs: np.ndarray
) -> None:
    shared = ("--database-url", f"sqlite:///{tmp_path / 'shared.sqlite3'}")
    one = start(*shared)
    other = start(*shared, log=tmp_path / "other.txt")
    assert calibrate(one, npy(fovs)).status_code == 200
    assert ask(other)["source"] == "model"
    one.stop()
    other.stop()
    other_again = start_server(miniature, tmp_path / "other.txt", *shared, like=other)
    assert ask(other_again)["source"] == "model"
    other_again.stop()
    again = start(*shared, like=one)
    assert ask(again)["source"] == "session"


def test_a_name_keeps_a_calibration_when_the_stream_moves(
    tmp_path: Path, start: Callable[..., ServerThread], fovs: np.ndarray
) -> None:
    options = ("--database-url", f"sqlite:///{tmp_path / 'l.sqlite3'}", "--instrument", "nlo-1")
    one = start(*options)
    assert calibrate(one, npy(fovs)).status_code == 200
    one.stop()
    assert ask(start(*options))["source"] == "session"


@pytest.mark.parametrize("kept", ["nonsense", {"channels": ["SRS"]}, [1, 2]])
def test_a_stored_range_that_cannot_be_read_is_reported(kept: Any) -> None:
    class Keeper:
        def query(self, _: object) -> Any:
            return kept

    bounds = senoscope.scheduling.session_range.SessionRange(Keeper(), "nlo-1")
    bounds.restore()
    assert "cannot be read" in (bounds._problem or "")


def test_no_more_frames_are_collected_than_fit_into_memory(
    start: Callable[..., ServerThread], fovs: np.ndarray
) -> None:
    most = 3 * 1024**2 // (4 * 3 * 250 * 300)
    server = start("--request-memory-mib", "3")
    refused = calibrate(server, fovs=most + 1)
    assert (refused.status_code, refused.json()["code"]) == (413, "payload_too_large")
    assert f"{most} do" in refused.json()["detail"]
    assert ask(server)["calibrating"] is None
    assert calibrate(server, fovs=most).status_code == 202


def test_a_calibration_is_cancelled_if_the_frames_of_another_ensemble_do_not_fit(
    tmp_path: Path, start: Callable[..., ServerThread]
) -> None:
    for name, size in (("small", 125), ("large", 500)):
        mini.build(tmp_path / name, name=name, height=size, width=300)
    server = start("--request-memory-mib", "2", "--models-dir", str(tmp_path), model=Path("small"))
    assert calibrate(server, fovs=4).status_code == 202
    assert httpx.post(f"{server.url}/v1/model", json={"name": "large"}, timeout=60).status_code == 200
    scope = Microscope(server.frames)
    try:
        scope.send(scope.frame(0, mini.bright(3, 500, 300)))
        until = time.monotonic() + 60
        while (answer := ask(server))["calibrating"] is not None:
            assert time.monotonic() < until
            time.sleep(0.02)
    finally:
        scope.close()
    assert "cancelled: 4 frames of this size do not fit" in answer["problem"]


def test_frames_are_freed_while_they_are_stacked(fovs: np.ndarray) -> None:
    spec = FovSpec(("SRS", "TPEF", "Transmission"), 250, 300)
    source = Source(kind="stream")
    frames = [Fov(pixels.copy(), source, spec=spec) for pixels in fovs]
    assert np.array_equal(senoscope.scheduling.session_range._stacked(frames), fovs)
    assert not frames


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
