"""The build of the starter ensemble: complete or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from senoscope.engine.errors import EnsembleError
from senoscope.engine.manifest import read_manifest, sha256_of
from senoscope.starter.build import StarterError, build_starter
from senoscope.starter.locate import locate_ensemble, require_ensemble
from senoscope.starter.onnx_file import network_size, write_network
from senoscope.starter.recipe import NetworkRecipe
from support.run_logs import Disk
from support.tiny_recipe import KERNELS, tiny_network, write_tiny_recipe

BUILDER = Path(__file__).parents[2] / "support" / "killed_build.py"


@pytest.fixture(scope="module")
def recipe(miniature: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_recipe(tmp_path_factory.mktemp("recipes") / "tiny", miniature)


def is_complete(ensemble: Path) -> bool:
    manifest, _ = read_manifest(ensemble)
    files = {v.file: v.sha256 for network in manifest.networks for v in network.variants}
    files |= {vector.file: vector.sha256 for vector in manifest.test_vectors}
    present = {path.name for path in ensemble.iterdir()}
    return present == {*files, "ensemble.json"} and all(
        sha256_of(ensemble / name) == digest for name, digest in files.items()
    )


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".starter.lock")


def builder(models: Path, recipe: Path, share: float) -> subprocess.Popen:
    command = [sys.executable, str(BUILDER), str(models), str(recipe), str(share)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_network_file_is_an_onnx_model_with_the_drawn_kernels(tmp_path: Path) -> None:
    recipe = tiny_network("resnet50")
    path = tmp_path / "resnet50.onnx"
    wrote: list[int] = []
    assert write_network(recipe, path, wrote.append) == sha256_of(path)
    assert sum(wrote) == path.stat().st_size > network_size(recipe)
    model = onnx.load(path)
    assert model.ir_version == 8
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    assert {name: array.shape for name, array in tensors.items()} == {k.name: k.shape for k in KERNELS}
    for kernel, values in recipe.values():
        assert np.array_equal(tensors[kernel.name], values)


def test_a_recipe_is_read_as_it_was_saved(tmp_path: Path) -> None:
    recipe = tiny_network("xception")
    recipe.save(tmp_path / "a.zip")
    read = NetworkRecipe.load(tmp_path / "a.zip")
    assert (read.network, read.seed, read.model, read.graph, read.kernels) == (
        *(recipe.network, recipe.seed, recipe.model, recipe.graph, recipe.kernels),
    )
    assert all(np.array_equal(a, b) for a, b in zip(read.scales, recipe.scales, strict=True))
    read.save(tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_a_build_creates_the_files_of_the_manifest_and_reports_progress(tmp_path: Path, recipe: Path) -> None:
    steps: list[tuple[int, int]] = []
    built = build_starter(tmp_path / "models", lambda done, total: steps.append((done, total)), recipe)
    assert is_complete(built)
    assert visible(tmp_path / "models") == ["starter"]
    done = [step[0] for step in steps]
    assert done == sorted(done)
    assert steps[-1][0] == steps[-1][1] > 0


def test_an_existing_ensemble_is_not_replaced(tmp_path: Path, recipe: Path) -> None:
    (tmp_path / "starter").mkdir()
    (tmp_path / "starter" / "ensemble.json").write_text("another ensemble")
    build_starter(tmp_path, pytest.fail, recipe)
    assert (tmp_path / "starter" / "ensemble.json").read_text() == "another ensemble"


@pytest.mark.parametrize("share", [k / 10 for k in range(10)])
def test_a_build_after_a_killed_one_succeeds_and_removes_its_files(
    tmp_path: Path, recipe: Path, share: float
) -> None:
    killed = builder(tmp_path, recipe, share)
    killed.communicate(timeout=60)
    assert killed.returncode != 0
    assert not (tmp_path / "starter").exists()
    assert any(name.startswith(".starter-partial-") for name in visible(tmp_path)), (
        "the process was killed before it began"
    )
    assert is_complete(build_starter(tmp_path, recipe=recipe))
    assert visible(tmp_path) == ["starter"]


def test_only_one_of_several_concurrent_processes_builds(tmp_path: Path, recipe: Path) -> None:
    builders = [builder(tmp_path, recipe, 2) for _ in range(4)]
    outputs = [process.communicate(timeout=120) for process in builders]
    assert [process.returncode for process in builders] == [0] * 4, outputs
    assert sorted(out.strip() for out, _ in outputs) == ["built", "found", "found", "found"]
    assert is_complete(tmp_path / "starter")
    assert visible(tmp_path) == ["starter"]


def test_a_built_file_with_another_hash_is_refused(tmp_path: Path, miniature: Path) -> None:
    damaged = write_tiny_recipe(tmp_path / "recipe", miniature)
    other = tiny_network("mobilenet")
    scales = (other.scales[0] * np.float32(1.0001), *other.scales[1:])
    NetworkRecipe("mobilenet", 5, other.model, other.graph, KERNELS, scales).save(damaged / "mobilenet.zip")
    with pytest.raises(StarterError, match=r"mobilenet\.onnx.*SHA-256") as failure:
        build_starter(tmp_path / "models", recipe=damaged)
    assert failure.value.path.name == "mobilenet.onnx"
    assert visible(tmp_path / "models") == []


def test_an_unusable_folder_is_reported(tmp_path: Path, recipe: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StarterError, match=r"cannot be built in .*--models-dir"):
        build_starter(tmp_path / "file" / "models", recipe=recipe)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_a_read_only_folder_is_reported(tmp_path: Path, recipe: Path) -> None:
    disk = Disk(tmp_path)
    mounted = disk.mount("size=10m")
    if not mounted and os.geteuid() == 0:
        pytest.skip("root may write everywhere, and cannot mount a file system here")
    try:
        disk.set_writable(False) if mounted else tmp_path.chmod(0o500)
        with pytest.raises(StarterError, match=r"(Read-only|Permission).*--models-dir"):
            build_starter(tmp_path, recipe=recipe)
        disk.set_writable(True) if mounted else tmp_path.chmod(0o700)
        assert is_complete(build_starter(tmp_path, recipe=recipe))
    finally:
        disk.umount()


@pytest.mark.skipif(sys.platform == "win32", reason="mounts a file system")
def test_a_full_disk_is_reported_and_temporary_files_are_removed(tmp_path: Path, recipe: Path) -> None:
    disk = Disk(tmp_path)
    if not disk.mount("size=256k"):
        pytest.skip("a small file system cannot be mounted here")
    try:
        with pytest.raises(StarterError, match=r"needs \d+ MB in .*No space left on device"):
            build_starter(tmp_path, recipe=recipe)
        assert visible(tmp_path) == []
        subprocess.run(["mount", "-o", "remount,size=10m", str(tmp_path)], check=True)
        assert is_complete(build_starter(tmp_path, recipe=recipe))
    finally:
        disk.umount()


def test_an_existing_folder_that_is_not_an_ensemble_is_not_overwritten(tmp_path: Path, recipe: Path) -> None:
    (tmp_path / "starter").mkdir()
    (tmp_path / "starter" / "notes.txt").write_text("mine")
    with pytest.raises(StarterError, match=r"no ensemble\.json: remove it"):
        build_starter(tmp_path, recipe=recipe)
    assert (tmp_path / "starter" / "notes.txt").read_text() == "mine"
    (tmp_path / "starter" / "notes.txt").unlink()
    assert is_complete(build_starter(tmp_path, recipe=recipe)), "an empty folder is replaced"


def test_no_other_missing_ensemble_is_built(tmp_path: Path) -> None:
    notices: list[str] = []
    with pytest.raises(EnsembleError, match="no ensemble here"):
        locate_ensemble("plates", tmp_path, notices.append)
    assert notices == []
    assert require_ensemble("starter", tmp_path) is None
    with pytest.raises(EnsembleError):
        require_ensemble("plates", tmp_path)


@pytest.mark.networks
def test_the_shipped_recipe_builds_the_starter(starter_ensemble: Path) -> None:
    assert is_complete(starter_ensemble)
    notices: list[str] = []
    assert locate_ensemble("starter", starter_ensemble.parent, notices.append) == starter_ensemble.resolve()
    assert notices == []
