"""A data set is opened once, and after an interruption only the files that changed."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from senoscope_training.cli import app
from senoscope_training.config import Config
from senoscope_training.dataset.cache import PixelCache
from senoscope_training.dataset.model import DataSetError
from senoscope_training.experiment import runner
from senoscope_training.experiment.folder import ExperimentError
from support.image_bytes import npy, tiff
from support.labelled_folders import SIZE, config, fov, png, write

FILES = {
    f"{'control' if n % 2 else 'senescent'}/{n}{suffix}": data
    for n, (suffix, data) in enumerate(
        [(".tif", tiff(fov(n))) for n in range(6)]
        + [(".npy", npy(fov(n))) for n in range(6, 10)]
        + [(".png", png(fov(n, dtype="uint8").transpose(1, 2, 0))) for n in range(10, 12)]
    )
}
PER_CHANNEL = {
    f"{'control' if n % 2 else 'senescent'}/dish{n}_ch0{c}.tif": tiff(fov(n)[c])
    for n in range(6)
    for c in range(3)
}
_watched: list[tuple[str, Counter[str]]] = []


def _count(event: str, arguments: tuple) -> None:
    if event == "open" and _watched and isinstance(arguments[0], (str, os.PathLike)):
        root, opened = _watched[-1]
        path = Path(arguments[0])
        if path.suffix in (".tif", ".npy", ".png") and path.is_relative_to(root):
            opened[path.relative_to(root).as_posix()] += 1


sys.addaudithook(_count)


@contextmanager
def counting(root: Path) -> Iterator[Counter[str]]:
    """Count how often each image of a folder is opened."""
    opened: Counter[str] = Counter()
    _watched.append((str(root), opened))
    try:
        yield opened
    finally:
        _watched.pop()


@pytest.mark.parametrize("files", [FILES, PER_CHANNEL], ids=["all channels", "per channel"])
def test_a_check_opens_each_file_once(tmp_path, files):
    options = ["--per-channel", "_ch00,_ch01,_ch02"] if files is PER_CHANNEL else []
    with counting(write(tmp_path, files)) as opened:
        done = CliRunner().invoke(app, ["check", str(tmp_path), *options])
    assert done.exit_code == 0, done.output
    assert opened == dict.fromkeys(files, 1)


@pytest.fixture
def experiment(tmp_path: Path) -> Config:
    data = config(write(tmp_path / "data", FILES))
    return Config(name="x", data=data, input=SIZE, systems=("scratch",), runs_dir=tmp_path, runs=1)


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Interrupt experiments where the training begins, and return what would be trained."""
    jobs: list[object] = []

    def interrupt(_, todo, *__):
        jobs.extend(todo)
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run_jobs", interrupt)
    return jobs


def start(experiment: Config) -> Counter[str]:
    """Run an experiment until its training begins; return how often each file of its data set was opened."""
    with counting(experiment.data.path) as opened, pytest.raises(KeyboardInterrupt):
        runner.run_experiment(experiment, 1)
    return opened


def test_a_run_opens_each_file_once_and_a_resumed_run_none(experiment, interrupted):
    assert start(experiment) == dict.fromkeys(FILES, 1)
    assert start(experiment) == {}
    first, resumed = interrupted
    assert resumed.files == first.files
    np.testing.assert_array_equal(resumed.labels, first.labels)
    assert resumed.folds[0].low.tolist() == first.folds[0].low.tolist()
    pixels = np.load(resumed.pixels)
    np.testing.assert_array_equal(pixels[first.files.index("senescent/0.tif")], fov(0))


def test_only_a_file_with_another_time_is_hashed(experiment, interrupted):
    start(experiment)
    os.utime(experiment.data.path / "senescent/0.tif", (1, 1))
    assert start(experiment) == {"senescent/0.tif": 1}
    assert start(experiment) == {}


@pytest.mark.parametrize("same_time", [True, False])
def test_a_changed_data_set_is_refused(experiment, interrupted, same_time):
    start(experiment)
    path = experiment.data.path / "senescent/0.tif"
    before = path.stat()
    path.write_bytes(tiff(fov(90)) + b"\0" * same_time)
    if same_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ExperimentError, match="has changed since"):
        runner.run_experiment(experiment, 1)


def test_added_and_damaged_files_are_read(tmp_path):
    cache, settings = PixelCache(tmp_path / "cache"), config(write(tmp_path / "data", FILES))
    before = cache.read(settings, SIZE)
    write(tmp_path / "data", {"control/new.tif": tiff(fov(90))})
    after = cache.read(settings, SIZE)
    assert len(after) == len(before) + 1 == len(np.load(cache.pixels))
    write(tmp_path / "data", {"senescent/0.tif": b"damaged"})
    with pytest.raises(DataSetError, match=r"senescent/0\.tif"):
        cache.read(settings, SIZE)


def test_other_settings_are_read_again(tmp_path):
    cache, settings = PixelCache(tmp_path / "cache"), config(write(tmp_path / "data", FILES))
    cache.read(settings, SIZE)
    smaller = SIZE.model_copy(update={"height": 32, "width": 32})
    cache.read(settings.model_copy(update={"fit": "pad"}), smaller)
    assert np.load(cache.pixels).shape == (12, 3, 32, 32)


def test_warnings_are_reported_again_and_channels_combined_again(tmp_path):
    cache = PixelCache(tmp_path / "cache")
    settings = config(
        write(tmp_path / "data", PER_CHANNEL | {"x.xyz": "x"}), per_channel=("_ch00", "_ch01", "_ch02")
    )
    reported: list[list[str]] = []
    found = []
    for _ in range(2):
        reported.append([])
        found.append(
            cache.read(
                settings,
                SIZE,
                lambda step: reported[-1].append(step.detail) if step.stage == "warning" else None,
            )
        )
    assert found[0] == found[1]
    assert reported[0] == reported[1] != []


def test_an_unfinished_cache_is_not_used(tmp_path):
    cache, settings = PixelCache(tmp_path / "cache"), config(write(tmp_path / "data", FILES))
    cache.read(settings, SIZE)
    (tmp_path / "cache" / "pixels.json").unlink()
    with counting(tmp_path / "data") as opened:
        cache.read(settings, SIZE)
    assert opened == dict.fromkeys(FILES, 1)
    cache.delete()
    assert list((tmp_path / "cache").iterdir()) == []
