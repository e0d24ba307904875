"""Fields of view with one file per channel."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from senoscope_training.cli import app
from senoscope_training.config import DataConfig
from senoscope_training.dataset.channel_detection import detect
from senoscope_training.dataset.model import DataSetError
from senoscope_training.dataset.per_channel import ChannelPattern
from senoscope_training.dataset.reading import inspect_data_set, load_fov, read_data_set
from senoscope_training.dataset.table import Row
from support.image_bytes import npy, tiff
from support.labelled_folders import NAMES, SIZE, config, fov, png, write

PATTERNS = {
    "LAS X": ("dish_{n:03d}_ch{c:02d}.tif", ("ch00", "ch01", "ch02")),
    "Fiji, split": ("C{d}-dish_{n}.tif", ("C1", "C2", "C3")),
    "MetaXpress": ("A01_s{n}_w{d}.TIF", ("w1", "w2", "w3")),
    "Opera": ("r01c01f{n:02d}p01-ch{d}sk1fk1fl1.tiff", ("ch1", "ch2", "ch3")),
    "Yokogawa": ("plate_A01_T0001F{n:03d}L01A01Z01C{d:02d}.tif", ("C01", "C02", "C03")),
    "Prairie View": ("TSeries-{n:03d}_Cycle00001_Ch{d}_000001.ome.tif", ("Ch1", "Ch2", "Ch3")),
    "Micro-Manager": ("img_channel{c:03d}_position{n:03d}.tif", ("channel000", "channel001", "channel002")),
    "a space": ("fov {n} channel {d}.tif", ("channel 1", "channel 2", "channel 3")),
    "names": ("fov{n}-{name}.tif", NAMES),
    "names in lower case": ("fov{n}_{lower}.tif", tuple(name.lower() for name in NAMES)),
    "names first": ("{name}_fov{n}.tif", NAMES),
    "folders": ("{name}/fov{n}.tif", NAMES),
    "folders and names": ("{name}/{name}_{n}.tif", NAMES),
}


def name_of(pattern: str, n: int, c: int) -> str:
    return pattern.format(n=n, c=c, d=c + 1, name=NAMES[c], lower=NAMES[c].lower())


def folder(pattern: str, fovs: int = 6) -> dict[str, bytes]:
    """Return one file per channel, with different levels in each channel."""
    return {
        f"{('control', 'senescent')[n % 2]}/{name_of(pattern, n, c)}": tiff(fov(n)[c] + 1000 * c)
        for n in range(fovs)
        for c in range(3)
    }


@pytest.mark.parametrize("kind", PATTERNS)
@pytest.mark.parametrize("grey", ["refuse", "repeat"])
def test_the_tokens_are_suggested_and_repeating_grey_images_is_not(tmp_path, kind, grey):
    pattern, tokens = PATTERNS[kind]
    found = inspect_data_set(config(write(tmp_path, folder(pattern)), grey=grey), SIZE)
    (fault,) = found.faults
    assert fault.kind == "per-channel"
    assert "18 files look like 6 fields of view" in str(fault)
    assert f"data.per_channel: [{', '.join(tokens)}]" in fault.remedy
    assert "data.grey" not in str(fault)


@pytest.mark.parametrize("kind", PATTERNS)
def test_the_suggested_setting_combines_the_channels(tmp_path, kind):
    pattern, tokens = PATTERNS[kind]
    setting = config(write(tmp_path, folder(pattern)), per_channel=tokens)
    inspection = read_data_set(setting, SIZE)
    data_set = inspection.data_set
    assert len(data_set) == 6
    assert data_set.labels.sum() == 3
    pixels = inspection.pixels
    for entry, pixel in zip(data_set.entries, pixels, strict=True):
        n = next(
            n for n in range(6) if entry.file == f"{('control', 'senescent')[n % 2]}/{name_of(pattern, n, 0)}"
        )
        expected = fov(n) + np.array([0, 1000, 2000], np.uint16)[:, None, None]
        np.testing.assert_array_equal(pixel, expected)
        np.testing.assert_array_equal(load_fov(entry.file, setting, SIZE), expected)


def test_a_mapping_may_be_in_any_order(tmp_path):
    files = folder("fov{n}-{name}.tif")
    mapping = {"TPEF": "-TPEF", "SRS": "-SRS", "Transmission": "-Transmission"}
    setting = config(write(tmp_path, files), per_channel=mapping)
    assert setting.per_channel == ("-SRS", "-TPEF", "-Transmission")
    other = config(tmp_path, per_channel=mapping, channels=("TPEF", "Transmission", "SRS"))
    first = read_data_set(setting, SIZE).pixels[0]
    reordered = read_data_set(other, SIZE).pixels[0]
    np.testing.assert_array_equal(reordered, first[[1, 2, 0]])


@pytest.mark.parametrize(
    ("per_channel", "message"),
    [
        (["_a", "_b"], "has 2 parts of file names, but there are 3 channels"),
        (["_a", "_A", "_b"], "a different part of the file names for each channel"),
        (["_a", "", "_b"], "a different part"),
        ({"SRS": "_a", "TPEF": "_b", "Trans": "_c"}, "channels is SRS, TPEF, Transmission"),
    ],
)
def test_an_invalid_setting_is_refused(tmp_path, per_channel, message):
    with pytest.raises(ValidationError, match=message):
        DataConfig(path=tmp_path, per_channel=per_channel)


def with_files(changes: dict[str, bytes | None]) -> dict[str, bytes]:
    files = folder("dish_{n}_ch{c:02d}.tif") | changes
    return {name: data for name, data in files.items() if data is not None}


@pytest.mark.parametrize(
    ("changes", "kind", "parts"),
    [
        (
            {"control/dish_0_ch01.tif": None},
            "per-channel",
            ("dish_0_ch00.tif", "no file of the same field of view for TPEF (_ch01)"),
        ),
        ({"control/other.tif": tiff(fov(9)[0])}, "per-channel", ("other.tif", "_ch00 for SRS")),
        ({"control/dish_0_ch01.png": png(fov(9, dtype="uint8")[0])}, "per-channel", ("same channel of one",)),
        (
            {"control/dish_0_ch01.tif": tiff(fov(9, height=30)[0])},
            "size",
            ("dish_0_ch01.tif", "30x40", "32x40"),
        ),
        (
            {"control/dish_0_ch01.tif": tiff(fov(9))},
            "channels",
            ("dish_0_ch01.tif", "more than one plane", "TPEF"),
        ),
        ({"control/dish_0_ch01.tif": b"II*\0"}, "corrupt", ("dish_0_ch01.tif",)),
    ],
)
def test_files_that_cannot_be_combined_are_faults(tmp_path, changes, kind, parts):
    setting = config(write(tmp_path, with_files(changes)), per_channel=("_ch00", "_ch01", "_ch02"))
    found = inspect_data_set(setting, SIZE)
    assert [fault.kind for fault in found.faults] == [kind]
    for part in parts:
        assert part in str(found.faults[0])
    assert len(found.data_set) >= 5


def test_channels_of_different_types_and_formats_are_combined(tmp_path):
    files = with_files(
        {
            "control/dish_0_ch01.tif": None,
            "control/dish_0_ch01.npy": npy(fov(0, dtype="float32")[1]),
            "control/dish_0_ch02.tif": None,
            "control/dish_0_CH02.TIF": tiff(fov(0, dtype="uint8")[2]),
        }
    )
    root = write(tmp_path, files)
    setting = config(root, per_channel=("_ch00", "_ch01", "_ch02"), accept=("zero-level",))
    pixels = read_data_set(setting, SIZE).pixels[:1]
    assert pixels.dtype == np.float32
    assert pixels.shape == (1, 3, 32, 40)
    np.testing.assert_array_equal(load_fov("control/dish_0_ch00.tif", setting, SIZE), pixels[0])


def test_a_table_lists_each_channel(tmp_path):
    names = [f"dish_{n}_ch{c:02d}.tif" for n in range(4) for c in range(3)]
    files: dict[str, bytes | str] = {name: tiff(fov(k)[0]) for k, name in enumerate(names)}
    rows = [f"{name},{('control', 'senescent')[int(name[5]) % 2]}" for name in names]
    setting = config(
        write(tmp_path, files | {"dataset.csv": "\n".join(["file,label", *rows])}),
        per_channel=("_ch00", "_ch01", "_ch02"),
    )
    assert [entry.file for entry in read_data_set(setting, SIZE).data_set.entries] == [
        f"dish_{n}_ch00.tif" for n in range(4)
    ]
    rows[1] = rows[1].replace("control", "senescent")
    write(tmp_path, {"dataset.csv": "\n".join(["file,label", *rows])})
    with pytest.raises(DataSetError, match=r"dish_0_ch00\.tif: .*different labels"):
        read_data_set(setting, SIZE)


def rows_of(*files: str, label: str = "control") -> list[Row]:
    return [Row(file, label, None, None) for file in files]


@pytest.mark.parametrize(
    "files",
    [
        [f"fov_{n}.tif" for n in range(12)],
        [f"fov_{n}_t{t}.tif" for n in range(4) for t in range(4)],
        [f"plate_{p}/well_{r}{n}.tif" for p in (1, 2) for r in "AB" for n in range(1, 5)],
        [f"{day}/fov_{n}.tif" for day in ("monday", "tuesday") for n in range(4)],
        [f"fov_{n}_ch00.tif" for n in range(6)],
        [
            f"CD{kind}_{donor}_act_{n}.png"
            for kind in (4, 8)
            for donor in (1, 2)
            for n in range(donor, 9, kind)
        ],
    ],
)
def test_names_that_count_other_things_are_uncertain(files):
    found = detect(rows_of(*files), NAMES)
    assert found is None or not found.is_certain


def test_classes_are_not_channels():
    rows = [*rows_of(*(f"control/{n}.tif" for n in range(6)))]
    rows += rows_of(*(f"senescent/{n}.tif" for n in range(6)), label="senescent")
    assert detect(rows, NAMES) is None


def test_plain_numbers_give_advice_for_both_cases(tmp_path):
    """Three files with numbers may be three channels, or three fields of view of one dish."""
    found = inspect_data_set(config(write(tmp_path, folder("dish{n}_{c}.tif"))), SIZE)
    assert {fault.kind for fault in found.faults} == {"grey"}
    for fault in found.faults:
        assert "data.per_channel: [_0, _1, _2]" in fault.remedy
        assert "data.grey: repeat" not in fault.remedy
    repeated = inspect_data_set(config(tmp_path, grey="repeat"), SIZE)
    assert not repeated.faults
    assert any("data.per_channel: [_0, _1, _2]" in note for note in repeated.notes)


def test_an_accepted_finding_is_not_a_fault(tmp_path):
    setting = config(write(tmp_path, folder("d{n}_ch{c:02d}.tif")), grey="repeat", accept=("per-channel",))
    found = inspect_data_set(setting, SIZE)
    assert not found.faults
    assert len(found.data_set) == 18
    assert any("data.accept accepts" in note for note in found.notes)


def test_files_with_all_channels_are_not_a_fault(tmp_path):
    files = {
        f"{('control', 'senescent')[n % 2]}/d{n}_ch{c:02d}.tif": tiff(fov(3 * n + c))
        for n in range(6)
        for c in range(3)
    }
    found = inspect_data_set(config(write(tmp_path, files)), SIZE)
    assert not found.faults
    assert any("each contains all channels" in note for note in found.notes)


@pytest.mark.parametrize(
    ("tokens", "file", "channel", "rest"),
    [
        (("_C1", "_C2"), "a_C1.tif", 0, "a\0"),
        (("_C1", "_C2"), "a_C10.tif", None, None),
        (("SRS", "SRS 2"), "a SRS 2.tif", 1, "a \0"),
        (("SRS", "SRS 2"), "a SRS.tif", 0, "a \0"),
        (("w1", "w2"), "w1_dish_w2.tif", None, None),
        (("_w1", "_w2"), "w1_dish_w2.tif", 1, "w1_dish\0"),
        (("w1", "w2"), "w1/dish_w1.tif", 0, "\0/dish_\0"),
        (("c01", "c02"), "rec01_c02.tif", 1, "rec01_\0"),
        (("-T", "-S"), "x-TPEF.tif", None, None),
        (("ä", "ö"), "x_ä.tif", 0, "x_\0"),
    ],
)
def test_a_token_is_not_found_in_a_longer_word(tokens, file, channel, rest):
    found = ChannelPattern(tokens).split(file)
    assert found == (None if channel is None else (channel, rest))


@pytest.mark.parametrize("file", ["control/C1-plate_C2.tif", "control/other.tif"])
def test_a_file_without_one_token_is_not_loaded(tmp_path, file):
    write(tmp_path, {file: tiff(fov(0)[0])})
    with pytest.raises(DataSetError, match="per_channel"):
        load_fov(file, config(tmp_path, per_channel=("C1", "C2", "C3")), SIZE)


def test_check_of_a_folder_has_the_option(tmp_path):
    write(tmp_path, folder("d{n}_ch{c:02d}.tif"))
    bad = CliRunner().invoke(app, ["check", str(tmp_path)])
    assert bad.exit_code == 1
    good = CliRunner().invoke(app, ["check", str(tmp_path), "--per-channel", "_ch00,_ch01,_ch02"])
    assert good.exit_code == 0, good.stdout
    assert "6 usable fields of view" in good.stdout


@pytest.mark.parametrize(
    ("inside", "faults", "warnings"),
    [
        (("SRS", "TPEF", "Transmission"), 0, 0),
        (("TPEF", "SRS", "Transmission"), 6, 0),
        (("SRS", "Transmission", "other"), 6, 0),
        (("SRS", "TPEF", "PMT 3"), 0, 1),
        (("a", "b", "c"), 0, 3),
    ],
)
def test_the_name_of_a_channel_in_its_file_is_compared(tmp_path, inside, faults, warnings):
    files = {
        f"{('control', 'senescent')[n % 2]}/S{n}_ch{c:02d}.ome.tif": tiff(
            fov(n)[c], ome=True, metadata={"axes": "YX", "Channel": {"Name": inside[c]}}
        )
        for n in range(6)
        for c in range(3)
    }
    setting = config(write(tmp_path, files), per_channel=("ch00", "ch01", "ch02"))
    found = inspect_data_set(setting, SIZE)
    assert len(found.faults) == faults
    for fault in found.faults:
        assert "by data.per_channel it is" in fault.problem
        assert "names its channel" in fault.problem
    assert sum("by position" in warning.text for warning in found.warnings) == warnings
