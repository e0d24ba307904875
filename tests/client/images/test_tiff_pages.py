"""The pages that are read are those in the directories of a file, and other readers read the same pixels."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageSequence, UnidentifiedImageError

from senoscope_client import errors
from senoscope_client.images.reader import FovSpec, open_fovs, read_fovs
from support.crafted_tiff import crafted, one_page

H, W = 20, 24
NAMES = ("SRS", "TPEF", "Transmission")
SPEC = FovSpec(NAMES, H, W)
RNG = np.random.default_rng(0)
PLANES = RNG.integers(0, 4096, (6, H, W), dtype=np.uint16)

SCANIMAGE_3 = "state.configName='scan'\rstate.acq.numberOfChannelsSave=3\r"
SCANIMAGE_5 = "scanimage.SI5.acqNumFrames = 2\nscanimage.SI5.channelsSave = [1;2;3]\n"
SCANIMAGE_2015 = "scanimage.SI.VERSION_MAJOR = '2015'\nscanimage.SI.hChannels.channelSave = [1;2;3]\n"


def walk(body: bytes) -> list[np.ndarray]:
    """Read the uncompressed uint16 pages of the chain, only from their directories."""
    order = "<" if body[:2] == b"II" else ">"
    big = struct.unpack(order + "H", body[2:4])[0] == 43
    link, entry, count = ("Q", "HHQ8s", "Q") if big else ("I", "HHI4s", "H")
    (offset,) = struct.unpack_from(order + link, body, 8 if big else 4)
    found = []
    while offset:
        (tags,) = struct.unpack_from(order + count, body, offset)
        at = offset + struct.calcsize(count)
        values = {}
        for n in range(tags):
            place = at + n * struct.calcsize(order + entry)
            code, kind, length, inline = struct.unpack_from(order + entry, body, place)
            form = order + str(length) + {1: "B", 3: "H", 4: "I", 16: "Q"}.get(kind, "x")
            if "x" not in form:
                size = struct.calcsize(form)
                data = inline if size <= len(inline) else body[struct.unpack(order + link, inline)[0] :]
                values[code] = struct.unpack_from(form, data)
        width, height = values[256][0], values[257][0]
        pixels = b"".join(body[o : o + c] for o, c in zip(values[273], values[279], strict=True))
        found.append(np.frombuffer(pixels, order + "u2").reshape(height, width))
        (offset,) = struct.unpack_from(order + link, body, at + tags * struct.calcsize(order + entry))
    return found


def written(
    description: str | Callable[[int], str | None] | None = None,
    *,
    software: str | None = None,
    gap: Callable[[int], int] = lambda n: 0,
    trailing: int = 0,
    **options,
) -> bytes:
    """Return six pages with gaps between them, as in files written frame by frame, and bytes at the end."""
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, **options) as writer:
        for n, plane in enumerate(PLANES):
            text = description(n) if callable(description) else description
            filler = [(65000, 1, max(1, gap(n)), bytes(max(1, gap(n))), True)]
            writer.write(
                plane,
                photometric="minisblack",
                metadata=None,
                contiguous=False,
                rowsperstrip=7,
                description=text,
                software=software,
                extratags=filler,
            )
    return buffer.getvalue() + bytes(trailing)


KINDS = {
    "bare": None,
    "ScanImage 3": SCANIMAGE_3,
    "ScanImage 5": SCANIMAGE_5,
    "ScanImage 2015": SCANIMAGE_2015,
    "ImageJ": "ImageJ=1.54f\nimages=6\nchannels=3\nframes=2\nhyperstack=true\n",
    "tifffile": json.dumps({"shape": [2, 3, H, W], "axes": "TCYX"}),
    "MetaSeries": "<MetaData></MetaData>",
}


@pytest.mark.parametrize("gap", [lambda n: 0, lambda n: 50 * n, lambda n: 300 if n % 3 else 7], ids="0nx")
@pytest.mark.parametrize("trailing", [0, 12_345])
@pytest.mark.parametrize("options", [{}, {"byteorder": ">"}, {"bigtiff": True}], ids=["classic", "MM", "big"])
@pytest.mark.parametrize("kind", KINDS)
def test_pages_are_read_from_their_directories(
    kind: str, options: dict, trailing: int, gap: Callable
) -> None:
    text = KINDS[kind]
    each = kind.startswith("ScanImage")
    description = (lambda n: text) if each else (lambda n: text if n == 0 else None)
    body = written(description, gap=gap, trailing=trailing, **options)
    truth = walk(body)
    np.testing.assert_array_equal(truth, PLANES)
    stack = read_fovs(io.BytesIO(body), SPEC, axes="PCYX")
    np.testing.assert_array_equal(stack.pixels.reshape(6, H, W), truth)


def test_contiguous_planes_are_read_without_trailing_bytes() -> None:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, PLANES.reshape(2, 3, H, W), imagej=True, metadata={"axes": "TCYX"})
    body = bytearray(buffer.getvalue())
    # The link to the second page is removed, as ImageJ writes one directory for all planes.
    order = "<" if body[:2] == b"II" else ">"
    (offset,) = struct.unpack_from(order + "I", body, 4)
    (tags,) = struct.unpack_from(order + "H", body, offset)
    struct.pack_into(order + "I", body, offset + 2 + 12 * tags, 0)
    for trailing in (0, 1000):
        stack = read_fovs(io.BytesIO(bytes(body) + bytes(trailing)), SPEC)
        np.testing.assert_array_equal(stack.pixels.reshape(6, H, W), PLANES)


def test_planes_of_an_stk_file_are_contiguous() -> None:
    """MetaMorph writes one directory, and the number of planes as the length of a tag."""
    numbers = struct.pack("<36I", *([1, 1, 0, 0, 0, 0] * 6))
    tags = one_page(W, H) | {33628: (4, 2, bytes(16)), 33629: (5, 6, numbers + bytes(8))}
    body = crafted(tags | {273: (7, PLANES.nbytes, PLANES.tobytes())})
    stack = read_fovs(io.BytesIO(body), SPEC, axes="PCYX")
    np.testing.assert_array_equal(stack.pixels.reshape(6, H, W), PLANES)
    with pytest.raises(errors.UnreadableImage, match="cut off"):
        read_fovs(io.BytesIO(crafted(tags)), SPEC, axes="PCYX")


def test_pages_with_different_compression_are_one_stack() -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for plane, compression in zip(PLANES, [None, "zlib", "lzw", None, "zstd", "packbits"], strict=True):
            writer.write(
                plane, photometric="minisblack", metadata=None, contiguous=False, compression=compression
            )
    stack = read_fovs(io.BytesIO(buffer.getvalue()), SPEC, axes="PCYX")
    np.testing.assert_array_equal(stack.pixels.reshape(6, H, W), PLANES)


@pytest.mark.parametrize("other", [PLANES[0].astype(np.int16), PLANES[0].astype(np.float32), PLANES[0, :10]])
def test_pages_of_different_types_are_rejected(other: np.ndarray) -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for plane in (*PLANES[:2], other):
            writer.write(plane, photometric="minisblack", metadata=None, contiguous=False)
    for axes in (None, "CYX"):
        with pytest.raises(errors.AmbiguousAxes, match=r"2 images \(20x24 uint16, "):
            read_fovs(io.BytesIO(buffer.getvalue()), SPEC, axes=axes)


def test_ome_xml_counts_reduced_pages_which_are_skipped() -> None:
    """OME-XML counts all directories of the chain, including those of reduced copies."""
    data = "".join(f'<TiffData IFD="{2 * c}" FirstC="{c}" PlaneCount="1"/>' for c in range(3))
    channels = "".join(f'<Channel ID="Channel:0:{n}" Name="{name}"/>' for n, name in enumerate(NAMES))
    xml = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" '
        f'SizeX="{W}" SizeY="{H}" SizeC="3" SizeZ="1" SizeT="1">{channels}{data}</Pixels></Image></OME>'
    )
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for n, plane in enumerate(PLANES[:3]):
            options = {"photometric": "minisblack", "metadata": None, "contiguous": False}
            writer.write(plane, description=xml if n == 0 else None, **options)
            writer.write(plane[::2, ::2], subfiletype=1, **options)
    stack = read_fovs(io.BytesIO(buffer.getvalue()), SPEC)
    np.testing.assert_array_equal(stack.pixels[0], PLANES[:3])
    assert stack.warnings == ()


def write_with_pillow(path: Path, planes: np.ndarray) -> None:
    first, *others = [Image.fromarray(plane) for plane in planes]
    first.save(path, save_all=True, append_images=others, compression="tiff_lzw")


def write_with_opencv(path: Path, planes: np.ndarray) -> None:
    cv2.imwritemulti(str(path), list(planes))


def write_with_tifffile(path: Path, planes: np.ndarray) -> None:
    tifffile.imwrite(path, planes, photometric="minisblack", compression="zlib", predictor=True)


@pytest.mark.parametrize("write", [write_with_pillow, write_with_opencv, write_with_tifffile])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_other_readers_read_the_same_pixels(write: Callable, dtype: type, tmp_path: Path) -> None:
    planes = (PLANES[:3] % 251).astype(dtype)
    path = tmp_path / "stack.tif"
    write(path, planes)
    _, expected = cv2.imreadmulti(str(path), flags=cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(expected, planes)
    with open_fovs(path, SPEC) as stack:
        np.testing.assert_array_equal(stack.read(0), expected)


def shipped() -> list[Path]:
    """Return the TIFF files that an installed package contains."""
    import skimage

    return sorted((Path(skimage.__file__).parent / "data").glob("*.tif*"))


def test_files_of_installed_packages_are_read_as_by_other_readers() -> None:
    assert shipped()
    for path in shipped():
        try:
            with Image.open(path) as file:
                pages = np.stack([np.asarray(page) for page in ImageSequence.Iterator(file)])
        except UnidentifiedImageError:  # three 16-bit samples, which Pillow does not read
            with tifffile.TiffFile(path) as file:
                pages = np.stack([page.asarray() for page in file.pages])
        samples = 1 if pages.ndim == 3 else 3
        height, width = pages.shape[-2:]
        stack = read_fovs(path, FovSpec(NAMES[:samples], height, width))
        np.testing.assert_array_equal(stack.pixels, pages.reshape(stack.pixels.shape).astype(np.float32))
