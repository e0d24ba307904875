"""Every file that is skipped is reported: other formats, hidden files, names with another spelling."""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from senoscope_training.cli import app
from senoscope_training.dataset.reading import inspect_data_set, read_data_set
from support.image_bytes import tiff
from support.labelled_folders import SIZE, config, fov, good, table, write

GOOD = good()
TREE = {f"{'control' if name[0] == 'c' else 'senescent'}/{name}": data for name, data in GOOD.items()}


@pytest.mark.parametrize("suffix", [".btf", ".tf8", ".tf2", ".stk", ".lsm", ".TIFF", ".ome.tif", ".flex"])
def test_tiff_files_of_every_suffix_are_read(tmp_path, suffix):
    root = write(tmp_path, TREE | {f"control/x{suffix}": tiff(fov(9))})
    found = inspect_data_set(config(root), SIZE)
    assert not found.faults
    assert len(found.data_set) == 7


def test_another_format_with_such_a_suffix_is_a_fault(tmp_path):
    found = inspect_data_set(config(write(tmp_path, TREE | {"control/x.lsm": b"something else"})), SIZE)
    (fault,) = found.faults
    assert fault.file == "control/x.lsm"


@pytest.mark.parametrize(
    "suffix", [".oir", ".vsi", ".ims", ".h5", ".sif", ".dm3", ".jp2", ".obf", ".CZI", ".mat"]
)
def test_unsupported_images_are_one_fault_per_format(tmp_path, suffix):
    more = {f"control/x{n}{suffix}": b"?" for n in (1, 2, 10)}
    (fault,) = inspect_data_set(config(write(tmp_path, TREE | more)), SIZE).faults
    assert fault.kind == "kind"
    assert fault.file == f"control/x1{suffix} and 2 more {suffix.lower()} files"
    assert "Convert it" in fault.remedy


def test_a_zarr_folder_is_one_image(tmp_path):
    more = {f"control/x.zarr/0/{n}": b"?" for n in range(30)}
    (fault,) = inspect_data_set(config(write(tmp_path, TREE | more)), SIZE).faults
    assert fault.file == "control/x.zarr"


@pytest.mark.parametrize("name", ["x", "x.img", "x.0001"])
def test_an_image_with_an_unknown_suffix_is_a_fault(tmp_path, name):
    (fault,) = inspect_data_set(
        config(write(tmp_path, TREE | {f"control/{name}": tiff(fov(9))})), SIZE
    ).faults
    assert fault.file == f"control/{name}"
    assert ".tif" in fault.remedy


def test_unknown_formats_are_noted_with_their_count(tmp_path):
    more = {"control/a.xyz": b"?", "senescent/b.XYZ": b"?", "control/bare": b"?"}
    found = inspect_data_set(config(write(tmp_path, TREE | more)), SIZE)
    assert not found.faults
    notes = "\n".join(found.notes)
    assert "control/a.xyz and 1 more .xyz files: skipped" in notes
    assert "control/bare: skipped" in notes


def test_harmless_files_are_not_noted(tmp_path):
    names = [
        "notes.txt",
        "table.csv",
        "read.md",
        ".DS_Store",
        "Thumbs.db",
        "desktop.ini",
        "meta.xml",
        "LICENSE",
    ]
    found = inspect_data_set(
        config(write(tmp_path, TREE | {f"control/{name}": b"?" for name in names})), SIZE
    )
    assert not found.faults
    assert not found.notes


def test_hidden_images_are_skipped_with_a_note(tmp_path):
    more = {f"control/._c{n}.tif": b"\0\5\x16\7" for n in (0, 2, 4)}
    found = inspect_data_set(config(write(tmp_path, TREE | more)), SIZE)
    assert not found.faults
    assert len(found.data_set) == 6
    (note,) = found.notes
    assert note.startswith("control/._c0.tif and 2 more hidden files: skipped")


