"""Which results have a deadline: the configured one everywhere, the default only where it can be kept."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError
from websockets.sync.client import connect

from senoscope.engine import Ensemble, devices
from senoscope.engine.cpu import CpuExecutor
from senoscope.engine.devices import DEVICES
from senoscope.results import deadline
from senoscope.results.deadline import DEFAULT_DEADLINE_MS, deadline_for
from senoscope.settings import Settings
from senoscope_client import Client, ResultSubscriber
from senoscope_client.tables import to_dataframe
from support import miniature as mini
from support.image_bytes import npy
from support.raw_microscope import Microscope
from support.servers import Server, start_server


class FastDevice(CpuExecutor):
    """A device that is no CPU and computes the miniature networks in time."""

    device = "cuda"
    on_cpu = False


PATIENT_MS = 10_000.0  # which any machine keeps


@pytest.fixture
def fast_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline, "DEFAULT_DEADLINE_MS", PATIENT_MS)
    row = DEVICES["cuda"]._replace(
        problem=lambda: None, open=lambda networks, how: FastDevice(networks, how.threads, how.cancellation)
    )
    monkeypatch.setattr(devices, "DEVICES", {**DEVICES, "cuda": row})


def classify(server: Server) -> list[dict[str, object]]:
    """Send two frames and a stack of two, and return their results from every place."""
    scope = Microscope(server.frames)
    try:
        with connect(server.ws) as socket, ResultSubscriber(server.results) as subscriber:
            server.wait(
                lambda status: status["results_subscribers"] == 1 and status["live_clients"]["connected"] == 1
            )
            scope.send(scope.frame(0), scope.frame(1))
            server.wait(lambda status: status["live"]["classified"] == 2)
            answer = httpx.post(f"{server.url}/v1/classify", content=npy(np.stack([mini.bright()] * 2)))
            live = [json.loads(socket.recv(30)) for _ in range(4)]
            published = [json.loads(subscriber.receive(30).model_dump_json()) for _ in range(4)]
    finally:
        scope.close()
    return [*answer.json()["results"], *live, *published, *server.logged()]


@pytest.mark.parametrize(
    ("on_cpu", "compute_ms", "configured_ms", "deadline_ms"),
    [
        (False, 13.0, None, DEFAULT_DEADLINE_MS),
        (False, 24.0, None, None),
        (True, 2.0, None, None),
        (True, 350.0, 24.0, 24.0),
        (False, 13.0, 10.0, 10.0),
    ],
)
def test_the_default_applies_where_the_device_can_keep_it(
    miniature: Path, on_cpu: bool, compute_ms: float, configured_ms: float | None, deadline_ms: float | None
) -> None:
    with Ensemble.load(miniature, device="cpu") as ensemble:
        ensemble._executor.on_cpu = on_cpu
        ensemble.compute_ms = {1: compute_ms}
        assert deadline_for(ensemble, configured_ms) == deadline_ms


def test_only_devices_other_than_the_cpu_are_warmed_up_for_batches(
    miniature: Path, fast_device: None
) -> None:
    with Ensemble.load(miniature, device="cpu", largest_batch=8) as ensemble:
        assert ensemble.compute_ms.keys() == {1}
    with Ensemble.load(miniature, device="cuda", largest_batch=8) as ensemble:
        assert ensemble.compute_ms.keys() >= {1, 2}
        assert ensemble.compute_ms.keys() <= {1, 2, 4, 8}


def test_without_a_deadline_no_frame_is_late(miniature: Path, tmp_path: Path) -> None:
    server = start_server(miniature, tmp_path / "log.txt", "--device", "cpu")
    try:
        results = classify(server)
        assert [result.get("deadline_met") for result in results] == [None] * 14
        live = server.stream()["live"]
        assert (live["late"], live["deadline_ms"]) == (0, None)
        metrics = httpx.get(f"{server.url}/metrics").text
        assert "senoscope_deadline_misses_total 0.0" in metrics
        assert not any(line.startswith("senoscope_deadline_seconds ") for line in metrics.splitlines())
        table = to_dataframe(Client(server.url).all_results())
        assert table["deadline_met"].isna().all()
        assert table["deadline_met"].dtype == "boolean"
        exported = httpx.get(f"{server.url}/v1/results/export?format=parquet").content
        assert pd.read_parquet(io.BytesIO(exported))["deadline_met"].isna().all()
        rows = csv.DictReader(io.StringIO(httpx.get(f"{server.url}/v1/results/export?format=csv").text))
        assert {row["deadline_met"] for row in rows} == {""}
    finally:
        server.stop()


def test_a_deadline_can_be_set_on_a_cpu(miniature: Path, tmp_path: Path) -> None:
    server = start_server(miniature, tmp_path / "log.txt", "--device", "cpu", "--deadline-ms", "0.01")
    try:
        assert [result["deadline_met"] for result in classify(server)] == [False] * 14
        live = server.stream()["live"]
        assert (live["late"], live["deadline_ms"]) == (2, 0.01)
        metrics = httpx.get(f"{server.url}/metrics").text
        assert "senoscope_deadline_misses_total 2.0" in metrics
        assert "senoscope_deadline_seconds 1e-05" in metrics
    finally:
        server.stop()


def test_the_deadline_disappears_with_the_device_that_keeps_it(
    fast_device: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mini.build(tmp_path / "models" / "one")
    models = ("--models-dir", str(tmp_path / "models"), "--device", "cuda", "--fallback", "cpu")
    server = start_server(Path("one"), tmp_path / "log.txt", *models)
    scope = Microscope(server.frames)
    try:
        assert server.stream()["live"]["deadline_ms"] == PATIENT_MS
        scope.send(scope.frame(0))
        server.wait(lambda status: status["live"]["classified"] == 1)

        def fail(*_: object) -> None:
            raise RuntimeError("the device was lost")

        monkeypatch.setattr(server.service.active.ensemble._executor, "run", fail)
        scope.send(scope.frame(1))
        server.wait(lambda status: status["live"]["deadline_ms"] is None)
        scope.send(scope.frame(2))
        server.wait(lambda status: status["live"]["classified"] == 2)
        judged = {result["source"]["frame"]: "deadline_met" in result for result in server.logged()}
        assert judged == {0: True, 2: False}
    finally:
        scope.close()
        server.stop()


def test_an_impossible_deadline_is_refused() -> None:
    for value in ("0", "-24", "nan", "inf", "soon"):
        with pytest.raises(ValidationError, match="deadline_ms"):
            Settings(deadline_ms=value)
