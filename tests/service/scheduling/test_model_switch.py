"""Changing the ensemble of a running service."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from websockets.sync.client import connect

import senoscope.api.routes.models
import senoscope.scheduling.model_switch
from senoscope.engine import EnsembleError
from senoscope.scheduling.model_switch import EnsembleList
from support import miniature as mini
from support.image_bytes import npy
from support.raw_microscope import Microscope
from support.servers import Server, ServerThread, start_server, start_server_process, stop_server


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three ensembles that work, one that lost a network, one whose manifest is no JSON; one outside."""
    home = tmp_path_factory.mktemp("several") / "models"
    mini.build(home.parent, name="outside")
    mini.build(home / "first", name="first")
    mini.build(home / "second", name="second", seed=50)
    mini.build(home / "small", name="small", height=125, width=150)
    broken = mini.build(home / "broken", name="broken")
    with (broken / "xception.onnx").open("ab") as file:
        file.write(b"one more byte")
    (home / "garbled").mkdir()
    (home / "garbled" / "ensemble.json").write_text("{")
    return home


@pytest.fixture
def server(models_dir: Path, tmp_path: Path) -> Iterator[Server]:
    running = start_server(Path("first"), tmp_path / "log.txt", "--models-dir", str(models_dir))
    yield running
    stop_server(running)


@pytest.fixture(scope="module")
def unchanged(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for changes that fail."""
    log = tmp_path_factory.mktemp("unchanged") / "log.txt"
    running = start_server(Path("first"), log, "--models-dir", str(models_dir))
    yield running
    stop_server(running)


def change(server: Server, name: str) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/model", json={"name": name}, timeout=60)


def test_ensembles_are_listed_with_their_versions_or_problems(server: Server) -> None:
    answer = httpx.get(f"{server.url}/v1/models").json()
    listed = {entry["name"]: entry for entry in answer["ensembles"]}
    assert list(listed) == ["broken", "first", "garbled", "second", "small"]
    assert listed["first"]["digest"] == answer["in_use"]
    assert (listed["small"]["version"], listed["small"]["height"]) == ("1", 125)
    assert "problem" in listed["garbled"]


def test_another_ensemble_takes_over_between_two_frames_and_none_is_lost(server: Server) -> None:
    scope = Microscope(server.frames)
    frames, results = 120, []
    try:
        with connect(server.ws) as live:
            server.wait(lambda status: status["live_clients"]["connected"] >= 1)

            def scan() -> None:
                for n in range(frames):
                    scope.send(scope.frame(n))
                    results.append(json.loads(live.recv(timeout=30)))

            scanning = threading.Thread(target=scan)
            scanning.start()
            answer = change(server, "second")
            scanning.join(60)
    finally:
        scope.close()
    assert answer.status_code == 200
    assert answer.json()["name"] == "second"
    assert [r["source"]["frame"] for r in results] == list(range(frames))
    names = [r["model"]["name"] for r in results]
    assert set(names) == {"first", "second"}
    assert names == sorted(names)
    probabilities = {r["model"]["name"]: r["probability"] for r in results}
    assert probabilities["first"] != probabilities["second"]


def test_an_ensemble_of_another_specification_changes_the_accepted_frames(server: Server) -> None:
    small = np.full((3, 125, 150), 900, np.uint16)
    scope = Microscope(server.frames)
    try:
        scope.send(scope.frame(0, small))
        server.wait(lambda status: status["receiver"]["rejected"].get("wrong_frame_size") == 1)
        assert change(server, "small").status_code == 200
        scope.send(scope.frame(1, small))
        server.wait(lambda status: status["live"]["classified"] == 1)
        scope.send(scope.frame(2))
        server.wait(lambda status: status["receiver"]["rejected"].get("wrong_frame_size") == 2)
    finally:
        scope.close()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("broken", "xception.onnx"),
        ("garbled", "ensemble.json"),
        ("missing", "which holds: broken, first"),
        ("../first", "is not in the models folder"),
        ("/etc", "is not in the models folder"),
        ("..", "is not in the models folder"),
        ("é" * 255, "is not in the models folder"),
        ("a\0b", "is not in the models folder"),
    ],
)
def test_after_any_failure_the_current_ensemble_stays_in_use(
    unchanged: Server, models_dir: Path, name: str, said: str
) -> None:
    server = unchanged
    answer = change(server, name)
    assert (answer.status_code, answer.json()["code"]) == (422, "model_rejected")
    assert said in answer.json()["detail"]
    assert str(models_dir) not in answer.text
    assert httpx.get(f"{server.url}/v1/model").json()["name"] == "first"
    assert httpx.get(f"{server.url}/readyz").status_code == 200


def test_a_later_change_cancels_an_earlier_one(server: Server) -> None:
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda name=name: answers.append(change(server, name).status_code))
        for name in ("second", "first", "second", "first")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(answers) <= {200, 409}
    assert 200 in answers
    assert httpx.get(f"{server.url}/readyz").status_code == 200


@pytest.fixture
def stalled(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """Return the folders whose manifests are being read; no read ends within the test."""
    began: list[Path] = []
    released = threading.Event()

    def stall(folder: Path) -> None:
        began.append(folder)
        released.wait()
        raise EnsembleError(folder, "cannot be read")

    monkeypatch.setattr(senoscope.scheduling.model_switch, "read_manifest", stall)
    monkeypatch.setattr(senoscope.api.routes.models, "_LIST_TIMEOUT_S", 0.5)
    yield began
    released.set()


def test_a_models_folder_that_does_not_respond_delays_nothing_else(
    models_dir: Path, start: Callable[..., ServerThread], stalled: list[Path]
) -> None:
    server = start("--models-dir", str(models_dir))
    answers: list[httpx.Response] = []
    requests = [
        threading.Thread(
            target=lambda: answers.append(httpx.get(f"{server.url}/v1/models", timeout=60)), daemon=True
        )
        for _ in range(45)  # more than there are threads for requests
    ]
    for thread in requests:
        thread.start()
    classified = httpx.post(f"{server.url}/v1/classify", content=npy(mini.bright()), timeout=60)
    assert classified.status_code == 200
    for thread in requests:
        thread.join(60)
    assert [(one.status_code, one.json()["code"]) for one in answers] == [(503, "not_ready")] * 45
    assert "models folder could not be read" in answers[0].json()["detail"]
    assert len(stalled) == 1, "all requests wait for one read"
    assert server.stop() == 0


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")
def test_a_process_ends_while_its_models_folder_does_not_respond(
    models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, threading, senoscope.scheduling.model_switch as m\n"
        "def stall(folder):\n"
        "    print('reading', file=sys.stderr, flush=True)\n"
        "    threading.Event().wait()\n"
        "m.read_manifest = stall\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    server = start_server_process(Path("first"), tmp_path / "log.txt", "--models-dir", str(models_dir))
    try:
        with httpx.Client(timeout=60) as client:
            threading.Thread(target=client.get, args=(f"{server.url}/v1/models",), daemon=True).start()
            server.wait_for_log("reading")
            assert server.stop() == 0
    finally:
        server.kill()


def test_the_list_of_ensembles_is_renewed(tmp_path: Path) -> None:
    ensembles = EnsembleList(tmp_path)
    assert ensembles.request().result(60) == []
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "ensemble.json").write_text("{")
    deadline = time.monotonic() + 60
    while not (found := ensembles.request().result(60)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert [entry["name"] for entry in found] == ["new"]
