"""Blank networks, which give the same output for all fields of view: detected, and reported to users."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from typer.testing import CliRunner

from senoscope.cli import app
from senoscope.engine import Ensemble
from senoscope.engine.blank_networks import all_same, blank_reason
from senoscope.engine.manifest import sha256_of
from support import miniature as mini

CLASSES = [False] * 10 + [True] * 10


@pytest.mark.parametrize(
    ("logits", "peaks", "reason"),
    [
        ([0.0464] * 20, [0.0] * 20, "gives all 20 fields of view the same probability (0.5116)"),
        ([0.0464] * 20, [1.0] * 20, "gives all 20 fields of view the same probability (0.5116)"),
        (
            [0.0464] * 15 + [1.0, 2.0, 3.0, 4.0, 5.0],
            [0.0] * 15 + [1.0] * 5,
            "gives 15 of 20 fields of view, at least half",
        ),
        (list(range(20)), [0.0] * 20, "has a Grad-CAM map of zero for all 20"),
        (list(range(20)), [0.0] * 19 + [1e-6], ""),
        # A good head: off for all of one class.
        ([-2.0] * 10 + list(range(10)), [0.0] * 10 + [1.0] * 10, ""),
        # Many equal outputs, but of one class.
        ([-2.0] * 14 + [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [0.0] * 14 + [1.0] * 6, ""),
        (list(range(20)), [1.0] * 20, ""),
        # Confident in all outputs, and wrong for half of one class.
        ([*np.linspace(-12, -9, 15), 5.0, 6.0, 7.0, 8.0, 9.0], [1.0] * 20, ""),
        # A head with almost no signal: its outputs differ in the fifth digit.
        (np.linspace(0.11493, 0.11505, 20), [1.0] * 20, "gives all 20 fields of view the same probability"),
        (
            [*np.linspace(0.11493, 0.11505, 15), 1.0, 2.0, 3.0, 4.0, 5.0],
            [1.0] * 20,
            "gives 15 of 20 fields of view, at least half of each class, the same probability (0.5287)",
        ),
    ],
)
def test_blank_outputs_are_detected(logits, peaks, reason):
    found = blank_reason(logits, peaks, CLASSES)
    assert reason in found
    assert bool(found) == bool(reason)


@pytest.mark.parametrize("middle", [0.002, 0.3, 0.49995, 0.5287, 0.9979])
@pytest.mark.parametrize(
    ("spread", "same"), [(0.0, True), (3e-5, True), (9.9e-4, True), (1.01e-3, False), (3e-3, False)]
)
def test_all_same_and_blank_reason_agree(middle, spread, same):
    probability = middle + spread * np.linspace(-0.5, 0.5, 20)
    logits = np.log(probability / (1 - probability))
    assert all_same(probability) == same
    assert ("gives all 20" in blank_reason(logits, [1.0] * 20)) == same


def test_one_field_of_view_is_never_blank():
    assert blank_reason([0.5], [0.0]) == ""


def test_a_few_maps_of_zero_are_not_blank():
    assert blank_reason([-1.0, -2.0], [0.0, 0.0]) == ""


def make(folder: Path, *, blank: str | None, warnings: list[str], nearly: bool = False) -> Path:
    """Build a miniature ensemble with a test vector of each class; one network may be (nearly) off."""
    mini.build(folder)
    manifest = json.loads((folder / "ensemble.json").read_text())
    if blank is not None:
        path = folder / f"{blank}.onnx"
        model = onnx.load(path)
        for tensor in model.graph.initializer:
            if nearly and tensor.name == "w2":
                scaled = numpy_helper.to_array(tensor) * np.float32(1e-4)
                tensor.CopyFrom(numpy_helper.from_array(scaled, "w2"))
            if not nearly and tensor.name == "b1":
                tensor.CopyFrom(numpy_helper.from_array(np.full(4, -1e6, np.float32), "b1"))
        onnx.save(model, path)
        (network,) = (one for one in manifest["networks"] if one["name"] == blank)
        network["variants"][0] |= {"sha256": sha256_of(path), "bytes": path.stat().st_size}
    manifest["test_vectors"] = []
    for k, fov in enumerate((mini.bright(), mini.dark())):
        path = folder / f"vector_{k}.npy"
        np.save(path, fov)
        answers = {name: mini.reference_probability(folder / f"{name}.onnx", fov) for name in mini.NAMES}
        manifest["test_vectors"].append(
            {
                "file": path.name,
                "sha256": sha256_of(path),
                "expected": {"probability": float(np.mean(list(answers.values()))), "networks": answers},
                "tolerance": 1e-4,
            }
        )
    manifest["warnings"] = warnings
    (folder / "ensemble.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="module")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("models") / "blank", blank="mobilenet", warnings=[])


def test_a_blank_network_is_found_by_the_test_vectors(blank):
    with Ensemble.load(blank, device="cpu") as ensemble:
        (warning,) = ensemble.warnings
    assert warning.startswith("mobilenet gives all 2 fields of view the same probability (0.2689)")


def test_a_network_with_almost_no_signal_is_found_by_the_test_vectors(tmp_path):
    folder = make(tmp_path / "nearly", blank="mobilenet", warnings=[], nearly=True)
    with Ensemble.load(folder, device="cpu") as ensemble:
        predictions = ensemble.predict(np.stack([mini.bright(), mini.dark()]))
        (warning,) = ensemble.warnings
    bright, dark = (one.logits[one.networks.index("mobilenet")] for one in predictions)
    assert bright != dark
    assert warning.startswith("mobilenet gives all 2 fields of view the same probability")


def test_networks_with_signal_have_no_warning(tmp_path):
    with Ensemble.load(make(tmp_path / "good", blank=None, warnings=[]), device="cpu") as ensemble:
        assert ensemble.warnings == ()


@pytest.mark.parametrize(
    "known",
    [
        "mobilenet gives 15 of 20 fields of view the same probability",
        "mobilenet: it gives all validation and test FOVs the same score",
    ],
)
def test_a_warning_of_the_manifest_is_not_repeated(tmp_path, known):
    folder = make(tmp_path / "noted", blank="mobilenet", warnings=[known])
    with Ensemble.load(folder, device="cpu") as ensemble:
        assert ensemble.warnings == (known,)


def test_a_blank_network_is_reported_by_service_doctor_and_classify(blank, tmp_path, start):
    log = tmp_path / "log.txt"
    server = start(model=blank, log=log)
    model = httpx.get(f"{server.url}/v1/model", timeout=30).json()
    assert "mobilenet gives all 2" in json.dumps(model)
    assert "this ensemble has a fault" in log.read_text()
    doctor = CliRunner().invoke(app, ["doctor", "--model", str(blank), "--json", "--port", "0"])
    (finding,) = (one for one in json.loads(doctor.stdout) if one["topic"] == "ensemble")
    assert finding["verdict"] == "note"
    assert "mobilenet gives all 2" in finding["text"]
    np.save(tmp_path / "fov.npy", mini.bright())
    done = CliRunner().invoke(app, ["classify", str(tmp_path / "fov.npy"), "--model", str(blank)])
    assert done.exit_code == 0, done.output
    assert "mobilenet gives all 2" in " ".join(done.stderr.split())