@pytest.mark.parametrize("suffix", [".tmp", ".part", ".xml", ".txt", ".csv", ".log", ".tif~"])
@pytest.mark.parametrize("listed", [False, True])
def test_an_image_with_a_harmless_suffix_is_reported(tmp_path, suffix, listed):
    files = {**TREE, f"control/x{suffix}": tiff(fov(9)), f"control/y{suffix}": tiff(fov(8))}
    if listed:
        rows = [f"{name},{name.partition('/')[0]}" for name in TREE]
        files["dataset.csv"] = "\n".join(["file,label", *rows])
    found = inspect_data_set(config(write(tmp_path, files)), SIZE)
    messages = [fault.file for fault in found.faults] + list(found.notes)
    assert any(f"control/x{suffix} and 1 more" in one for one in messages)
    assert bool(found.faults) is not listed


@pytest.mark.parametrize(
    "folder",
    [
        *("@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "__MACOSX", "lost+found"),
        *(".cache", ".Trash-1000", ".thumbnails/large"),
    ],
)
@pytest.mark.parametrize("place", ["", "control/"])
def test_system_folders_are_skipped_with_a_note(tmp_path, folder, place):
    more = {f"{place}{folder}/control/{n}.tif": tiff(fov(9 + n)) for n in range(2)}
    more |= {f"senescent/{folder}/c.tif/THUMB.jpg": b"?"}
    found = inspect_data_set(config(write(tmp_path, TREE | more)), SIZE)
    assert not found.faults
    assert len(found.data_set) == 6
    (note,) = found.notes
    assert note.startswith(f"{place}{folder.partition('/')[0]} and 1 more: ")
    assert "move images that belong to the data set out of them" in note


def test_system_folders_without_images_are_not_noted(tmp_path):
    more = {f"{name}/x": b"?" for name in (".git", "@eaDir", "System Volume Information")}
    assert not inspect_data_set(config(write(tmp_path, TREE | more)), SIZE).notes


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.skipif(sys.platform == "win32", reason="on Windows only administrators can create links")
@pytest.mark.parametrize("inside", [False, True])
def test_a_link_to_a_folder_is_reported(tmp_path, listed, inside):
    other = write(tmp_path / ("data/store" if inside else "elsewhere"), {"control/x.tif": tiff(fov(9))})
    files: dict[str, bytes | str] = dict(TREE)
    if listed:
        rows = [f"{name},{name.partition('/')[0]}" for name in TREE]
        files["dataset.csv"] = "\n".join(["file,label", *rows])
    root = write(tmp_path / "data", files)
    (root / "plate_2").symlink_to(other, target_is_directory=True)
    found = inspect_data_set(config(root), SIZE)
    messages = [str(fault) for fault in found.faults] + list(found.notes)
    assert any(one.startswith("plate_2: is a link to a folder, which is not followed") for one in messages)
    assert bool(found.faults) is not listed


@pytest.mark.parametrize("listed", [False, True])
def test_a_folder_that_cannot_be_read_is_reported(tmp_path, monkeypatch, listed):
    files: dict[str, bytes | str] = {**TREE, "locked/control/x.tif": tiff(fov(9))}
    if listed:
        rows = [f"{name},{name.partition('/')[0]}" for name in TREE]
        files["dataset.csv"] = "\n".join(["file,label", *rows])
    root = write(tmp_path, files)
    scan = os.scandir

    def refuse(path):
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = inspect_data_set(config(root), SIZE)
    messages = [str(fault) for fault in found.faults] + list(found.notes)
    assert any(one.startswith("locked: cannot be opened (Permission denied)") for one in messages)
    assert bool(found.faults) is not listed


def test_images_that_are_not_in_the_table_are_noted(tmp_path):
    more = {
        "extra1.tif": tiff(fov(9)),
        "deep/extra2.tif": tiff(fov(8)),
        "old.czi": b"?",
        "dataset.csv": table(GOOD),
    }
    found = inspect_data_set(config(write(tmp_path, {**GOOD, **more})), SIZE)
    assert not found.faults
    notes = "\n".join(found.notes)
    assert "and 1 more .tif files: skipped because not listed in dataset.csv" in notes
    assert "old.czi: skipped because not listed in dataset.csv" in notes


@pytest.mark.parametrize(("on_disk", "in_table"), [("NFD", "NFC"), ("NFC", "NFD"), ("NFC", "NFC")])
def test_names_with_accents_are_found_in_both_encodings(tmp_path, on_disk, in_table):
    names = {name: f"Zählung_{name}" for name in GOOD}
    files: dict[str, bytes | str] = {
        unicodedata.normalize(on_disk, names[name]): data for name, data in GOOD.items()
    }
    rows = [f"{names[name]},{'control' if name[0] == 'c' else 'senescent'}" for name in GOOD]
    files["dataset.csv"] = unicodedata.normalize(in_table, "\n".join(["file,label", *rows]))
    data_set = read_data_set(config(write(tmp_path, files)), SIZE).data_set
    assert len(data_set) == 6
    assert all((tmp_path / entry.file).is_file() for entry in data_set.entries)


@pytest.mark.parametrize("form", ["NFD", "NFC"])
def test_classes_and_groups_are_equal_in_both_encodings(tmp_path, form):
    files = {
        unicodedata.normalize(form if n < 3 else "NFC", f"Größe/{label}/{n}.tif"): tiff(fov(n))
        for n, label in enumerate(["jung", "älter"] * 3)
    }
    data_set = read_data_set(config(write(tmp_path, files), classes=("jung", "a\u0308lter")), SIZE).data_set
    assert data_set.labels.sum() == 3
    assert len(set(data_set.groups)) == 1


def test_names_in_another_case_are_found_and_noted(tmp_path):
    files: dict[str, bytes | str] = {
        "A1.TIF" if name == "c0.tif" else name: data for name, data in GOOD.items()
    }
    files["dataset.csv"] = table(GOOD).replace("c0.tif", "a1.tif")
    if (write(tmp_path, {"PROBE": b""}) / "probe").exists():
        pytest.skip("this file system ignores case")
    found = inspect_data_set(config(write(tmp_path, files)), SIZE)
    assert not found.faults
    assert "A1.TIF" in [entry.file for entry in found.data_set.entries]
    assert "dataset.csv has names in another case than the files: a1.tif is A1.TIF" in found.notes


def test_a_name_that_could_be_two_files_is_a_fault(tmp_path):
    if (write(tmp_path, {"PROBE": b""}) / "probe").exists():
        pytest.skip("this file system ignores case")
    files = {
        **GOOD,
        "X1.tif": tiff(fov(9)),
        "x1.TIF": tiff(fov(8)),
        "dataset.csv": table(GOOD, "x1.tif,control"),
    }
    (fault,) = inspect_data_set(config(write(tmp_path, files)), SIZE).faults
    assert "'X1.tif'" in str(fault)
    assert "'x1.TIF'" in str(fault)


@pytest.mark.parametrize(
    ("written", "suggestion"),
    [("c0", "c0.tif"), ("c0.tiff", "c0.tif"), ("deep/c0.tif", "c0.tif"), ("c 0.tif", "c0.tif")],
)
def test_a_similar_name_is_suggested(tmp_path, written, suggestion):
    files = {**GOOD, "dataset.csv": table(GOOD).replace("c0.tif", written)}
    fault = inspect_data_set(config(write(tmp_path, files)), SIZE).faults[0]
    assert fault.kind == "missing"
    assert f"did you mean {suggestion!r}?" in fault.problem


def test_a_neighbouring_number_is_not_suggested(tmp_path):
    files = {**GOOD, "dataset.csv": table(GOOD, "c8.tif,control")}
    (fault,) = inspect_data_set(config(write(tmp_path, files)), SIZE).faults
    assert "did you mean" not in str(fault)


@pytest.mark.parametrize(
    ("written", "on_disk", "suggestion"),
    [
        ("a1.tif", ["a001.tif", "b1.tif"], "a001.tif"),
        ("a001.tif", ["a1.tif", "b001.tif"], "a1.tif"),
        ("a1.tif", ["b1.tif"], None),
        ("B02_f1.tif", ["A02_f1.tif", "C02_f1.tif"], None),
        ("fvo_1.tif", ["fov_01.tif", "fov_10.tif"], "fov_01.tif"),
        ("day1_fov2.tif", ["day2_fov1.tif", "day2_fov2.tif"], None),
        ("c00.tif", [], None),  # c0.tif is listed
    ],
)
def test_a_suggestion_has_the_same_numbers_and_is_not_listed(tmp_path, written, on_disk, suggestion):
    files = {**GOOD, **{name: tiff(fov(20 + n)) for n, name in enumerate(on_disk)}}
    files["dataset.csv"] = table(GOOD, f"{written},control")
    (fault,) = inspect_data_set(config(write(tmp_path, files)), SIZE).faults
    assert fault.kind == "missing"
    assert ("did you mean" in fault.problem) is (suggestion is not None)
    assert suggestion is None or f"did you mean {suggestion!r}?" in fault.problem


def labelled(names: list[str], seed: int = 9) -> bytes:
    return tiff(fov(seed), imagej=True, metadata={"axes": "CYX", "Labels": names})


def named_tree(control: list[str] | None, senescent: list[str] | None, count: int = 8) -> dict[str, bytes]:
    made = {}
    for n in range(count):
        label, names = (("control", control), ("senescent", senescent))[n % 2]
        made[f"{label}/{n}.tif"] = tiff(fov(n)) if names is None else labelled(names, n)
    return made


def test_warnings_of_the_reader_are_in_the_check(tmp_path):
    root = write(tmp_path, named_tree(["red", "green", "blue"], ["red", "green", "blue"]))
    found = inspect_data_set(config(root), SIZE)
    assert not found.faults
    (warning,) = found.warnings
    assert "red, green, blue" in warning.text
    assert len(warning.files) == 8
    done = CliRunner().invoke(app, ["check", str(root)])
    assert done.exit_code == 0
    assert "warning, 8 of 8: " in done.stdout
    document = json.loads(CliRunner().invoke(app, ["check", str(root), "--json"]).stdout)
    assert "red, green, blue" in document["warnings"][0]["text"]


def test_warnings_of_the_reader_are_reported_in_training(tmp_path):
    from senoscope_training.workers.progress import Progress

    root = write(tmp_path, named_tree(["red", "green", "blue"], ["red", "green", "blue"]))
    reported: list[Progress] = []
    read_data_set(config(root), SIZE, reported.append)
    assert any(one.stage == "warning" and "red, green, blue" in one.detail for one in reported)


@pytest.mark.parametrize(
    ("control", "senescent", "by_class"),
    [
        (["red", "green", "blue"], ["green", "red", "blue"], True),
        (["red", "green", "blue"], ["one", "two", "three"], True),
        (["red", "green", "blue"], None, True),
        (["Ch1", "Ch2", "Ch3"], ["Ch2", "Ch3", "Ch4"], True),
        (["2850", "520", "BF"], ["2930", "450", "BF"], True),
        (["450/50", "525/50", "TL"], ["525/50", "607/70", "TL"], True),
    ],
)
def test_names_that_differ_between_files_are_a_fault(tmp_path, control, senescent, by_class):
    root = write(tmp_path, named_tree(control, senescent))
    (fault,) = inspect_data_set(config(root), SIZE).faults
    assert fault.kind == "channel-names"
    assert ("between the classes" in fault.problem) is by_class
    accepted = inspect_data_set(config(root, accept=("channel-names",)), SIZE)
    assert not accepted.faults
    assert any("has this warning: " in warning.text for warning in accepted.warnings)


def test_one_file_in_another_order_is_a_fault(tmp_path):
    files = named_tree(["red", "green", "blue"], ["red", "green", "blue"])
    files["control/0.tif"] = labelled(["blue", "red", "green"])
    (fault,) = inspect_data_set(config(write(tmp_path, files)), SIZE).faults
    assert fault.kind == "channel-names"
    assert "between the classes" not in fault.problem


@pytest.mark.parametrize(
    "names",
    [
        lambda n: [f"PMT{n % 2 + c}" for c in range(3)],  # by class
        lambda n: [f"PMT{n // 4 + c}" for c in range(3)],  # by day
        lambda n: [f"PMT{n % 2 + 2 * (n // 8) + c}" for c in range(3)],
    ],
)
def test_names_that_differ_by_numbers_are_a_fault(tmp_path, names):
    files = {f"{('control', 'senescent')[n % 2]}/{n}.tif": labelled(names(n), n) for n in range(8)}
    (fault,) = inspect_data_set(config(write(tmp_path, files)), SIZE).faults
    assert fault.kind == "channel-names"


def test_many_names_that_differ_between_the_classes_are_a_fault(tmp_path):
    files = {}
    for n in range(16):
        day, label = n // 4, ("control", "senescent")[n % 2]
        files[f"{label}/{n}.tif"] = labelled([f"PMT{10 * day + 5 * (n % 2) + c}" for c in range(3)], n)
    (fault,) = inspect_data_set(config(write(tmp_path, files)), SIZE).faults
    assert "between the classes" in fault.problem


def test_names_of_two_files_that_differ_are_a_fault(tmp_path):
    files = named_tree(["Ch1", "Ch2", "Ch3"], ["Ch2", "Ch3", "Ch4"], count=2)
    (fault,) = inspect_data_set(config(write(tmp_path, files)), SIZE).faults
    assert fault.kind == "channel-names"


def test_labels_with_file_names_are_not_a_fault(tmp_path):
    files = {
        f"{('control', 'senescent')[n % 2]}/{n}.tif": labelled(
            [f"{c}: dish {n} of {n * 7}.nd2" for c in "abc"], n
        )
        for n in range(8)
    }
    found = inspect_data_set(config(write(tmp_path, files)), SIZE)
    assert not found.faults
    assert found.warnings


def raised(by: dict[int, float], channel: int = 0, count: int = 12) -> dict[str, bytes]:
    """Return FOVs of alternating classes, some with an offset in one channel."""
    made = {}
    for n in range(count):
        pixels = fov(n)
        pixels[channel] += int(by.get(n, 0))
        made[f"{('control', 'senescent')[n % 2]}/{n}.tif"] = tiff(pixels)
    return made


def test_zero_levels_that_differ_by_thousands_are_a_fault(tmp_path):
    root = write(tmp_path, raised({3: 32_768, 4: 32_768}, channel=1))
    (fault,) = inspect_data_set(config(root), SIZE).faults
    assert fault.kind == "zero-level"
    assert fault.file == "control/4.tif"
    assert "(and 1 more)" in fault.problem
    assert "TPEF" in fault.problem
    assert "between the classes" not in fault.problem
    accepted = inspect_data_set(config(root, accept=("zero-level",)), SIZE)
    assert not accepted.faults
    assert any("zero level" in warning.text for warning in accepted.warnings)


@pytest.mark.parametrize(
    "levels", [(0, 16_384, 32_768), (0, 5_000, 12_000), (0, 5_000, 12_000, 40_000), (2_000, 8_000, 30_000)]
)
def test_several_zero_levels_are_a_fault(tmp_path, levels):
    root = write(tmp_path, raised({n: levels[n // 2 % len(levels)] for n in range(12)}))
    (fault,) = inspect_data_set(config(root), SIZE).faults
    assert fault.kind == "zero-level"
    assert "between the classes" not in fault.problem
    assert fault.problem.count("one of") == len(levels) - 1


def test_several_zero_levels_that_differ_between_the_classes_are_reported(tmp_path):
    root = write(tmp_path, raised({n: ((0, 40_000), (10_000, 20_000))[n % 2][n // 2 % 2] for n in range(12)}))
    (fault,) = inspect_data_set(config(root), SIZE).faults
    assert "between the classes" in fault.problem


def typed(by_class: tuple[str, str], mixed: bool = False, scale: float = 1.0) -> dict[str, bytes]:
    """Return FOVs of alternating classes, with a data type and a scale per class."""
    made = {}
    for n in range(12):
        dtype = by_class[(n // 2 if mixed else n) % 2]
        pixels = fov(n, dtype="float32") * (scale if n % 2 else 1)
        pixels = (pixels / 250 if dtype == "float32" else pixels).astype(dtype)
        made[f"{('control', 'senescent')[n % 2]}/{n}.tif"] = tiff(pixels)
    return made


@pytest.mark.parametrize(
    "types", [("uint16", "float32"), ("float32", "uint16"), ("uint8", "uint16"), ("uint8", "float32")]
)
def test_types_that_differ_between_the_classes_are_a_fault(tmp_path, types):
    (fault,) = inspect_data_set(config(write(tmp_path / "by_class", typed(types))), SIZE).faults
    assert fault.kind == "types"
    assert f"has the data type {types[0]}" in fault.problem
    assert f"has the data type {types[1]}" in fault.problem
    assert "between the classes" in fault.problem
    accepting = inspect_data_set(config(tmp_path / "by_class", accept=("types",)), SIZE)
    assert not accepting.faults
    assert any("between the classes" in remark for remark in accepting.remarks)
    assert not inspect_data_set(config(write(tmp_path / "mixed", typed(types, mixed=True))), SIZE).faults


@pytest.mark.parametrize(("scale", "noted"), [(1, False), (3, False), (16, True), (1 / 16, True)])
def test_classes_of_very_different_brightness_are_noted(tmp_path, scale, noted):
    root = write(tmp_path, typed(("uint16", "uint16"), scale=scale))
    found = inspect_data_set(config(root), SIZE)
    assert not found.faults
    notes = [note for note in found.notes if "times as bright in" in note]
    assert len(notes) == (3 if noted else 0)


@pytest.mark.parametrize("offset", [1_500, 4_000, 32_768])
def test_zero_levels_that_differ_between_the_classes_are_reported(tmp_path, offset):
    root = write(tmp_path, raised({n: offset for n in range(12) if n % 2}))
    (fault,) = inspect_data_set(config(root), SIZE).faults
    assert "between the classes" in fault.problem
    done = CliRunner().invoke(app, ["check", str(root)])
    assert done.exit_code == 1
    assert "zero levels that differ between files" in done.stdout


@pytest.mark.parametrize(
    "offsets",
    [
        {},
        {n: 40 * n for n in range(12)},  # a drift
        {n: 10_000 + 700 * n for n in range(12)},  # a drift of a bright field
        {n: 20_000 + 1_500 * (n % 5) for n in range(12)},  # jumps of a bright field
        {n: 2_000 * n for n in range(12)},  # a ramp
        {n: 2**n * 20 for n in range(12)},
        {n: 500 for n in range(12) if n % 2},  # a difference between the classes that cells can cause
    ],
)
def test_other_differences_of_levels_are_not_a_fault(tmp_path, offsets):
    assert not inspect_data_set(config(write(tmp_path, raised(offsets))), SIZE).faults


def test_a_configuration_accepts_findings(tmp_path):
    root = write(tmp_path / "data", raised({3: 32_768}))
    path = tmp_path / "c.yaml"
    settings = {
        "name": "c",
        "data": {"path": "data"},
        "input": {"height": 32, "width": 40},
        "systems": ["scratch"],
    }
    path.write_text(yaml.safe_dump(settings))
    assert CliRunner().invoke(app, ["check", str(path)]).exit_code == 1
    settings["data"] = {"path": str(root), "accept": ["zero-level"]}
    path.write_text(yaml.safe_dump(settings))
    done = CliRunner().invoke(app, ["check", str(path)])
    assert done.exit_code == 0, done.stdout
    assert "zero level" in done.stdout
