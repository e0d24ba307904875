"""The seven real networks, end to end."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest

from senoscope import Ensemble
from senoscope.engine import IntensityRange
from senoscope.engine.manifest import read_manifest
from senoscope_client.simulation.synthetic import synthesize
from support.servers import free_port, start_server, stop_server

pytestmark = pytest.mark.networks


@pytest.mark.parametrize("frames", [5, pytest.param(12, marks=pytest.mark.full)])
def test_the_demo_loses_nothing_and_its_labels_are_correct(starter_ensemble: Path, frames: int) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "senoscope.cli", "demo", "--no-browser", "--json"),
            *("--frames", str(frames), "--seed", "77"),
            *("--models-dir", str(starter_ensemble.parent), "--port", str(free_port())),
        ],
        capture_output=True,
        check=False,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["sent"], summary["classified"], summary["lost"]) == (frames, frames, 0)
    assert (summary["dropped"], summary["gaps"], summary["rejected"]) == (0, 0, 0)
    assert summary["accuracy"] >= 0.9
    assert summary["latency_ms"]["p50"] > 0


@pytest.mark.full
def test_a_demo_that_is_too_slow_reports_lost_frames(starter_ensemble: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "senoscope.cli", "demo", "--frames", "30", "--rate", "30", "--json"),
            *("--models-dir", str(starter_ensemble.parent), "--port", "0", "--device", "cpu"),
        ],
        capture_output=True,
        check=False,
        text=True,
        timeout=280,
    )
    summary = json.loads(done.stdout)
    assert done.returncode == 1
    assert summary["lost"] == summary["dropped"] == 30 - summary["classified"] > 0


@pytest.mark.full
def test_the_service_and_the_library_give_the_same_result(starter_ensemble: Path, tmp_path: Path) -> None:
    stack = np.stack([synthesize(123, n).pixels for n in range(3)])
    with Ensemble.load(starter_ensemble, device="cpu") as ensemble:
        expected = [ensemble.predict(fov)[0] for fov in stack]
    server = start_server(starter_ensemble, tmp_path / "log.txt")
    try:
        body = io.BytesIO()
        np.save(body, stack)
        answer = httpx.post(f"{server.url}/v1/classify?cam=grid", content=body.getvalue(), timeout=60).json()
    finally:
        stop_server(server)
    for result, prediction in zip(answer["results"], expected, strict=True):
        assert result["probability"] == pytest.approx(prediction.probability, abs=1e-6)
        for name, grid in zip(prediction.networks, prediction.gradcams, strict=True):
            served = np.array(result["gradcam"]["grids"][name])
            np.testing.assert_allclose(served, grid, atol=2e-4 * max(float(grid.max()), 1e-3))


@pytest.mark.full
def test_the_starter_ensemble_classifies_new_fovs_correctly(starter_ensemble: Path) -> None:
    fovs = [synthesize(987_654, n) for n in range(20)]
    with Ensemble.load(starter_ensemble, device="cpu") as ensemble:
        labels = [ensemble.predict(fov.pixels)[0].label == "senescent" for fov in fovs]
    truth = [fov.senescent for fov in fovs]
    assert 4 < sum(truth) < 16
    assert np.mean(np.array(labels) == truth) >= 0.9


@pytest.mark.full
def test_the_starter_ensemble_holds_the_usual_saturation(starter_ensemble: Path) -> None:
    manifest, _ = read_manifest(starter_ensemble)
    channels = manifest.normalization.channels
    high = np.array([channel.high for channel in channels], np.float32)
    usual = np.array([channel.saturated_p99 for channel in channels])
    bounds = IntensityRange(high - 1, high, "model")
    unseen = np.array([bounds.saturated_fraction(synthesize(987_654, n).pixels) for n in range(20)])
    assert (unseen > usual).mean() < 0.2
    assert usual[0] < 2 * unseen[:, 0].max(), "the bound is reached by some FOVs"
