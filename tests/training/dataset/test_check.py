"""Checks of data sets: their results, and the commands."""

from __future__ import annotations

import io
import json
import pickle
import socket
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from senoscope.engine.intensity import fit_range
from senoscope_training.cli import app
from senoscope_training.config import SplitConfig
from senoscope_training.dataset.check_figure import draw
from senoscope_training.dataset.check_view import blocks, render
from senoscope_training.dataset.checking import channel_stats, check, find_leaks
from senoscope_training.dataset.model import DataSet, Entry
from senoscope_training.dataset.reading import inspect_data_set
from senoscope_training.dataset.splits import make_folds
from senoscope_training.dataset.writing import SYNTHETIC_NAME
from support.image_bytes import npy, tiff
from support.labelled_folders import NAMES, H, W, config, fov, write

CONFIG = f"name: x\ndata: {{path: data}}\ninput: {{height: {H}, width: {W}}}\nsystems: [scratch]\n"


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def plates(root: Path, more: dict[str, bytes] | None = None) -> Path:
    """Write four plates with two FOVs of each class."""
    files = {
        f"plate {p}/{label}/{n}.npy": npy(fov(100 * p + 10 * n + len(label)))
        for p in range(4)
        for label in ("control", "senescent")
        for n in range(2)
    }
    return write(root, {**files, **(more or {})})


def inspected(root: Path, by: str = "group"):
    inspection = inspect_data_set(config(root))
    return inspection, make_folds(inspection.data_set, SplitConfig(by=by, test_fraction=0.25), 0)


def test_counts(tmp_path):
    inspection, folds = inspected(plates(tmp_path))
    found = check(inspection, config(tmp_path), folds)
    assert found.counts == {"control": 8, "senescent": 8}
    assert found.groups == {f"plate {p}": {"control": 2, "senescent": 2} for p in range(4)}
    assert found.splits == {
        "split: train": {"control": 6, "senescent": 6},
        "split: test": {"control": 2, "senescent": 2},
    }
    assert found.sizes == {f"{H}x{W}": 16}
    assert found.dtypes == {"uint16": 16}
    assert found.leaks == ()
    assert found.usable


