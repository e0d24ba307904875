"""Detection of one file per channel by the names that programs and people use."""

from __future__ import annotations

import re

import numpy as np
import pytest
import yaml

from senoscope_training.dataset.reading import inspect_data_set
from support.image_bytes import tiff
from support.labelled_folders import NAMES, SIZE, config, fov, write

SHORT = ("SRS", "TPEF", "T")
# Names with the field of view (n), the class (label) and a part that differs between channels.
COMBINED = {
    "MetaMorph": "{label}/dish_{n:03d}_w{d}{name}.tif",
    "MetaMorph, stage at the end": "{label}/dish_w{d}{name}_s{n}.tif",
    "InCell": "{label}/A - 1(fld {n} wv {wave}).tif",
    "ZEN": "{label}/exp-{n}_{track}.tif",
    "ThorImage": "{label}/Chan{letter}_0001_0001_0001_{n:04d}.tif",
    "no separator": "{label}/{name}{n}.tif",
    "upper and lower case": "{label}/img{n}_{mixed}.tif",
    "abbreviations": "{label}/img{n}_{two_photon}.tif",
    "the word elsewhere": "{label}/SRS day0/fov{n}_{name}.tif",
    "channels above classes": "{short}/{label}/{n}.tif",
    "channels with a day above classes": "{short} day1/{label}/{n}.tif",
    "numbered channels above classes": "Ch{d}/{label}/{n}.tif",
    "two names of a channel": "{label}/cell{n}_{twice}.tif",
    "wave numbers": "{label}/cell{n}_{wave_number}.tif",
    "wave numbers without a unit": "{label}/cell{n}_{bare_wave}.tif",
    "the number of a well": "{label}/C{d}-plate_C{well}.tif",
    "two numbers, the channel first": "{label}/Ch{d}_Ch{well}.tif",
    "wave numbers after a name": "{label}/{n}_{named_wave}.tif",
    "wave numbers before a detector": "{label}/{n}_{named_wave}_PMT1.tif",
    "three digits after a name": "{label}/{name}_{n}00.tif",
    "filters": "{label}/img{n}-{filter}.tif",
    "a separator": "{label}/img{n}_Ch-{d}.tif",
    "an equals sign": "{label}/img{n} - C={c}.tif",
}
NOT_COMBINED = {
    "a running number": "{label}/File_{file:05d}_Ch{d}.tif",
    "a running number of projections": "{label}/MAX_{file:05d}_Ch{d}.tif",
    "a time": "{label}/cell{n}_{name}_2023-01-01_12-{n:02d}-{c}7.tif",
    "a time, and an initial": "{label}/cell{n}_{short}_2023-01-01_12-{n:02d}-{c}7.tif",
    "a running number at the end": "{label}/{name}_{file:05d}.tif",
}


def name_of(pattern: str, n: int, c: int, label: str) -> str:
    return pattern.format(
        label=label,
        n=n,
        c=c,
        d=c + 1,
        file=3 * n + c,
        well=n + 1,
        letter="ABC"[c],
        name=NAMES[c],
        short=SHORT[c],
        mixed=NAMES[c] if n % 2 else NAMES[c].lower(),
        wave=("Green - dsRed", "UV - DAPI", "Red - Cy5")[c],
        track=("AF488-T1", "T-PMT-T2", "NLO-T3")[c],
        two_photon=("SRS", "2PF", "BF")[c],
        twice=("SRS2850_ch1", "TPEF_ch2", "BF_ch3")[c],
        wave_number=("2850cm-1", "2930cm-1", "trans")[c],
        named_wave=("SRS_2850", "SRS_2930", "SRS_3000")[c],
        odd_filter=("460-50", "525-40", "800")[c],
        filter=("460-50", "525-40", "607-36")[c],
        bare_wave=("2850", "TPEF", "2930")[c],
    )


