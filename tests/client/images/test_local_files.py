"""The user's own files: files of long scans, and folders with files of any name and kind."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import tifffile

from senoscope_client import cli, errors
from senoscope_client.images.folders import naturally_sorted
from senoscope_client.images.image_files import TIFF_SUFFIXES
from senoscope_client.images.reader import FovSpec, Limits, open_fovs, read_fovs
from senoscope_client.simulation.replay import Replay
from support.image_bytes import tiff

H, W = 20, 24
NAMES = ("SRS", "TPEF", "Transmission")
SPEC = FovSpec(NAMES, H, W)
FOVS = 1500  # exceeds the limits of uploads for fields of view and pages


def fov(n: int, channels: int = 3) -> np.ndarray:
    return (
        np.full((channels, H, W), n % 60_000, np.uint16) + np.arange(channels, dtype=np.uint16)[:, None, None]
    )


def write_archive(path: Path, fovs: int) -> None:
    """Write an image for each field of view, with position and description, like the service's archive."""
    with tifffile.TiffWriter(path, bigtiff=True, ome=True) as writer:
        for n in range(fovs):
            metadata = {
                "axes": "CYX",
                "Name": f"frame {n}",
                "Description": "x" * 800,
                "Channel": {"Name": [*NAMES, "Grad-CAM"]},
                "Plane": {
                    f"Position{a}{unit}": [value] * 4
                    for a, place in (("X", 10.0 * n), ("Y", 0.0), ("Z", 0.0))
                    for unit, value in (("", place), ("Unit", "µm"))
                },
            }
            writer.write(fov(n, 4), photometric="minisblack", metadata=metadata)


def planes(fovs: int) -> Iterator[np.ndarray]:
    for n in range(fovs):
        yield from fov(n)


def write_ome(path: Path, fovs: int) -> None:
    tifffile.imwrite(
        path, planes(fovs), shape=(fovs, 3, H, W), dtype=np.uint16, ome=True, metadata={"axes": "TCYX"}
    )


def write_imagej(path: Path, fovs: int) -> None:
    stack = np.stack([fov(n) for n in range(fovs)])
    tifffile.imwrite(path, stack, imagej=True, metadata={"axes": "TCYX"})


def write_compressed(path: Path, fovs: int) -> None:
    tifffile.imwrite(
        path,
        planes(fovs),
        shape=(fovs, 3, H, W),
        dtype=np.uint16,
        photometric="minisblack",
        compression="zlib",
        metadata={"axes": "TCYX"},
    )


def write_npy(path: Path, fovs: int) -> None:
    np.save(path, np.stack([fov(n) for n in range(fovs)]))


def write_fortran_npy(path: Path, fovs: int) -> None:
    np.save(path, np.asfortranarray(np.stack([fov(n) for n in range(fovs)])))


WRITERS = [
    (write_archive, "a.ome.tif"),
    (write_ome, "a.ome.tif"),
    (write_imagej, "a.tif"),
    (write_compressed, "a.tif"),
    (write_npy, "a.npy"),
    (write_fortran_npy, "a.npy"),
]


@pytest.mark.parametrize(("write", "name"), WRITERS, ids=[write.__name__ for write, _ in WRITERS])
def test_a_long_file_is_replayed_completely(write: Callable, name: str, tmp_path: Path) -> None:
    write(tmp_path / name, FOVS)
    count = 0
    for acquired in Replay([tmp_path], spec=SPEC):
        assert (acquired.pixels == fov(count)).all()
        count += 1
    assert count == FOVS
    with pytest.raises(errors.TooManyFields):
        read_fovs(tmp_path / name, SPEC, limits=Limits())


