"""The precision on its way through a real service: settings, changes, results, and what it reports."""

from __future__ import annotations

import csv
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from websockets.sync.client import connect

from senoscope_client import AsyncClient, Client
from senoscope_client.errors import ModelRejected
from senoscope_client.models.result import Result
from senoscope_client.zeromq.subscribers import ResultSubscriber
from support import miniature as mini
from support import variants
from support.commands import run_command
from support.image_bytes import npy
from support.raw_microscope import Microscope
from support.servers import ServerThread, start_server
from support.slow_engine import SlowEngine


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ensemble with sound fp16 variants, one with a damaged one, one with nothing but damaged ones."""
    home = tmp_path_factory.mktemp("precisions") / "models"
    variants.build(home / "sound", name="sound")
    one = variants.build(home / "one", name="one")
    variants.write_variant(one, "mobilenet", change=variants.scale("w1", 1.5))
    damaged = variants.build(home / "damaged", name="damaged")
    for name in mini.NAMES:
        variants.write_variant(damaged, name, change=variants.scale("w1", 1.5))
    return home


@pytest.fixture
def server(models_dir: Path, tmp_path: Path) -> Iterator[ServerThread]:
    options = ("--models-dir", str(models_dir), "--precision", "fp16")
    running = start_server(Path("sound"), tmp_path / "log.txt", *options)
    yield running
    running.stop()


def classify(server: ServerThread, fovs: int = 1, **headers: str) -> httpx.Response:
    body = npy(np.stack([mini.bright()] * fovs))
    headers |= {"Content-Type": "application/x-npy"}
    return httpx.post(f"{server.url}/v1/classify", content=body, headers=headers, timeout=60)


def change(server: ServerThread, **body: str) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/model", json=body, timeout=60)


def engine(server: ServerThread) -> dict:
    return httpx.get(f"{server.url}/v1/model").json()["engine"]


def test_a_service_whose_variants_are_damaged_runs_in_fp32_and_says_so(
    models_dir: Path, tmp_path: Path
) -> None:
    options = ("--models-dir", str(models_dir), "--precision", "fp16")
    server = start_server(Path("damaged"), tmp_path / "log.txt", *options)
    try:
        facts = engine(server)
        assert (facts["precision"], facts["gate"]) == ("fp32", None)
        assert [one["network"] for one in facts["rejected"]] == [*mini.NAMES, None]
        assert all(one["found_at"] == "load" for one in facts["rejected"])
        assert "fp16 was rejected, the ensemble runs in fp32: no network passed" in facts["warnings"]
        log = server.log.read_text()
        assert "fp16 was rejected for mobilenet: a probability deviates by" in log
        assert "the ensemble runs in fp32" in log
        answer = classify(server).json()["results"][0]
        assert answer["model"]["precision"] == "fp32"
        assert [one["model"]["precision"] for one in server.logged()] == ["fp32"]
        assert 'precision="fp32"' in httpx.get(f"{server.url}/metrics").text
    finally:
        server.stop()


def test_each_result_states_its_precision(server: ServerThread) -> None:
    facts = engine(server)
    assert (facts["precision"], facts["fp32_networks"], facts["warnings"]) == ("fp16", [], [])
    assert facts["gate"]["ensemble"]["fovs"] == variants.FOVS
    answer = classify(server).json()["results"][0]
    assert answer["model"]["precision"] == "fp16"
    (row,) = csv.DictReader(io.StringIO(classify(server, accept="text/csv").text))
    assert row["precision"] == "fp16"
    assert {one["model"]["precision"] for one in server.logged()} == {"fp16"}
    exported = httpx.get(f"{server.url}/v1/results/export").text
    assert {row["precision"] for row in csv.DictReader(io.StringIO(exported))} == {"fp16"}
    info = [line for line in httpx.get(f"{server.url}/metrics").text.splitlines() if "_model_info{" in line]
    assert 'precision="fp16"' in info[0]
    scope = Microscope(server.frames)
    try:
        with connect(server.ws) as live, ResultSubscriber(server.results) as subscriber:
            server.wait(lambda status: status["live_clients"]["connected"] >= 1)
            server.wait(lambda status: status["results_subscribers"] >= 1)
            scope.send(scope.frame(0))
            assert json.loads(live.recv(timeout=30))["model"]["precision"] == "fp16"
            published = subscriber.receive(timeout_s=30)
            assert published is not None
            assert published.model.precision == "fp16"
    finally:
        scope.close()


def test_results_of_earlier_releases_are_in_fp32(server: ServerThread) -> None:
    answer = classify(server).json()["results"][0]
    del answer["model"]["precision"]
    assert Result.model_validate(answer).model.precision == "fp32"


def test_the_precision_changes_while_frames_stream(server: ServerThread) -> None:
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
            answer = change(server, name="sound", precision="fp32")
            scanning.join(60)
    finally:
        scope.close()
    assert answer.status_code == 200
    assert answer.json()["engine"]["precision"] == "fp32"
    assert [r["source"]["frame"] for r in results] == list(range(frames))
    precisions = [r["model"]["precision"] for r in results]
    assert set(precisions) == {"fp16", "fp32"}
    assert precisions == sorted(precisions), "one change, and no result of the former after it"
    assert len({r["model"]["digest"] for r in results}) == 1
    probabilities = {r["model"]["precision"]: r["probability"] for r in results}
    assert probabilities["fp16"] != probabilities["fp32"]


def test_a_change_without_a_precision_uses_that_of_the_settings(server: ServerThread) -> None:
    assert change(server, name="sound", precision="fp32").json()["engine"]["precision"] == "fp32"
    answer = change(server, name="one").json()["engine"]
    assert (answer["precision"], answer["fp32_networks"]) == ("fp16", ["mobilenet"])
    answer = change(server, name="sound", precision="auto").json()["engine"]
    assert (answer["precision"], answer["rejected"]) == ("fp32", [])
    answer = change(server, name="damaged").json()["engine"]
    assert answer["precision"] == "fp32"
    assert answer["rejected"][-1] == {
        "precision": "fp16",
        "network": None,
        "reasons": ["no network passed"],
        "found_at": "load",
    }


def test_a_precision_that_cannot_be_used_changes_nothing(server: ServerThread) -> None:
    answer = change(server, name="sound", precision="tf32")
    assert (answer.status_code, answer.json()["code"]) == (422, "model_rejected")
    assert "CPU offers int8, fp32, fp16" in answer.json()["detail"]
    answer = change(server, name="sound", precision="fp8")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert "precision" in answer.json()["detail"]
    assert engine(server)["precision"] == "fp16"


def test_no_stack_mixes_two_precisions(server: ServerThread) -> None:
    slow = SlowEngine(server, 0.02)
    answers: list[httpx.Response] = []
    posting = threading.Thread(target=lambda: answers.append(classify(server, 64)))
    posting.start()
    server.wait(lambda status: 0 < status["batch"]["classified"] < 64)
    with slow.held():
        changing = threading.Thread(
            target=change, args=(server,), kwargs={"name": "sound", "precision": "fp32"}
        )
        changing.start()
        changing_done = lambda: server.service.scheduler._pending is not None  # noqa: E731
        while not changing_done():
            assert changing.is_alive()
    changing.join(60)
    posting.join(60)
    assert (answers[0].status_code, answers[0].json()["code"]) == (503, "not_ready")
    assert "another ensemble or precision took over" in answers[0].json()["detail"]
    assert {one["model"]["precision"] for one in classify(server, 3).json()["results"]} == {"fp32"}


def test_clients_change_the_precision(server: ServerThread) -> None:
    client = Client(server.url)
    assert client.change_model("sound", "fp32").engine.precision == "fp32"
    changed = client.change_model("one").engine
    assert (changed.precision, changed.fp32_networks) == ("fp16", ("mobilenet",))
    assert changed.gate is not None
    assert changed.gate.networks["mobilenet"].max_abs_probability < 1e-4
    assert changed.rejected[0].network == "mobilenet"
    assert client.model_info().engine == changed
    with pytest.raises(ModelRejected, match="CPU offers"):
        client.change_model("one", "tf32")


def test_asynchronous_clients_change_the_precision(server: ServerThread) -> None:
    import asyncio

    async def act() -> str:
        async with AsyncClient(server.url) as client:
            return (await client.change_model("sound", precision="fp32")).engine.precision

    assert asyncio.run(act()) == "fp32"


def test_limits_of_the_settings_decide(models_dir: Path, tmp_path: Path) -> None:
    options = ("--models-dir", str(models_dir), "--precision", "fp16", "--gate-max-probability", "0.000001")
    server = start_server(Path("sound"), tmp_path / "log.txt", *options)
    try:
        facts = engine(server)
        assert facts["precision"] == "fp32"
        assert "(at most 1e-06)" in facts["rejected"][-1]["reasons"][0]
    finally:
        server.stop()


def test_commands_state_the_precision(models_dir: Path, tmp_path: Path) -> None:
    here = ("--models-dir", models_dir, "--device", "cpu")
    done = run_command(
        *("senoscope", "doctor", "--json", *here, "--model", "one", "--precision", "fp16", "--stream", "")
    )
    (found,) = (one["text"] for one in json.loads(done.stdout) if one["topic"] == "ensemble")
    assert "; computes in fp16, within " in found
    assert found.count("fp16 was rejected for mobilenet, which runs in fp32: a probability deviates") == 1
    stack = tmp_path / "stack.npy"
    np.save(stack, mini.bright()[None])
    done = run_command(
        "senoscope", "classify", stack, "--json", *here, "--model", "sound", "--precision", "fp16"
    )
    assert json.loads(done.stdout)["model"]["precision"] == "fp16"
    done = run_command("senoscope", "classify", stack, "--json", *here, "--model", "damaged")
    assert (json.loads(done.stdout)["model"]["precision"], done.stderr) == ("fp32", "")
    limits = {"SENOSCOPE_GATE_P99_PROBABILITY": "0"}
    done = run_command(
        "senoscope", "classify", stack, "--json", *here, "--model", "sound", "--precision", "fp16", **limits
    )
    assert json.loads(done.stdout)["model"]["precision"] == "fp32"
    assert "fp16 was rejected" in done.stderr
    done = run_command("senoscope", "classify", stack, *here, "--model", "sound", "--precision", "tf32")
    assert done.returncode == 1
    assert "CPU offers int8, fp32, fp16" in done.stderr
