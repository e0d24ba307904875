"""Variants and reference FOVs in the folder of an ensemble: complete, replaced, interrupted, refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from filelock import FileLock

from senoscope.engine import Ensemble, EnsembleError
from senoscope.engine.manifest import Manifest, read_manifest, verify_file
from senoscope.starter.build import recipe_folder
from senoscope_training.variants import network_job, write
from senoscope_training.variants.errors import VariantError
from senoscope_training.variants.fovs import VariantFovs, synthetic_for
from senoscope_training.variants.write import VariantOptions, write_variants
from support import killed_variants
from support.jobs_here import run_jobs_here
from support.small_networks import NAMES, build, small_network


@pytest.fixture(autouse=True)
def _jobs_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "run_jobs", run_jobs_here)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return build(tmp_path / "small")


def fovs(folder: Path, count: int = 12) -> VariantFovs:
    return synthetic_for(read_manifest(folder)[0], count)


def content(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def verify(folder: Path) -> Manifest:
    """Check all listed files, and that there are no others of variants; load the ensemble."""
    manifest, _ = read_manifest(folder)
    listed = [(v.file, v.sha256) for network in manifest.networks for v in network.variants]
    if manifest.reference is not None:
        listed += [(manifest.reference.file, manifest.reference.sha256)]
        listed += [(manifest.reference.expected, manifest.reference.expected_sha256)]
    for name, sha256 in listed:
        verify_file(folder / name, sha256)
    others = {"ensemble.json", "test_vector.npy", "README.md"}
    assert content(folder) - others == {name for name, _ in listed}
    with Ensemble.load(folder, device="cpu") as ensemble:
        assert ensemble.names == NAMES
    return manifest


def test_variants_and_reference_are_listed_and_the_ensemble_loads(folder: Path) -> None:
    _, before = read_manifest(folder)
    made, judged = write_variants(folder, fovs(folder))
    manifest = verify(folder)
    assert manifest == made
    assert read_manifest(folder)[1] != before
    for network in manifest.networks:
        variant = network.variant("fp16")
        assert variant is not None
        assert variant.file.startswith(f"{network.name}.fp16-")
        assert variant.parity.agreement == judged["fp16"].accepted[network.name].agreement
        for correction in ("bias", "head"):
            assert network.metrics[f"fp16_{correction}_corrected"] in (0, 1)
        assert network.rejected_variants == ()
    assert manifest.reference is not None
    assert manifest.reference.agreement == {"fp16": judged["fp16"].ensemble}
    card = (folder / "README.md").read_text()
    assert card.count("## Lower precisions") == 1
    assert "| mobilenet | fp16 |" in card


def test_the_reference_has_the_outputs_of_fp32_in_the_type_of_the_source(folder: Path) -> None:
    measured = fovs(folder, 40)
    manifest, _ = write_variants(folder, measured, VariantOptions(()))
    reference = manifest.reference
    assert reference is not None
    pixels = np.load(folder / reference.file)
    assert (pixels.dtype, len(pixels), reference.fovs) == (np.dtype(np.uint16), 32, 32)
    assert reference.labels is not None
    assert sum(reference.labels) == 16
    assert reference.agreement == {}
    with Ensemble.load(folder, device="cpu") as ensemble, np.load(folder / reference.expected) as expected:
        assert set(expected) == {f"{name}.{kind}" for name in NAMES for kind in ("probability", "gradcam")}
        for n, fov in enumerate(pixels):
            (prediction,) = ensemble.predict(fov)
            for k, name in enumerate(NAMES):
                assert expected[f"{name}.probability"][n] == pytest.approx(prediction.probabilities[k])
                np.testing.assert_allclose(expected[f"{name}.gradcam"][n], prediction.gradcams[k], atol=1e-6)
    verify(folder)


def test_a_second_call_replaces_the_first(folder: Path) -> None:
    write_variants(folder, fovs(folder))
    first = content(folder)
    write_variants(folder, fovs(folder, 16))
    verify(folder)
    assert len(content(folder)) == len(first)
    assert (folder / "README.md").read_text().count("## Lower precisions") == 1
    write_variants(folder, fovs(folder), VariantOptions(()))
    manifest = verify(folder)
    assert [len(network.variants) for network in manifest.networks] == [1, 1]
    assert not any(name.endswith("_corrected") for network in manifest.networks for name in network.metrics)


def test_a_damaged_variant_is_rejected_and_the_other_accepted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert = network_job.convert_to_half

    def last_weights(model: onnx.ModelProto) -> onnx.TensorProto:
        return next(tensor for tensor in model.graph.initializer if tensor.name == "last")

    damaged = last_weights(onnx.load(folder / "resnet50.onnx"))

    def convert_badly(model: onnx.ModelProto) -> onnx.ModelProto:
        half = convert(model)
        if last_weights(model) == damaged:  # whatever its corrections
            weight = next(t for t in half.graph.initializer if t.name == "last/fp16")
            array = onnx.numpy_helper.to_array(weight) * np.float16(1.5)
            weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))
        return half

    monkeypatch.setattr(network_job, "convert_to_half", convert_badly)
    write_variants(folder, fovs(folder))
    good, bad = verify(folder).networks
    assert good.variant("fp16") is not None
    assert bad.variant("fp16") is None
    (rejected,) = bad.rejected_variants
    assert rejected.precision == "fp16"
    assert rejected.agreement is not None
    assert f"rejected: {rejected.reasons[0]}" in (folder / "README.md").read_text()


def test_activations_beyond_fp16_are_rejected(tmp_path: Path) -> None:
    networks = {"mobilenet": small_network(1), "resnet50": small_network(2, gain=1e6)}
    folder = build(tmp_path / "large", networks)
    write_variants(folder, fovs(folder))
    good, bad = verify(folder).networks
    assert good.variant("fp16") is not None
    (rejected,) = bad.rejected_variants
    assert "beyond" in rejected.reasons[0] or "exceeds the range of fp16" in rejected.reasons[0]
    assert rejected.agreement is None


@pytest.mark.parametrize("step", ["converted", "moved", "listed"])
@pytest.mark.parametrize("earlier", [False, True], ids=["first", "again"])
def test_a_killed_call_leaves_an_ensemble_that_loads_and_the_next_call_cleans_up(
    folder: Path, step: str, earlier: bool
) -> None:
    if earlier:
        write_variants(folder, fovs(folder, 8))
    _, before = read_manifest(folder)
    done = subprocess.run(
        [sys.executable, killed_variants.__file__, str(folder), step],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode not in (0, 1), done.stderr
    assert (read_manifest(folder)[1] == before) == (step != "listed")
    Ensemble.load(folder, device="cpu").close()
    write_variants(folder, fovs(folder))
    verify(folder)


def test_a_failure_removes_what_it_moved_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    before = content(folder)
    monkeypatch.setattr(write, "write_atomic", fail)
    with pytest.raises(OSError, match="no space"):
        write_variants(folder, fovs(folder))
    assert content(folder) == before


@pytest.mark.parametrize("name", ["mobilenet.onnx", "test_vector.npy"])
def test_an_ensemble_with_damaged_files_is_refused_before_any_work(folder: Path, name: str) -> None:
    measured = fovs(folder)
    with (folder / name).open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x01" if file.read(1) != b"\x01" else b"\x02")
    before = content(folder)
    with pytest.raises(EnsembleError, match="was changed or damaged"):
        write_variants(folder, measured)
    assert content(folder) == before


def test_an_ensemble_that_another_process_works_on_is_refused(folder: Path) -> None:
    with (
        FileLock(folder.parent / ".small.variants.lock"),
        pytest.raises(VariantError, match="another process makes variants"),
    ):
        write_variants(folder, fovs(folder))


def test_an_ensemble_that_changed_meanwhile_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    move_in = write._move_in

    def change(*arguments: object) -> Manifest:
        updated = move_in(*arguments)
        text = (
            (folder / "ensemble.json").read_text().replace('"intended_use": "tests"', '"intended_use": "x"')
        )
        (folder / "ensemble.json").write_text(text)
        return updated

    monkeypatch.setattr(write, "_move_in", change)
    with pytest.raises(VariantError, match="was changed by another process"):
        write_variants(folder, fovs(folder))
    assert verify(folder).intended_use == "x"


def test_too_few_fovs_are_refused(folder: Path) -> None:
    with pytest.raises(VariantError, match=r"3 synthetic fields of view .* are too few"):
        write_variants(folder, fovs(folder, 3))


def test_a_manifest_without_variants_keeps_its_text() -> None:
    text = (recipe_folder() / "ensemble.json").read_text(encoding="utf-8")
    assert Manifest.model_validate_json(text).to_json() == text


@pytest.mark.full
def test_int8_is_calibrated_and_judged(folder: Path) -> None:
    manifest, judged = write_variants(folder, fovs(folder), VariantOptions(("fp16", "int8")))
    verify(folder)
    found = judged["int8"]
    for network in manifest.networks:
        agreement = (found.accepted | found.rejected)[network.name].agreement
        assert agreement is not None, found.rejected
        assert agreement.max_abs_probability > 0
