"""The engine as a library: ensembles by name, and the starter ensemble built if it is missing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import senoscope
from senoscope.engine.errors import EnsembleError
from senoscope.starter import build as starter_build
from support import miniature as mini


@pytest.fixture
def models(miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A models folder with one ensemble; a build of the starter ensemble is only a copy."""
    folder = tmp_path / "models"
    folder.mkdir()
    shutil.copytree(miniature, folder / "plates")
    monkeypatch.setenv("SENOSCOPE_MODELS_DIR", str(folder))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        starter_build,
        "build_starter",
        lambda models_dir, progress: Path(shutil.copytree(miniature, models_dir / "starter")),
    )
    return folder


def test_an_ensemble_is_loaded_by_its_name(models: Path) -> None:
    with senoscope.Ensemble.load("plates", device="cpu") as ensemble:
        assert ensemble.directory == models / "plates"
        (prediction,) = ensemble.predict(mini.bright()[None])
        assert prediction.label == "senescent"
    with senoscope.load_ensemble("plates", device="cpu") as ensemble:
        assert ensemble.directory == models / "plates"


@pytest.mark.parametrize("load", [senoscope.Ensemble.load, senoscope.load_ensemble])
def test_the_starter_ensemble_is_built_if_it_is_missing(models: Path, load) -> None:
    assert not (models / "starter").exists()
    with load("starter", device="cpu") as ensemble:
        assert ensemble.directory == models / "starter"


def test_an_ensemble_is_loaded_by_its_folder(models: Path, miniature: Path) -> None:
    for named in (miniature, str(miniature), "models/plates", "./models/plates"):
        with senoscope.Ensemble.load(named, device="cpu") as ensemble:
            assert ensemble.directory == Path(named)


def test_an_unknown_name_lists_the_available_ensembles(models: Path) -> None:
    for load in (senoscope.Ensemble.load, senoscope.load_ensemble):
        with pytest.raises(EnsembleError, match=r"there are: plates"):
            load("plate")


def test_an_ensemble_is_loaded_from_another_models_folder(models: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.move(models, other)
    with senoscope.load_ensemble("plates", models_dir=other, device="cpu") as ensemble:
        assert ensemble.directory == other / "plates"