@pytest.mark.parametrize(("write", "name"), WRITERS, ids=[write.__name__ for write, _ in WRITERS])
def test_replay_holds_one_field_of_view_in_memory(
    write: Callable, name: str, tmp_path: Path, tracemalloc_peak, monkeypatch
) -> None:
    monkeypatch.setitem(globals(), "H", 120)
    monkeypatch.setitem(globals(), "W", 160)
    write(tmp_path / name, 100)
    spec = FovSpec(NAMES, 120, 160)
    next(iter(Replay([tmp_path], spec=spec)))  # so that imports are not measured
    with tracemalloc_peak() as peak:
        assert sum(1 for _ in Replay([tmp_path], spec=spec)) == 100
    assert peak() < 3e6 < 100 * 3 * 120 * 160 * 2 / 3


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_file_that_is_cut_off_while_it_is_read(order: Literal["C", "F"], tmp_path: Path) -> None:
    """Reading a mapped file would end the process."""
    path = tmp_path / "a.npy"
    np.save(path, np.asarray(np.stack([fov(n) for n in range(FOVS)]), order=order))
    with open_fovs(path, SPEC) as stack:
        assert (stack.read(0) == fov(0)).all()
        os.truncate(path, 4096)
        with pytest.raises(errors.UnreadableImage):
            stack.read(FOVS - 1)


@pytest.mark.parametrize("axes", ["CPYX", "PYXC", "YXPC", "XYCP", "PCYX"])
def test_arrays_in_fortran_order_with_any_axes(axes: str, tmp_path: Path) -> None:
    stack = np.stack([fov(n) for n in range(40)])
    moved = stack.transpose(["PCYX".index(axis) for axis in axes])
    np.save(tmp_path / "a.npy", np.asfortranarray(moved))
    with open_fovs(tmp_path / "a.npy", SPEC, axes=axes) as opened:
        np.testing.assert_array_equal([opened.read(n) for n in range(40)], stack)


def test_the_stage_positions_of_an_archive_are_read(tmp_path: Path) -> None:
    write_archive(tmp_path / "a.ome.tif", 50)
    acquired = list(Replay([tmp_path], spec=SPEC))
    assert [one.position_um and one.position_um.x for one in acquired] == [10.0 * n for n in range(50)]
    stack = read_fovs(tmp_path / "a.ome.tif", SPEC)  # also with the limits of uploads
    assert stack.pixels.shape == (50, 3, H, W)
    assert stack.warnings == ("channels that the ensemble does not take were left out: Grad-CAM",)


def test_an_unfinished_archive_is_read_with_axes_and_channels(tmp_path: Path) -> None:
    """A service that is killed leaves pages without OME-XML."""
    path = tmp_path / "a.partial.ome.tif"
    with tifffile.TiffWriter(path, bigtiff=True, ome=False) as writer:
        for n in range(5):
            for plane in fov(n, 4):
                writer.write(plane, photometric="minisblack", metadata=None, contiguous=False)
    replay = Replay([path], axes="PCYX", channels=[*NAMES, "Grad-CAM"], spec=SPEC)
    np.testing.assert_array_equal([one.pixels for one in replay], [fov(n) for n in range(5)])


def test_paths_are_sorted_in_natural_order() -> None:
    names = [
        "b/2.tif",
        "a/scan_10.tif",
        "a/Scan_9.tif",
        "a/scan_1.tif",
        "b/10.tif",
        "a/t2_p10.tif",
        "a/t2_p9.tif",
    ]
    assert [path.as_posix() for path in naturally_sorted(map(Path, names))] == [
        "a/scan_1.tif",
        "a/Scan_9.tif",
        "a/scan_10.tif",
        "a/t2_p9.tif",
        "a/t2_p10.tif",
        "b/2.tif",
        "b/10.tif",
    ]


def mac_folder(folder: Path) -> Path:
    """Create a folder as written by macOS: each file has a metadata file, and there are hidden files."""
    metadata = struct.pack(">II16sH", 0x00051607, 0x00020000, b"Mac OS X", 2) + bytes(200)
    for n in (1, 2, 10, 11):
        np.save(folder / f"scan_{n}.npy", fov(n))
        (folder / f"._scan_{n}.npy").write_bytes(metadata)
    (folder / ".hidden.tif").write_bytes(b"")
    (folder / "copy_of_scan.tif").write_bytes(metadata)  # a renamed metadata file
    (folder / "sub.tif").mkdir()
    return folder


