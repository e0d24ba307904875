"""Folders of ensembles are complete or absent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from senoscope_training.export import folder as module
from senoscope_training.export.folder import build_ensemble_folder
from senoscope_training.export.publish import NetworkJob
from senoscope_training.workers.progress import silent

MANIFEST = SimpleNamespace(to_json=lambda: "{}")
NAMES = ("mobilenet", "inception_resnet_v2", "tiny")


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run jobs in this process; return the names in the order in which they are started."""
    names: list[str] = []

    def run_jobs(run: Callable[[Any], Any], jobs: list[NetworkJob], *_: object) -> list[Any]:
        names.extend(job.name for job in jobs)
        return [run(job) for job in jobs]

    monkeypatch.setattr(module, "run_jobs", run_jobs)
    return names


def make_jobs(folder: Path, threads: int) -> list[NetworkJob]:
    range_ = np.zeros(1, np.float32)
    return [
        NetworkJob(name=name, seed=0, directory=folder, low=range_, high=range_, threads=threads)
        for name in NAMES
    ]


def run(job: NetworkJob) -> str:
    job.path.write_text(job.name)
    return f"result of {job.name}"


def build(target: Path, describe: Callable[..., Any] = lambda *_: MANIFEST, **options: Any) -> Any:
    settings = {"parallel": 1, "force": False, "report": silent} | options
    return build_ensemble_folder(target, NAMES, make_jobs, run, describe, **settings)


def content(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_slowest_network_starts_first_and_results_are_in_the_order_of_the_manifest(tmp_path, started):
    found: dict[str, str] = {}
    build(tmp_path / "one", lambda _, results: found.update(results) or MANIFEST)
    assert started == ["inception_resnet_v2", "mobilenet", "tiny"]
    assert list(found.items()) == [(name, f"result of {name}") for name in NAMES]
    assert content(tmp_path / "one") == {"ensemble.json", *(f"{name}.onnx" for name in NAMES)}
    assert content(tmp_path) == {"one"}


def test_a_failure_leaves_nothing(tmp_path):
    def fail(*_: object) -> None:
        raise ValueError("a network is useless")

    with pytest.raises(ValueError, match="useless"):
        build(tmp_path / "one", fail)
    assert content(tmp_path) == set()


def test_an_existing_folder_is_replaced_only_with_force(tmp_path, started):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="pass --force to replace it"):
        build(tmp_path / "one")
    assert not started
    assert content(tmp_path / "one") == {"mine.txt"}
    build(tmp_path / "one", force=True)
    assert "mine.txt" not in content(tmp_path / "one")
    assert content(tmp_path) == {"one"}


def test_a_folder_that_another_process_creates_meanwhile_is_kept(tmp_path):
    def describe(*_: object) -> Any:
        (tmp_path / "one").mkdir()
        (tmp_path / "one" / "theirs.txt").write_text("theirs")
        return MANIFEST

    with pytest.raises(FileExistsError, match="another process may have created it"):
        build(tmp_path / "one", describe)
    assert content(tmp_path / "one") == {"theirs.txt"}
    assert content(tmp_path) == {"one"}


def test_another_folder_can_be_published_instead(tmp_path):
    def finish(folder: Path, _: object) -> Path:
        other = folder.parent / "recipe"
        other.mkdir()
        (other / "graph.pb").write_text(str(len(content(folder))))
        return other

    build(tmp_path / "one", finish=finish)
    assert (tmp_path / "one" / "graph.pb").read_text() == "4"
    assert content(tmp_path) == {"one"}
