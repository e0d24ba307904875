"""Reading of data sets: files in folders and tables, and each kind of fault with its file and remedy."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import tifffile

from senoscope_training.config import InputConfig
from senoscope_training.dataset.model import DataSetError
from senoscope_training.dataset.reading import inspect_data_set, load_fov, read_data_set
from support.image_bytes import npy, tiff
from support.labelled_folders import NAMES, SIZE, H, W, config, fov, good, png, table, write

GOOD = good()
TREE = {f"{'control' if name[0] == 'c' else 'senescent'}/{name}": data for name, data in GOOD.items()}


@dataclass(frozen=True)
class FaultCase:
    name: str
    files: dict[str, bytes | str]
    message: tuple[str, ...]
    """Parts of the message: the file and the remedy."""
    kind: str
    settings: dict[str, object] = field(default_factory=dict)
    prepare: Callable[[Path], None] | None = None


def listed(*rows: str, files: dict[str, bytes] | None = None, **options: str) -> dict[str, bytes | str]:
    more = files or {}
    return {**GOOD, **more, "dataset.csv": table(GOOD, *rows, **options)}


def link_out(root: Path) -> None:
    (root.parent / "elsewhere.tif").write_bytes(GOOD["c0.tif"])
    (root / "link.tif").symlink_to(root.parent / "elsewhere.tif")


def with_pixel(value: float) -> np.ndarray:
    pixels = fov(9, dtype="float32")
    pixels[1, 2, 3] = value
    return pixels


def rows_with(splits: dict[str, str], group: str = "") -> str:
    """Return dataset.csv of `GOOD` with a split for each file; default: train."""
    rows = [
        f"{name},{'control' if name[0] == 'c' else 'senescent'},{group},{splits.get(name, 'train')}"
        for name in GOOD
    ]
    return "\n".join(["file,label,group,split", *rows])


FAULTS = [
    FaultCase("missing file", listed("gone.tif,control"), ("gone.tif", "delete its row"), "missing"),
    FaultCase("dots", listed("../x.tif,control"), ("../x.tif", "inside it"), "outside"),
    FaultCase(
        "dots of Windows", listed("a\\..\\..\\x.tif,control"), ("a\\..\\..\\x.tif", "inside it"), "outside"
    ),
    FaultCase("absolute", listed("/etc/x.tif,control"), ("/etc/x.tif", "absolute", "inside it"), "outside"),
    FaultCase("drive", listed("C:\\x.tif,control"), ("C:\\x.tif", "absolute", "inside it"), "outside"),
    FaultCase("no name", listed(",control"), ("row 8", "delete the row"), "table"),
    FaultCase(
        "unsupported format",
        listed("x.jpg,control", files={"x.jpg": b"\xff\xd8\xff"}),
        ("x.jpg", "Convert it"),
        "kind",
    ),
    FaultCase(
        "unknown label",
        listed("x.tif,senecsent", files={"x.tif": tiff(fov(9))}),
        ("x.tif", "'senecsent'", "did you mean 'senescent'?", "data.classes"),
        "label",
    ),
    FaultCase(
        "no label", listed("x.tif,", files={"x.tif": tiff(fov(9))}), ("x.tif", "Write control"), "label"
    ),
    FaultCase("twice", listed("c0.tif,control"), ("c0.tif", "row 2", "row 8", "Delete one"), "repeated"),
    FaultCase("twice by another path", listed("./c0.tif,control"), ("c0.tif", "Delete one"), "repeated"),
    FaultCase(
        "empty file",
        listed("x.tif,control", files={"x.tif": b""}),
        ("x.tif", "empty", "Save it again"),
        "corrupt",
    ),
    FaultCase(
        "truncated",
        listed("x.tif,control", files={"x.tif": tiff(fov(9))[:-50]}),
        ("x.tif", "cut off", "Save it again"),
        "corrupt",
    ),
    FaultCase(
        "text",
        listed("x.npy,control", files={"x.npy": b"hello you"}),
        ("x.npy", "text", "Save it"),
        "corrupt",
    ),
    FaultCase(
        "objects",
        listed("x.npy,control", files={"x.npy": npy(np.array([{}], object))}),
        ("x.npy", "Python objects", "Save it again"),
        "corrupt",
    ),
    FaultCase(
        "truncated PNG",
        listed("x.png,control", files={"x.png": png(fov(9, dtype="uint8")[0])[:-90]}),
        ("x.png", "truncated", "Save it again"),
        "corrupt",
    ),
    FaultCase(
        "PNG of a huge size",
        listed("x.png,control", files={"x.png": png(fov(9)[0])[:16] + b"\0\1\0\0" * 2 + png(fov(9)[0])[24:]}),
        ("x.png", "65536x65536", "Crop"),
        "corrupt",
    ),
    FaultCase(
        "PNG without header",
        listed("x.png,control", files={"x.png": b"\x89PNG\r\n\x1a\n" + bytes(50)}),
        ("x.png", "damaged", "Save it again"),
        "corrupt",
    ),
    FaultCase(
        "PNG with transparency",
        listed("x.png,control", files={"x.png": png(np.zeros((H, W, 4), np.uint8))}),
        ("x.png", "without an alpha channel"),
        "corrupt",
    ),
    FaultCase(
        "size",
        listed("x.tif,control", files={"x.tif": tiff(fov(9, height=33))}),
        ("x.tif", "33x40", "32x40", "data.fit to pad or resize"),
        "size",
    ),
    FaultCase(
        "two channels",
        listed("x.tif,control", files={"x.tif": tiff(fov(9, channels=2))}),
        ("x.tif", "SRS, TPEF, Transmission", "set data.channels"),
        "channels",
    ),
    FaultCase(
        "grey TIFF",
        listed("x.tif,control", files={"x.tif": tiff(fov(9)[0])}),
        ("x.tif", "data.grey: repeat"),
        "grey",
    ),
    FaultCase(
        "grey PNG",
        listed("x.png,control", files={"x.png": png(fov(9)[0])}),
        ("x.png", "data.grey: repeat"),
        "grey",
    ),
    FaultCase(
        "grey NPY",
        listed("x.npy,control", files={"x.npy": npy(fov(9)[0])}),
        ("x.npy", "data.grey: repeat"),
        "grey",
    ),
    FaultCase(
        "grey planes with names",
        listed(
            "x.tif,control",
            files={
                "x.tif": tiff(fov(9)[::-1], metadata={"axes": "CYX", "Channel": {"Name": ["SRS", "x", "y"]}})
            },
        ),
        ("x.tif", "SRS, x, y", "axes CYX"),
        "axes",
    ),
    FaultCase(
        "several",
        listed("x.npy,control", files={"x.npy": npy(np.stack([fov(9)] * 2))}),
        ("x.npy", "2 fields of view", "separate file"),
        "several",
    ),
    FaultCase(
        "NaN",
        listed("x.tif,control", files={"x.tif": tiff(with_pixel(np.nan))}),
        ("x.tif", "NaN or infinite", "TPEF", "Replace"),
        "pixels",
    ),
    FaultCase(
        "infinite",
        listed("x.npy,control", files={"x.npy": npy(with_pixel(np.inf))}),
        ("x.npy", "NaN or infinite", "Replace"),
        "pixels",
    ),
    FaultCase(
        "one class empty",
        {name: data for name, data in TREE.items() if name[0] == "c"},
        ("senescent", "Add files"),
        "class",
    ),
    FaultCase(
        "no images", {"notes.txt": "hello"}, ("contains no TIFF", "Sort the files into folders"), "folder"
    ),
    FaultCase(
        "group in both",
        {**GOOD, "dataset.csv": rows_with({"c4.tif": "test", "s5.tif": "test"}, "plate 7")},
        ("plate 7", "c0.tif", "c4.tif", "split.by: group"),
        "group-in-both",
    ),
    FaultCase(
        "unknown split",
        {**GOOD, "dataset.csv": rows_with({"c4.tif": "tset"})},
        ("c4.tif", "'tset'", "did you mean 'test'?", "Write train or test"),
        "split",
    ),
    FaultCase(
        "some splits",
        {**GOOD, "dataset.csv": rows_with({"c4.tif": ""})},
        ("c4.tif", "in all rows or in none"),
        "split",
    ),
    FaultCase(
        "same image, other label",
        listed("x.tif,senescent", files={"x.tif": GOOD["c0.tif"]}),
        ("x.tif", "c0.tif", "Correct one"),
        "contradiction",
    ),
    FaultCase(
        "same pixels, other format",
        listed("x.npy,senescent", files={"x.npy": npy(fov(0))}),
        ("x.npy", "c0.tif", "Correct one"),
        "contradiction",
    ),
    FaultCase(
        "not UTF-8",
        {**GOOD, "dataset.csv": "file,label\nä.tif,control".encode("latin1")},
        ("dataset.csv", "CSV UTF-8"),
        "table",
    ),
    FaultCase(
        "no columns",
        {**GOOD, "dataset.csv": "name,label\n"},
        ("dataset.csv", "has no column file"),
        "table",
    ),
    FaultCase(
        "two columns", {**GOOD, "dataset.csv": "file,label,Label\n"}, ("dataset.csv", "Rename one"), "table"
    ),
    FaultCase("empty table", {**GOOD, "dataset.csv": ""}, ("dataset.csv", "column file and label"), "table"),
    FaultCase(
        "open quote",
        {**GOOD, "dataset.csv": 'file,label\n"c0.tif,control\n'},
        ("dataset.csv", "quotation"),
        "table",
    ),
    FaultCase("too many cells", listed("a,b,c,control"), ("row 8", "4 cells", "quotes"), "table"),
    FaultCase(
        "no folder of a class",
        {**TREE, "contrl/x.tif": tiff(fov(9))},
        ("contrl/x.tif", "did you mean 'control'?", "Move it"),
        "label",
    ),
    FaultCase(
        "both classes",
        {**TREE, "control/senescent/x.tif": tiff(fov(9))},
        ("control/senescent/x.tif", "both classes", "Move it"),
        "label",
    ),
    FaultCase(
        "other image",
        {**TREE, "control/x.CZI": b"?"},
        ("control/x.CZI", ".czi is not supported", "move it away"),
        "kind",
    ),
    FaultCase(
        "a link to another folder",
        listed("link.tif,control"),
        ("link.tif", "link to a file outside", "Copy"),
        "outside",
        prepare=link_out,
    ),
]


@pytest.mark.parametrize("case", FAULTS, ids=lambda case: case.name)
def test_a_fault_has_its_file_and_a_remedy(tmp_path, case):
    if case.prepare and sys.platform == "win32":
        pytest.skip("links need rights on Windows")
    root = write(tmp_path / "data", case.files)
    if case.prepare:
        case.prepare(root)
    with pytest.raises(DataSetError) as caught:
        read_data_set(config(root, **case.settings), SIZE)
    assert [fault.kind for fault in caught.value.faults] == [case.kind], caught.value
    for part in case.message:
        assert part in str(caught.value)
    assert "ensemble" not in str(caught.value)


def test_a_link_to_another_folder_is_refused(tmp_path):
    root = write(tmp_path / "data", TREE)
    (tmp_path / "x.tif").write_bytes(GOOD["c0.tif"])
    (root / "control" / "x.tif").symlink_to(tmp_path / "x.tif")
    with pytest.raises(DataSetError, match=r"control/x\.tif: is a link to a file outside"):
        read_data_set(config(root), SIZE)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_read_permission_is_a_fault(tmp_path):
    root = write(tmp_path, TREE)
    (root / "control" / "c0.tif").chmod(0)
    with pytest.raises(DataSetError, match=r"control/c0\.tif: cannot be opened .*permissions"):
        read_data_set(config(root), SIZE)


def test_a_missing_folder(tmp_path):
    with pytest.raises(DataSetError, match=r"nowhere: is not a folder\. Set data\.path"):
        read_data_set(config(tmp_path / "nowhere"), SIZE)


def test_all_faults_are_in_one_message_and_many_are_counted(tmp_path):
    rows = [f"gone{n:02d}.tif,control" for n in range(51)]
    files = listed("x.tif,sick", *rows, "grey.tif,control", files={"x.tif": b"", "grey.tif": tiff(fov(9)[0])})
    with pytest.raises(DataSetError) as caught:
        read_data_set(config(write(tmp_path, files)), SIZE)
    message = str(caught.value)
    assert "has 53 faults" in message
    assert "missing files (51):" in message
    assert message.count("gone") == 20
    assert "  and 31 more" in message
    assert "grey images (1):" in message
    assert "'sick'" in message
    assert len(caught.value.faults) == 53


def test_folders_of_classes(tmp_path):
    files = {
        "control/a.tif": tiff(fov(0)),
        "control/deep/er/b.TIFF": tiff(fov(1)),
        "senescent/c.Npy": npy(fov(2)),
        "plate 2/senescent/d.png": png(fov(3, dtype="uint8").transpose(1, 2, 0)),
        "donor/plate/control/e.tif": tiff(fov(4)),
        "control/.hidden.tif": b"",
        "__MACOSX/control/a.tif": b"",
        "control/notes.txt": "hello",
    }
    found = read_data_set(config(write(tmp_path, files)), SIZE).data_set
    assert [(e.file, e.positive, e.group, e.split) for e in found.entries] == [
        ("control/a.tif", False, None, None),
        ("control/deep/er/b.TIFF", False, None, None),
        ("donor/plate/control/e.tif", False, None, None),
        ("plate 2/senescent/d.png", True, "plate 2", None),
        ("senescent/c.Npy", True, None, None),
    ]


@pytest.mark.parametrize("separator", [",", ";"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_table(tmp_path, separator, mark, end):
    lines = [
        "File,remark,LABEL,group,split",
        "s1.tif,x,senescent,p2,TEST",
        ",,,,",
        "c0.tif,,control,p1,train",
    ]
    lines += ["sub\\c2.tif,,control,,train"]
    text = mark + end.join(lines).replace(",", separator) + end
    files = {
        "c0.tif": GOOD["c0.tif"],
        "s1.tif": GOOD["s1.tif"],
        "sub/c2.tif": GOOD["c2.tif"],
        "dataset.csv": text,
    }
    files["not listed.tif"] = b""
    found = read_data_set(config(write(tmp_path, files)), SIZE).data_set
    assert [(e.file, e.positive, e.group, e.split) for e in found.entries] == [
        ("c0.tif", False, "p1", "train"),
        ("s1.tif", True, "p2", "test"),
        ("sub/c2.tif", False, None, "train"),
    ]


def test_the_order_of_rows_does_not_matter(tmp_path):
    straight = write(tmp_path / "a", listed())
    lines = table(GOOD).splitlines()
    reversed_rows = write(tmp_path / "b", {**GOOD, "dataset.csv": "\n".join([lines[0], *lines[:0:-1]])})
    first, second = (read_data_set(config(root), SIZE).data_set for root in (straight, reversed_rows))
    assert first.entries == second.entries
    assert first.sha256() == second.sha256()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("x.tif", tiff(fov(3))),
        ("x.tif", tiff(fov(3), imagej=True, metadata={"axes": "CYX", "Labels": list(NAMES)})),
        ("x.tif", tiff(fov(3)[::-1], ome=True, metadata={"axes": "CYX", "Channel": {"Name": NAMES[::-1]}})),
        ("x.tif", tiff(fov(3, dtype="uint8").transpose(1, 2, 0).copy(), photometric="rgb")),
        ("x.npy", npy(fov(3))),
        ("x.npy", npy(fov(3).transpose(1, 2, 0))),
        ("x.png", png(fov(3, dtype="uint8").transpose(1, 2, 0))),
        ("x.png", png(fov(3).transpose(1, 2, 0))),
        ("misnamed.tif", png(fov(3).transpose(1, 2, 0))),
    ],
    ids=["plain", "imagej", "ome-reversed", "rgb", "npy", "npy-last", "png8", "png16", "misnamed"],
)
def test_the_same_pixels_from_every_format(tmp_path, name, data):
    write(tmp_path, {name: data})
    np.testing.assert_array_equal(load_fov(name, config(tmp_path), SIZE), fov(3))


def test_grey_is_repeated_on_request(tmp_path):
    files = {"a.png": png(fov(3)[0]), "b.tif": tiff(fov(3)[0]), "c.npy": npy(fov(3)[:1])}
    write(tmp_path, files)
    for name in files:
        read = load_fov(name, config(tmp_path, grey="repeat"), SIZE)
        np.testing.assert_array_equal(read, np.stack([fov(3)[0]] * 3))


def test_one_channel_is_not_grey(tmp_path):
    write(tmp_path, {"a.png": png(fov(3)[0]), "b.tif": tiff(fov(3)[0])})
    for name in ("a.png", "b.tif"):
        read = load_fov(name, config(tmp_path, channels=("SRS",)), SIZE)
        np.testing.assert_array_equal(read, fov(3)[:1])


def test_padding_centres_and_crops(tmp_path):
    pixels = fov(3, height=H - 5, width=W + 7) + 1
    write(tmp_path, {"a.npy": npy(pixels)})
    read = load_fov("a.npy", config(tmp_path, fit="pad"), SIZE)
    assert read.shape == (3, H, W)
    np.testing.assert_array_equal(read[:, 2:-3], pixels[:, :, 3:-4])
    assert not read[:, :2].any()
    assert not read[:, -3:].any()


@pytest.mark.parametrize(("height", "width"), [(2 * H, 2 * W), (H // 2, W // 2), (2 * H, W // 2)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_resizing_keeps_type_and_level(tmp_path, height, width, dtype):
    # Resizing does not change the mean and the direction of a ramp.
    pixels = np.tile(np.linspace(10, 200, width), (3, height, 1)).astype(dtype)
    write(tmp_path, {"a.npy": npy(pixels)})
    read = load_fov("a.npy", config(tmp_path, fit="resize"), SIZE)
    assert (read.shape, read.dtype) == ((3, H, W), dtype)
    np.testing.assert_allclose(read.mean(), pixels.mean(), rtol=0.02)
    assert (np.diff(read.astype(float), axis=2) >= 0).all()


@pytest.mark.parametrize(
    ("dtypes", "widest"),
    [
        (("uint8", "uint8"), "uint8"),
        (("uint8", "uint16"), "uint16"),
        (("uint16", "uint8"), "uint16"),
        (("uint16", "float32", "uint8"), "float32"),
    ],
)
def test_pixels_have_the_widest_type(tmp_path, dtypes, widest):
    labels = ("control", "senescent", "senescent")
    files = {f"{labels[n]}/{n}.npy": npy(fov(n, dtype=dtype)) for n, dtype in enumerate(dtypes)}
    settings = config(write(tmp_path, files))
    pixels = read_data_set(settings, SIZE).pixels
    assert pixels.dtype == widest
    # The other types are rounded, floats are not.
    np.testing.assert_array_equal(
        pixels, np.stack([fov(n, dtype=dtype) for n, dtype in enumerate(dtypes)]).astype(widest)
    )


def test_the_default_size_is_the_most_common_one(tmp_path):
    files = {**TREE, "control/x.tif": tiff(fov(9, height=50))}
    found = inspect_data_set(config(write(tmp_path, files)))
    assert found.size == InputConfig(height=H, width=W)
    assert [(fault.kind, fault.file) for fault in found.faults] == [("size", "control/x.tif")]
    assert len(found.data_set) == len(found.facts) == 6


def test_progress_is_reported(tmp_path):
    files = {f"{'control' if n % 2 else 'senescent'}/{n}.npy": npy(fov(n)) for n in range(101)}
    reported = []
    read_data_set(config(write(tmp_path, files)), SIZE, reported.append)
    assert [progress.detail for progress in reported] == ["50 of 101", "100 of 101", "101 of 101"]


def test_a_written_stack_opens_in_imagej_order(tmp_path):
    from senoscope_training.dataset.writing import LabelledFov, write_fovs

    write_fovs(tmp_path, [LabelledFov("a.tif", fov(3), "control")], 1, NAMES)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.is_imagej
        assert file.imagej_metadata["Labels"] == list(NAMES)
    reversed_channels = config(tmp_path, channels=NAMES[::-1])
    np.testing.assert_array_equal(load_fov("a.tif", reversed_channels, SIZE), fov(3)[::-1])