def test_hidden_files_are_skipped_with_a_warning(tmp_path: Path) -> None:
    warnings: list[tuple[Path, str]] = []
    replay = Replay([mac_folder(tmp_path)], spec=SPEC, on_warning=lambda *warning: warnings.append(warning))
    assert [int(one.pixels[0, 0, 0]) for one in replay] == [1, 2, 10, 11]
    assert {path for path, _ in warnings} == {tmp_path}
    hidden, folders = sorted(text for _, text in warnings)
    assert hidden.startswith("hidden files were skipped, 6 of them: ._scan_1.npy, ")
    assert folders.startswith("sub-folders are not read, 1 of them: sub.tif")


# Warnings about kinds of files that are not read, and the files.
UNREAD = {
    ".czi files are not read, 2 of them: a.czi, b.CZI; convert": {"a.czi": b"x", "b.CZI": b"x"},
    ".png files are not read, 1 of them: a.png; convert": {"a.png": b"\x89PNG"},
    ".dat files are not read, 4 of them: 1.dat, 2.dat, 3.dat, ...": {f"{n}.dat": b"x" for n in (1, 2, 3, 10)},
    "files without suffix are not read, 1 of them: raw": {"raw": b"x"},
    "image files with another suffix are not read, 1 of them: scan.tiff_": {"scan.tiff_": b"II*\0"},
    "sub-folders are not read, 1 of them: Pos0; pass their paths, too": {"Pos0/a.tif": b"II*\0"},
    ".zarr files are not read, 1 of them: a.zarr": {"a.zarr/.zarray": b"{}"},
}


@pytest.mark.parametrize(("sentence", "files"), UNREAD.items(), ids=lambda value: str(value)[:12])
def test_files_that_are_not_read_are_reported(tmp_path: Path, sentence: str, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    with pytest.raises(FileNotFoundError, match=re.escape(sentence)):
        Replay([tmp_path], spec=SPEC)
    for harmless in ("warnings.txt", "README", "Thumbs.db", ".DS_Store", "metadata.json"):
        (tmp_path / harmless).write_bytes(b"x")
    np.save(tmp_path / "a.npy", fov(1))
    warnings: list[str] = []
    assert (
        len(list(Replay([tmp_path], spec=SPEC, on_warning=lambda _, warning: warnings.append(warning)))) == 1
    )
    (warning,) = warnings
    assert warning.startswith(sentence)


@pytest.mark.parametrize("suffix", sorted(TIFF_SUFFIXES))
def test_tiff_files_of_every_suffix_are_replayed(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix.upper()}"
    path.write_bytes(tiff(fov(7), metadata={"axes": "CYX"}))
    (replayed,) = Replay([tmp_path], spec=SPEC)
    np.testing.assert_array_equal(replayed.pixels, fov(7))


def test_a_macos_metadata_file_is_rejected_as_apple_double(tmp_path: Path) -> None:
    mac_folder(tmp_path)
    with pytest.raises(errors.UnsupportedMediaType, match="AppleDouble"):
        list(Replay([tmp_path / "._scan_1.npy"], spec=SPEC))


def test_warnings_about_files_are_printed_once_and_counted(tmp_path: Path, capsys) -> None:
    for n in range(3):
        tifffile.imwrite(tmp_path / f"{n}.tif", fov(n), photometric="miniswhite", metadata={"axes": "CYX"})
    arguments = [
        "publish",
        str(tmp_path),
        "--endpoint",
        "tcp://127.0.0.1:*",
        "--rate",
        "1000",
        "--wait-s",
        "0",
    ]
    size = ["--height", str(H), "--width", str(W)]
    assert cli.main([*arguments, *size, "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err.count("MinIsWhite") == 2
    assert "0.tif: the file declares" in captured.err
    assert "2 more files: the file declares" in captured.err
    assert '"warnings": [{"warning": "the file declares' in captured.out


def test_a_file_is_closed_after_reading(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", fov(1))
    with open_fovs(tmp_path / "a.npy", SPEC) as stack:
        assert len(stack) == 1
    (tmp_path / "a.npy").rename(tmp_path / "b.npy")  # which fails on Windows if the file is open