def test_groups_on_both_sides_leak(tmp_path):
    inspection, folds = inspected(plates(tmp_path), by="fov")
    both = [
        f"plate {p}"
        for p in range(4)
        if {p} <= {n // 4 for n in folds[0].train} & {n // 4 for n in folds[0].test}
    ]
    leaks = find_leaks(inspection.data_set, inspection.facts, folds)
    assert [(leak.what, leak.folds) for leak in leaks if leak.kind == "group"] == [
        (g, ("split",)) for g in both
    ]
    assert both


@pytest.mark.parametrize(
    ("copy", "kind"),
    [
        (npy(fov(7)), "identical file"),
        (tiff(fov(7)), "identical pixels"),
        (npy(fov(7) + np.uint16(3)), "similar pixels"),
        (npy(np.stack([cv2.GaussianBlur(plane, (3, 3), 0.5) for plane in fov(7)])), "similar pixels"),
    ],
    ids=["file", "pixels", "brighter", "blurred"],
)
def test_copies_on_another_plate_are_found(tmp_path, copy, kind):
    # fov(7) is the first control of plate 0.
    inspection, _ = inspected(
        plates(tmp_path, {f"plate 3/control/copy.{'tif' if copy[:2] == b'II' else 'npy'}": copy})
    )
    without = find_leaks(inspection.data_set, inspection.facts)
    (leak,) = without
    assert leak.kind == kind
    assert leak.what.startswith("plate 0/control/0.npy and plate 3/control/copy.")
    assert leak.folds == ()
    folds = make_folds(inspection.data_set, SplitConfig(by="leave-one-group-out"), 0)
    (leak,) = find_leaks(inspection.data_set, inspection.facts, folds)
    assert leak.folds == ("plate_0", "plate_3")


def test_similar_fovs_of_one_plate_are_not_reported(tmp_path):
    inspection, folds = inspected(plates(tmp_path, {"plate 0/control/x.npy": npy(fov(7) + np.uint16(3))}))
    assert find_leaks(inspection.data_set, inspection.facts, folds) == ()
    assert find_leaks(inspection.data_set, inspection.facts) == ()


def test_images_without_contrast_are_not_similar(tmp_path):
    flat = {f"plate {p}/control/flat.npy": npy(np.full((3, H, W), 5 + p, np.uint16)) for p in range(2)}
    inspection, folds = inspected(plates(tmp_path, flat))
    assert find_leaks(inspection.data_set, inspection.facts, folds) == ()


def test_intensities():
    pixels = np.stack([fov(n) for n in range(4)])
    pixels[:, 0, :8] = 65535
    first, second, _ = channel_stats(pixels, NAMES)
    low, high = fit_range(pixels)
    assert first.at_type_max == first.at_max == 0.25
    assert (second.low, second.high) == (low[1], high[1])
    assert second.at_type_max == 0
    assert second.at_max == np.mean(pixels[:, 1] == pixels[:, 1].max())
    assert second.above_range == np.mean(pixels[:, 1] > high[1])
    assert second.percentiles["50"] == np.median(pixels[:, 1])
    assert sum(second.histogram) == pixels[:, 1].size
    assert len(second.histogram) == 32
    assert (second.min, second.max) == (pixels[:, 1].min(), pixels[:, 1].max())


def test_floats_have_no_type_maximum():
    (stats,) = channel_stats(np.zeros((1, 1, 4, 4), np.float32), ("SRS",))
    assert stats.at_type_max is None
    assert sum(stats.histogram) == 16


def test_blocks_are_visible_for_all_nonempty_bins():
    assert blocks([0, 1, 100, 10000]) == " ▁▁█"
    assert blocks([0, 0]) == "  "
    assert blocks([]) == ""


def test_the_view_fits_a_terminal_and_names_are_not_markup(tmp_path):
    files = {"[red]x/control/[bold].npy": npy(fov(0)), "[red]x/senescent/a.npy": npy(fov(1))}
    inspection = inspect_data_set(config(write(tmp_path, files)))
    console = Console(width=80, record=True, file=io.StringIO())
    for part in render(check(inspection, config(tmp_path))):
        console.print(part)
    shown = console.export_text()
    assert "[red]x" in shown
    assert "█" in shown
    assert "…" not in shown


def test_check_of_a_folder(tmp_path):
    shown = run("check", plates(tmp_path))
    assert shown.exit_code == 0, shown.output
    for part in ("16 usable", "plate 3", "Transmission", "no faults"):
        assert part in shown.output


def test_check_reports_faults_and_exits_with_1(tmp_path):
    root = plates(tmp_path, {"plate 0/control/x.tif": b""})
    shown = run("check", root, "--json")
    assert shown.exit_code == 1
    document = json.loads(shown.stdout)
    assert [(fault["kind"], fault["file"]) for fault in document["faults"]] == [
        ("corrupt", "plate 0/control/x.tif")
    ]
    assert document["usable"] is False
    assert document["counts"] == {"control": 8, "senescent": 8}
    assert "plate 0/control/x.tif: is empty" in run("check", root).stdout


def test_check_of_a_configuration_includes_size_and_split(tmp_path):
    plates(tmp_path / "data")
    text = CONFIG + "split: {by: fov}\n"
    write(tmp_path, {"x.yaml": text})
    shown = run("check", tmp_path / "x.yaml")
    assert shown.exit_code == 0, shown.output
    assert "groups are in training and in test" in shown.output
    write(tmp_path, {"x.yaml": text.replace(f"height: {H}", "height: 64")})
    assert "32x40 pixels, but input is 64x40" in run("check", tmp_path / "x.yaml").output


def test_check_reports_why_there_is_no_split(tmp_path):
    plates(tmp_path / "data")
    write(tmp_path, {"x.yaml": CONFIG + "split: {by: column}\n"})
    shown = run("check", tmp_path / "x.yaml")
    assert "no split: split.by: column needs a column" in shown.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere.yaml",), "nowhere.yaml: no such file"),
        ((".", "--classes", "a"), "--classes takes two names"),
        ((".",), "contains no TIFF"),
    ],
)
def test_check_of_invalid_arguments(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    shown = run("check", *arguments)
    assert shown.exit_code == 1
    assert message in shown.output
    assert "Traceback" not in shown.output


def test_other_classes_and_channels(tmp_path):
    files = {f"{label}/{n}.npy": npy(fov(n, channels=2)) for n, label in enumerate(("young", "old", "$x_{"))}
    root = write(tmp_path, files)
    shown = run("check", root, "--classes", "young,old", "--channels", "SHG,TPEF")
    assert shown.exit_code == 1
    assert "$x_{/2.npy: is not in a folder of a class" in shown.output


def test_a_figure_is_drawn(tmp_path):
    root = plates(tmp_path / "data", {"control/$a_{b.npy": npy(fov(999))})
    shown = run("check", root, "--figure", tmp_path / "x.png")
    assert shown.exit_code == 0, shown.output
    image = cv2.imread(str(tmp_path / "x.png"))
    assert image.std() > 20
    shown = run("check", root, "--figure", tmp_path / "no" / "x.png")
    assert shown.exit_code == 1
    assert "cannot be written" in shown.output


def test_synthesize_creates_a_data_set_without_faults(tmp_path):
    out = tmp_path / "made"
    options = ("--train", 12, "--test", 4, "--height", 32, "--width", 40, "--groups", 4)
    shown = run("synthesize", out, *options)
    assert shown.exit_code == 0, shown.output
    inspection = inspect_data_set(config(out))
    assert inspection.faults == ()
    data_set = inspection.data_set
    for by in ("column", "group"):
        (fold,) = make_folds(data_set, SplitConfig(by=by), 0)
        assert not {data_set.groups[n] for n in fold.train} & {data_set.groups[n] for n in fold.test}
    (column,) = make_folds(data_set, SplitConfig(by="column"), 0)
    assert (len(column.train), len(column.test)) == (12, 4)
    assert len(set(data_set.groups)) == 4
    assert data_set.labels.sum() == 8
    pixels = inspection.pixels
    assert pixels.dtype == np.uint16
    assert "not for science" in (out / "SYNTHETIC.txt").read_text()
    again = run("synthesize", out, *options)
    assert again.exit_code == 1
    assert "already exists" in again.output
    assert run("synthesize", tmp_path / "second", *options).exit_code == 0
    assert inspect_data_set(config(tmp_path / "second")).data_set.sha256() == data_set.sha256()


def test_synthesize_of_too_few_fovs(tmp_path):
    shown = run("synthesize", tmp_path / "made", "--train", 6, "--test", 4, "--groups", 9)
    assert shown.exit_code == 1
    assert "too few for" in shown.output
    assert list(tmp_path.iterdir()) == []


def test_import_of_nothing_and_of_an_unsafe_file(tmp_path):
    shown = run("import-zenodo", "--out", tmp_path / "made")
    assert shown.exit_code == 2
    assert "--download" in shown.output
    write(tmp_path, {"x.pkl": b"cos\nsystem\n(S'x'\ntR."})
    shown = run("import-zenodo", tmp_path / "x.pkl", "--out", tmp_path / "made", "--trust")
    assert shown.exit_code == 1
    assert "x.pkl refers to os.system; nothing in the file was executed" in shown.output
    assert not (tmp_path / "made").exists()


def test_import_without_a_network(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError("no network here")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    shown = run("import-zenodo", "--download", "--out", tmp_path / "made")
    assert shown.exit_code == 1
    assert "Zenodo cannot be reached" in shown.output
    assert list(tmp_path.iterdir()) == []
    write(tmp_path, {"x.pkl": pickle.dumps({"train_data": np.zeros((2, 3, 8, 8)), "train_label": [0, 1]})})
    shown = run("import-zenodo", tmp_path / "x.pkl", "--out", tmp_path / "made")
    assert shown.exit_code == 1
    assert "Zenodo cannot be reached" in shown.output
    assert "pass --trust" in shown.output
    assert not (tmp_path / "made").exists()
    assert run("import-zenodo", tmp_path / "x.pkl", "--out", tmp_path / "made", "--trust").exit_code == 0


def test_padded_pixels_are_excluded_from_the_range() -> None:
    from senoscope_training.dataset.model import DataSetError
    from senoscope_training.dataset.ranges import measured_range, require_range

    cells = np.zeros((4, 2, 40, 40), np.uint8)
    cells[:, :, 15:25, 15:25] = np.random.default_rng(0).integers(50, 150, (4, 2, 10, 10))
    low, high = measured_range(cells, 3.5, padded=True)
    assert (low >= 50).all()
    assert (high >= 140).all()
    with pytest.raises(DataSetError, match="SRS have the value 0"):
        require_range(*measured_range(cells, 3.5, padded=False), ("SRS", "TPEF"), "the data set")


@pytest.mark.parametrize("marked", ["synthetic", None], ids=["a subfolder", "none"])
def test_the_figure_of_synthetic_files_is_labelled(tmp_path, marked):
    (tmp_path / "synthetic").mkdir()
    if marked is not None:
        (tmp_path / marked / SYNTHETIC_NAME).write_text("x")
    entries = tuple(Entry(f"synthetic/{k}.tif", bool(k % 2), None, None, str(k)) for k in range(4))
    pixels = np.random.default_rng(0).integers(0, 99, (4, 3, 16, 16)).astype(np.uint16)
    data_set = DataSet(tmp_path, ("control", "senescent"), NAMES, entries)
    with mpl.rc_context({"svg.fonttype": "none"}):
        draw(data_set, pixels, tmp_path / "figure.svg")
    assert ("not for science" in (tmp_path / "figure.svg").read_text()) == (marked is not None)
