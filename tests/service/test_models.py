"""Changing the ensemble of a running service."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from websockets.sync.client import connect

from support import miniature as mini
from support.raw_microscope import Microscope
from support.servers import Server, start_server, stop_server


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


def test_ensembles_are_listed_with_their_versions_or_what_is_wrong(server: Server) -> None:
    answer = httpx.get(f"{server.url}/v1/models").json()
    listed = {entry["name"]: entry for entry in answer["ensembles"]}
    assert list(listed) == ["broken", "first", "garbled", "second", "small"]
    assert listed["first"]["digest"] == answer["in_use"]
    assert (listed["small"]["version"], listed["small"]["height"]) == ("1", 125)
    assert "problem" in listed["garbled"]


def test_the_new_one_takes_over_between_two_frames_and_none_is_lost(server: Server) -> None:
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


def test_one_of_another_input_changes_what_is_taken(server: Server) -> None:
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
        ("missing", "there are: broken, first"),
        ("../first", "no ensemble of the models folder"),
        ("/etc", "no ensemble of the models folder"),
        ("..", "no ensemble of the models folder"),
        ("é" * 255, "no ensemble of the models folder"),
        ("a\0b", "no ensemble of the models folder"),
    ],
)
def test_on_any_failure_the_old_one_stays(unchanged: Server, models_dir: Path, name: str, said: str) -> None:
    server = unchanged
    answer = change(server, name)
    assert (answer.status_code, answer.json()["code"]) == (422, "model_rejected")
    assert said in answer.json()["detail"]
    assert str(models_dir) not in answer.text
    assert httpx.get(f"{server.url}/v1/model").json()["name"] == "first"
    assert httpx.get(f"{server.url}/readyz").status_code == 200


def test_two_changes_at_once_are_one_too_many(server: Server) -> None:
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
