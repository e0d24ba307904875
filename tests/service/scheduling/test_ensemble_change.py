"""What was arranged for one ensemble is never computed by another one that takes other channels.

The two ensembles take the same channels in another order; bright SRS decides, so the wrong order shows.
"""

from __future__ import annotations

import gc
import json
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import senoscope.api.uploads
import senoscope.api.v2.routes
from senoscope.engine import read_manifest
from support import miniature as mini
from support.image_bytes import tiff
from support.raw_microscope import Microscope
from support.servers import ServerThread, start_server
from support.slow_engine import SlowEngine

NAMES = ("SRS", "TPEF", "Transmission")
SWAPPED = ("TPEF", "SRS", "Transmission")


class Gate:
    """A function that waits until it is released."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.entered, self.may_go = threading.Event(), threading.Event()

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.entered.set()
        assert self.may_go.wait(60)
        return self._function(*args, **options)


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("two") / "models"
    mini.build(home / "straight", name="straight")
    mini.build(home / "swapped", name="swapped", channels=SWAPPED)
    mini.build(home / "other", name="other", seed=100)
    # Takes the same, and leaves out more of what is bright.
    manifest = mini.build(home / "narrow", name="narrow") / "ensemble.json"
    content = json.loads(manifest.read_text())
    content["normalization"]["k_iqr"] /= 2
    manifest.write_text(json.dumps(content))
    return home


@pytest.fixture
def server(models_dir: Path, tmp_path: Path) -> Iterator[ServerThread]:
    running = start_server(Path("straight"), tmp_path / "log.txt", "--models-dir", str(models_dir))
    yield running
    running.stop()


@pytest.fixture
def microscope(server: ServerThread) -> Iterator[Microscope]:
    scope = Microscope(server.frames)
    yield scope
    scope.close()


def senescent(fovs: int = 1) -> np.ndarray:
    """Return FOVs with bright SRS and dark other channels."""
    stack = np.full((fovs, 3, 250, 300), 60, np.uint16)
    stack[:, 0] = 900
    return stack


def named_tiff(stack: np.ndarray, names: tuple[str, ...] = NAMES) -> bytes:
    return tiff(stack, ome=True, metadata={"axes": "TCYX", "Channel": {"Name": list(names)}})


def change(server: ServerThread, name: str) -> None:
    answer = httpx.post(f"{server.url}/v1/model", json={"name": name}, timeout=60)
    assert (answer.status_code, answer.json()["name"]) == (200, name)


def while_held(
    gate: Gate, request: Callable[[], httpx.Response], meanwhile: Callable[[], None]
) -> httpx.Response:
    """Return the answer to a request that is held by the gate during another action."""
    answers: list[httpx.Response] = []
    posting = threading.Thread(target=lambda: answers.append(request()))
    posting.start()
    assert gate.entered.wait(60)
    meanwhile()
    gate.may_go.set()
    posting.join(60)
    return answers[0]


def test_a_stack_read_for_the_previous_ensemble_is_refused(
    server: ServerThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    def post() -> httpx.Response:
        return httpx.post(f"{server.url}/v1/classify", content=named_tiff(senescent(2)), timeout=60)

    before = post().json()["results"][0]["probability"]
    gate = Gate(senoscope.api.uploads.read_fovs)
    with monkeypatch.context() as patch:
        patch.setattr(senoscope.api.uploads, "read_fovs", gate)
        answer = while_held(gate, post, lambda: change(server, "swapped"))
    assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
    assert "send it again" in answer.json()["detail"]
    again = post().json()["results"][0]
    assert again["model"]["name"] == "swapped"
    assert again["label"] == "control", "this ensemble looks at TPEF"
    assert before > 0.5


def test_a_tensor_read_for_the_previous_ensemble_is_refused(
    server: ServerThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = senescent().astype("<f4").tobytes()

    def post() -> httpx.Response:
        return httpx.post(
            f"{server.url}/v2/models/straight/infer",
            content=body,
            headers={"Inference-Header-Content-Length": "0"},
            timeout=60,
        )

    assert post().status_code == 200
    gate = Gate(senoscope.api.v2.routes.decode)
    with monkeypatch.context() as patch:
        patch.setattr(senoscope.api.v2.routes, "decode", gate)
        answer = while_held(gate, post, lambda: change(server, "swapped"))
    assert answer.status_code == 503
    assert "send it again" in answer.json()["error"]
    assert server.logged()[0]["model"]["name"] == "straight", "nothing else was computed"


def test_a_stack_is_computed_by_one_ensemble_even_if_both_have_the_same_specification(
    server: ServerThread,
) -> None:
    SlowEngine(server, 0.05)
    answers: list[httpx.Response] = []
    body = named_tiff(senescent(60))
    posting = threading.Thread(
        target=lambda: answers.append(httpx.post(f"{server.url}/v1/classify", content=body, timeout=60))
    )
    posting.start()
    server.wait(lambda status: status["batch"]["classified"] > 0)
    change(server, "other")
    posting.join(60)
    (answer,) = answers
    if answer.status_code == 200:  # the change took longer than the stack
        assert len({one["model"]["digest"] for one in answer.json()["results"]}) == 1
    else:
        assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
        assert "another ensemble or precision took over" in answer.json()["detail"]


def calibrate(server: ServerThread, stack: np.ndarray) -> httpx.Response:
    url = f"{server.url}/v1/normalization/calibrate"
    return httpx.post(url, content=named_tiff(stack), timeout=60)


@pytest.mark.parametrize(("other", "dim"), [("swapped", 1), ("narrow", None)], ids=["input", "range"])
def test_a_calibration_for_the_previous_ensemble_is_refused(
    server: ServerThread, monkeypatch: pytest.MonkeyPatch, other: str, dim: int | None
) -> None:
    noisy = np.random.default_rng(0).integers(0, 900, (4, 3, 250, 300)).astype(np.uint16)
    if dim is not None:
        noisy[:, dim] //= 10
    gate = Gate(senoscope.api.uploads.read_fovs)
    with monkeypatch.context() as patch:
        patch.setattr(senoscope.api.uploads, "read_fovs", gate)
        answer = while_held(gate, lambda: calibrate(server, noisy), lambda: change(server, other))
    assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
    assert "calibrate again" in answer.json()["detail"]
    now = httpx.get(f"{server.url}/v1/normalization").json()
    assert (now["source"], now["session"], now["calibrating"], now["problem"]) == ("model", None, None, None)
    again = calibrate(server, noisy).json()
    assert again["source"] == "session"
    if dim is not None:
        high = dict(zip(SWAPPED, again["high"], strict=True))
        assert high["SRS"] > 800
        assert high["TPEF"] < 100


def test_a_frame_arranged_for_the_previous_ensemble_is_counted(
    server: ServerThread, microscope: Microscope, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = server.service.assembly.scheduler
    gate = Gate(scheduler.submit_live)
    with monkeypatch.context() as patch:
        patch.setattr(scheduler, "submit_live", gate)
        microscope.send(microscope.frame(0, senescent()[0]))
        assert gate.entered.wait(60)
        change(server, "swapped")
        gate.may_go.set()
        status = server.wait(lambda status: status["live"]["dropped"])
    assert status["live"]["dropped_reasons"] == {"lane_full": 0, "ensemble_changed": 1, "stopping": 0}
    microscope.send(microscope.frame(1, senescent()[0]))
    server.wait(lambda status: status["live"]["classified"] == 1)
    assert [result["label"] for result in server.logged()] == ["control"]
    scraped = httpx.get(f"{server.url}/metrics").text
    assert 'senoscope_frames_dropped_total{reason="ensemble_changed"} 1.0' in scraped


def test_a_calibration_from_the_stream_restarts_with_the_next_ensemble(
    server: ServerThread, microscope: Microscope
) -> None:
    rng = np.random.default_rng(0)
    url = f"{server.url}/v1/normalization"

    def send(frame: int) -> None:
        pixels = rng.integers(0, 900, (3, 250, 300)).astype(np.uint16)
        pixels[1] //= 10
        microscope.send(microscope.frame(frame, pixels))

    assert httpx.post(f"{url}/calibrate", params={"fovs": 2}).status_code == 202
    send(0)
    server.wait(lambda status: status["live"]["classified"] == 1)
    change(server, "swapped")
    send(1)
    server.wait(lambda status: status["live"]["classified"] == 2)
    assert httpx.get(url).json()["calibrating"] == {"fovs": 1, "of": 2}
    send(2)
    deadline = time.monotonic() + 30
    while (now := httpx.get(url).json())["source"] != "session":
        assert time.monotonic() < deadline, now
        time.sleep(0.01)
    assert now["channels"] == list(SWAPPED)
    assert now["high"][0] < 100 < 800 < now["high"][1]
    assert now["session"]["instrument"] == "nlo-1"
    change(server, "straight")
    after = httpx.get(url).json()
    assert after["source"] == "model"
    assert "the calibrated channels are TPEF, SRS" in after["problem"]


@pytest.mark.parametrize("changes", [3, pytest.param(8, marks=pytest.mark.full)])
def test_no_answer_mixes_two_ensembles_however_often_they_change(
    server: ServerThread, models_dir: Path, changes: int
) -> None:
    label = {read_manifest(models_dir / name)[1]: label for name, label in (("straight", 1), ("swapped", 0))}
    body = named_tiff(senescent(40))
    over = threading.Event()
    statuses: list[int] = []
    wrong: list[dict[str, Any]] = []

    def post() -> int:
        answer = httpx.post(f"{server.url}/v1/classify", content=body, timeout=60)
        if answer.status_code == 200:
            wrong.extend(
                one
                for one in answer.json()["results"]
                if (one["label"] == "senescent") != label[one["model"]["digest"]]
            )
        return answer.status_code

    def keep_posting() -> None:
        while not over.is_set():
            statuses.append(post())

    posting = [threading.Thread(target=keep_posting) for _ in range(2)]
    for thread in posting:
        thread.start()
    for n in range(changes):
        change(server, ("swapped", "straight")[n % 2])
    over.set()
    for thread in posting:
        thread.join(60)
    assert set(statuses) <= {200, 503}
    assert post() == 200
    assert wrong == []


def test_a_replaced_ensemble_is_released(server: ServerThread, microscope: Microscope) -> None:
    """Its results are still in memory, on the stage map and in the run log; its sessions are released."""
    httpx.post(f"{server.url}/v1/normalization/calibrate", params={"fovs": 5})
    microscope.send(microscope.frame(0, senescent()[0]))
    server.wait(lambda status: status["live"]["classified"] == 1)
    answer = httpx.post(f"{server.url}/v1/classify?cam=png", content=named_tiff(senescent(3)), timeout=60)
    identifier = answer.json()["results"][0]["id"]
    httpx.get(f"{server.url}/v2/models/straight")

    def parts() -> list[weakref.ref[Any]]:
        active = server.service.active
        executor = active.ensemble._executor
        sessions = executor._networks  # type: ignore[attr-defined]
        return [weakref.ref(part) for part in (active, active.ensemble, executor, *sessions)]

    before = parts()
    change(server, "swapped")
    deadline = time.monotonic() + 30
    while any(part() is not None for part in before):
        assert time.monotonic() < deadline, [part() for part in before]
        gc.collect()
        time.sleep(0.05)
    for path in ("gradcam.png", "gradcam.png?style=overlay", "pixels.npy"):
        assert httpx.get(f"{server.url}/v1/results/{identifier}/{path}").status_code == 200
