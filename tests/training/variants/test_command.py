"""The command ``senoscope-train variants``, from its options to the files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from senoscope.engine.manifest import Manifest, read_manifest, sha256_of
from senoscope_client.simulation.synthetic import synthesize
from senoscope_training.variants import fovs as module
from senoscope_training.variants import write
from senoscope_training.variants.fovs import evenly_chosen
from support.commands import CompletedCommand, run_command
from support.jobs_here import run_jobs_here
from support.small_networks import HEIGHT, WIDTH, build


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return build(tmp_path / "models" / "small")


@pytest.fixture
def real(tmp_path: Path) -> Path:
    return build(tmp_path / "models" / "real", for_science=True)


def variants(folder: Path, *options: object) -> CompletedCommand:
    return run_command("senoscope-train", "variants", folder.name, "--models-dir", folder.parent, *options)


def fov(n: int) -> np.ndarray:
    return synthesize(9, n, senescent=bool(n % 2), height=HEIGHT, width=WIDTH).pixels


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set of 40 FOVs, of which ``dataset.csv`` has the labels."""
    directory = tmp_path / "data"
    directory.mkdir()
    rows = ["file,label,group,split"]
    for n in range(40):
        np.save(directory / f"{n:02d}.npy", fov(n))
        rows.append(f"{n:02d}.npy,{'senescent' if n % 2 else 'control'},plate {n // 10},")
    (directory / "dataset.csv").write_text("\n".join(rows) + "\n")
    return directory


def reference(folder: Path):
    manifest, _ = read_manifest(folder)
    assert manifest.reference is not None
    return manifest.reference


def test_a_synthetic_ensemble_needs_no_data(folder: Path) -> None:
    done = variants(folder, "--fovs-count", 12, "--jobs", 1)  # in a worker process
    assert done.returncode == 0, done.stderr
    assert "mobilenet │ fp16" in done.stdout
    assert done.stdout.rstrip().endswith(str(folder))
    assert reference(folder).source.startswith("12 synthetic fields of view (seed 1")
    assert "resnet50: done" in done.stderr


@pytest.fixture
def _jobs_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "run_jobs", run_jobs_here)


@pytest.mark.usefixtures("_jobs_here")
def test_progress_as_json_has_no_table(folder: Path) -> None:
    done = variants(folder, "--fovs-count", 8, "--json-progress")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["network"] for line in lines if line["stage"] == "done"] == ["mobilenet", "resnet50"]


def test_an_ensemble_of_real_cells_needs_data(real: Path) -> None:
    done = variants(real)
    assert done.returncode == 1
    assert "small was not trained on synthetic fields of view" in done.stderr
    assert "pass --data FOLDER" in done.stderr


@pytest.mark.usefixtures("_jobs_here")
def test_a_data_set_is_measured_where_it_was_tested_and_calibrated_where_it_was_trained(
    real: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sorted(data.glob("*.npy"))
    split = {
        side: [{"file": path.name, "sha256": sha256_of(path)} for path in some]
        for side, some in (("train", files[:24]), ("test", files[24:36]))
    }
    manifest, _ = read_manifest(real)
    training = manifest.training.model_copy(update={"split": split})
    text = manifest.model_copy(update={"training": training}).to_json()
    (real / "ensemble.json").write_text(text)
    monkeypatch.setattr(module, "CALIBRATION", 10)
    done = variants(real, "--data", data)
    assert done.returncode == 0, done.stderr
    found = reference(real)
    assert found.source == "12 fields of view that the ensemble was tested on"
    np.testing.assert_array_equal(
        np.load(real / found.file), np.stack([np.load(path) for path in files[24:36]])
    )
    kept = Manifest.model_validate_json(text)
    chosen = module.from_data_set(kept, module.DataConfig(path=data), 128, lambda _: None)
    trained = {np.load(path).tobytes() for path in files[:24]}
    assert len(chosen.calibration) == 10
    assert {fov.tobytes() for fov in chosen.calibration} <= trained


@pytest.mark.usefixtures("_jobs_here")
def test_another_data_set_is_divided(real: Path, data: Path) -> None:
    done = variants(real, "--data", data, "--fovs-count", 20)
    assert done.returncode == 0, done.stderr
    found = reference(real)
    assert found.source == "20 fields of view of data"
    assert found.labels is not None
    assert sum(found.labels) == 10
    assert found.agreement["fp16"].auc_loss is not None


@pytest.mark.usefixtures("_jobs_here")
def test_files_have_no_labels(real: Path, data: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "stack.npy", np.stack([np.load(data / f"{n:02d}.npy") for n in range(12)]))
    done = variants(real, "--fovs", tmp_path / "stack.npy")
    assert done.returncode == 0, done.stderr
    assert reference(real).labels is None
    assert reference(real).fovs == 9, "three are for calibration"
    assert reference(real).agreement["fp16"].auc_loss is None


def test_wrong_options_are_refused(folder: Path, data: Path, tmp_path: Path) -> None:
    assert "got 'bf16'" in variants(folder, "--variants", "bf16").stderr
    both = variants(folder, "--data", data, "--fovs", data / "00.npy")
    assert "pass either --data or --fovs" in both.stderr
    np.save(tmp_path / "small.npy", np.zeros((3, 10, 10), np.uint16))
    done = variants(folder, "--fovs", tmp_path / "small.npy")
    assert done.returncode == 1
    assert "small.npy" in done.stderr
    missing = variants(folder.parent / "absent")
    assert missing.returncode == 1
    assert "no ensemble here" in missing.stderr


def test_int8_without_nncf_names_the_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from senoscope_training.variants import int8

    monkeypatch.setattr(int8, "find_spec", lambda _: None)
    done = variants(folder, "--variants", "fp16,int8")
    assert done.returncode == 1
    assert 'pip install "senoscope[int8]"' in done.stderr


@pytest.mark.parametrize(
    ("labels", "count", "chosen"),
    [
        ([0, 1] * 4, 4, [0, 1, 4, 5]),
        ([0] * 8 + [1], 4, [0, 2, 5, 8]),
        ([1] + [0] * 8, 4, [0, 1, 3, 6]),
        ([0] * 8, 4, [0, 2, 4, 6]),
        ([0, 1], 8, [0, 1]),
        ([], 4, []),
    ],
)
def test_fovs_are_chosen_from_both_classes(labels: list[int], count: int, chosen: list[int]) -> None:
    assert evenly_chosen(labels, count) == chosen