def files_of(pattern: str, channels: int = 3, fovs: int = 8) -> dict[str, bytes]:
    """Return files with half of the fields of view in each class, and different levels in each channel."""
    labels = ["control", "senescent"]
    return {
        name_of(pattern, n, c, labels[2 * n // fovs]): tiff(fov(n)[c] + 1000 * c)
        for n in range(fovs)
        for c in range(channels)
    }


def suggested(remedy: str) -> tuple[str, ...]:
    found = re.search(r"data\.per_channel: \[(.*?)\], in", remedy)
    assert found is not None, remedy
    tokens = yaml.safe_load(f"[{found[1]}]")
    assert all(isinstance(token, str) for token in tokens), found[1]
    return tuple(tokens)


@pytest.mark.parametrize("kind", COMBINED)
@pytest.mark.parametrize("channels", [2, 3])
def test_the_suggested_setting_combines_the_right_files(tmp_path, kind, channels):
    pattern = COMBINED[kind]
    root = write(tmp_path, files_of(pattern, channels))
    names = NAMES[:channels]
    (fault,) = inspect_data_set(config(root, grey="repeat", channels=names), SIZE).faults
    assert fault.kind == "per-channel"
    assert "data.accept: [per-channel]" in fault.remedy
    tokens = suggested(fault.remedy)
    # Users sort them in the order of the channels, which numbers and dyes do not contain.
    wanted = [name_of(pattern, 0, c, "control") for c in range(channels)]
    in_order = [
        next(t for t in sorted(tokens, key=len, reverse=True) if t.casefold() in file.casefold())
        for file in wanted
    ]
    setting = config(root, per_channel=in_order, channels=names)
    found = inspect_data_set(setting, SIZE)
    assert not found.faults
    pixels = found.pixels
    for entry, pixel in zip(found.data_set.entries, pixels, strict=True):
        n = next(
            n for n in range(8) if entry.file == name_of(pattern, n, 0, ("control", "senescent")[n // 4])
        )
        assert entry.positive == (n >= 4)
        np.testing.assert_array_equal(
            pixel, fov(n)[:channels] + 1000 * np.arange(channels, dtype=np.uint16)[:, None, None]
        )


@pytest.mark.parametrize("kind", NOT_COMBINED)
@pytest.mark.parametrize("grey", ["refuse", "repeat"])
def test_renaming_is_suggested_if_no_setting_combines_the_files(tmp_path, kind, grey):
    found = inspect_data_set(config(write(tmp_path, files_of(NOT_COMBINED[kind])), grey=grey), SIZE)
    (fault,) = found.faults
    assert fault.kind == "per-channel"
    assert "Rename the files so that those of a field of view differ only in the channel" in fault.remedy
    assert "data.accept: [per-channel]" in fault.remedy
    accepted = inspect_data_set(config(tmp_path, grey="repeat", accept=("per-channel",)), SIZE)
    assert not accepted.faults
    assert len(accepted.data_set) == 24


@pytest.mark.parametrize(
    ("channels", "advice"),
    [
        (("SRS",), "which must then have all 2 channels, or to the parts of its 1 channels"),
        (("SRS", "TPEF", "Transmission"), "which must then have 2 channels (now 3)"),
    ],
)
def test_the_advice_contains_the_number_of_channels(tmp_path, channels, advice):
    root = write(tmp_path, files_of("{label}/d{n}_ch{c:02d}.tif", channels=2))
    (fault,) = inspect_data_set(config(root, channels=channels), SIZE).faults
    assert fault.kind == "per-channel"
    assert advice in fault.remedy


@pytest.mark.parametrize(
    "changes",
    [
        {f"control/d{n}_ch01.tif": None for n in (0, 2)} | {"senescent/d5_ch02.tif": None},
        {f"{'control' if n < 4 else 'senescent'}/d{n}_overlay.tif": tiff(fov(40 + n)[0]) for n in range(8)},
        {f"{'control' if n < 4 else 'senescent'}/d{n}_merge.tif": tiff(fov(40 + n)) for n in range(8)},
        {f"{'control' if n < 4 else 'senescent'}/MAX_d{n}.tif": tiff(fov(40 + n)[0]) for n in range(8)},
    ],
)
def test_data_sets_with_missing_or_additional_images_are_detected(tmp_path, changes):
    files = files_of("{label}/d{n}_ch{c:02d}.tif") | changes
    root = write(tmp_path, {name: data for name, data in files.items() if data is not None})
    (fault,) = inspect_data_set(config(root, grey="repeat"), SIZE).faults
    assert fault.kind == "per-channel"
    assert suggested(fault.remedy) == ("ch00", "ch01", "ch02")
    combined = inspect_data_set(config(root, per_channel=("ch00", "ch01", "ch02")), SIZE)
    assert {fault.kind for fault in combined.faults} == {"per-channel"}
    missing = sum(data is None for data in changes.values())
    assert len(combined.faults) == (missing or len(changes))


@pytest.mark.parametrize(
    ("pattern", "tokens"),
    [
        ("C{d}-plate_C{well}.tif", ("C1", "C2", "C3")),
        ("{d}_{well}.tif", ("1", "2", "3")),
        ("{name}_{well}_of_SRS.tif", NAMES),
    ],
)
def test_tokens_of_two_channels_in_one_name_are_a_fault(tmp_path, pattern, tokens):
    root = write(tmp_path, files_of("{label}/" + pattern, fovs=6))
    faults = inspect_data_set(config(root, per_channel=tokens), SIZE).faults
    assert faults
    assert any("which are different channels" in fault.problem for fault in faults)
    assert all("longer parts of the names" in f.remedy for f in faults if "different channels" in f.problem)


@pytest.mark.parametrize(
    "pattern", ["{label}/{d}_{well}.tif", "{label}/img{n}-{odd_filter}.tif", "{label}/img{n} ({d}).tif"]
)
def test_possible_channels_are_noted_with_a_setting_that_combines_the_files(tmp_path, pattern):
    root = write(tmp_path, files_of(pattern))
    found = inspect_data_set(config(root, grey="repeat"), SIZE)
    assert not found.faults
    (note,) = (note for note in found.notes if "one file per channel" in note)
    assert len(suggested(note)) >= 2
    if len(suggested(note)) == 3:
        combined = inspect_data_set(config(root, per_channel=suggested(note)), SIZE)
        assert not combined.faults
        assert len(combined.data_set) == 8


@pytest.mark.parametrize("pattern", ["{label}/img{n}_{letter}.tif", "{label}/{n} ({d}).tif"])
def test_possible_channels_are_noted_if_some_are_missing(tmp_path, pattern):
    files = files_of(pattern, fovs=10)
    for n, c in ((0, 0), (3, 2), (7, 1)):
        del files[name_of(pattern, n, c, ("control", "senescent")[n // 5])]
    found = inspect_data_set(config(write(tmp_path, files), grey="repeat"), SIZE)
    assert any("one file per channel" in note for note in found.notes)


@pytest.mark.parametrize("kind", [*COMBINED, *NOT_COMBINED])
def test_repeating_grey_images_is_never_suggested(tmp_path, kind):
    files = files_of({**COMBINED, **NOT_COMBINED}[kind])
    odd = {
        f"{label}/odd{n}.tif": tiff(fov(80 + n)[0]) for n in range(9) for label in ("control", "senescent")
    }
    for changed in (files, files | odd):
        found = inspect_data_set(config(write(tmp_path, changed)), SIZE)
        assert found.faults
        assert "data.grey" not in str(found.faults)


def test_tokens_are_suggested_in_the_order_of_the_channels(tmp_path):
    root = write(tmp_path, files_of("{short}/{label}/{n}.tif"))
    (fault,) = inspect_data_set(config(root), SIZE).faults
    assert suggested(fault.remedy) == ("SRS", "TPEF", "T")


def test_files_with_all_channels_are_not_reported_for_their_names_alone(tmp_path):
    names = [
        name_of("{label}/File_{file:05d}_Ch{d}.tif", n, c, "control") for n in range(4) for c in range(3)
    ]
    files = {name: tiff(fov(k)) for k, name in enumerate(names)}
    files |= {name.replace("control", "senescent"): tiff(fov(50 + k)) for k, name in enumerate(names)}
    found = inspect_data_set(config(write(tmp_path, files)), SIZE)
    assert not found.faults
    assert not found.notes


@pytest.mark.parametrize(
    "names",
    [
        [f"img{n}_SRS.tif" for n in range(8)],  # one channel, named
        [f"cell{n}_day{n % 2}.tif" for n in range(8)],
        [f"fov_{n:03d}_act.tif" for n in range(8)],
        [f"A{n}_2023-01-0{n + 1}.tif" for n in range(8)],
    ],
)
def test_data_sets_of_one_channel_are_not_reported(tmp_path, names):
    files = {
        f"{('control', 'senescent')[2 * n // len(names)]}/{name}": tiff(fov(n)[0])
        for n, name in enumerate(names)
    }
    found = inspect_data_set(config(write(tmp_path, files), grey="repeat"), SIZE)
    assert not found.faults
    assert len(found.data_set) == len(names)
