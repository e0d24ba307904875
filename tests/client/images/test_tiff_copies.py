"""Pages of a TIFF file that are reduced copies or masks, or are declared as such."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import tifffile

from senoscope_client import errors
from senoscope_client.images.reader import FovSpec, FovStack, read_fovs

H, W = 20, 24
SPEC = FovSpec(("SRS", "TPEF", "Transmission"), H, W)
STACK = np.random.default_rng(0).integers(0, 4096, (2, 3, H, W), dtype=np.uint16)


def read(body: bytes, **options) -> FovStack:
    return read_fovs(io.BytesIO(body), SPEC, **options)


def pyramid(levels: int, **options) -> bytes:
    """Return pages with smaller copies in sub-directories, which tifffile also links to each other."""
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, ome=True, **options) as writer:
        writer.write(STACK, photometric="minisblack", metadata={"axes": "TCYX"}, subifds=levels)
        for level in range(1, levels + 1):
            step = 2**level
            writer.write(STACK[..., ::step, ::step], photometric="minisblack", subfiletype=1)
    return buffer.getvalue()


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("options", [{}, {"bigtiff": True}], ids=["classic", "big"])
def test_pyramids_of_any_depth_are_read(levels: int, options: dict) -> None:
    stack = read(pyramid(levels, **options))
    np.testing.assert_array_equal(stack.pixels, STACK)
    assert stack.warnings == ()


def test_pages_linked_in_a_circle_are_rejected() -> None:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, STACK[0, 0], photometric="minisblack", metadata=None)
    body = bytearray(buffer.getvalue())
    (first,) = struct.unpack_from("<I", body, 4)
    (tags,) = struct.unpack_from("<H", body, first)
    struct.pack_into("<I", body, first + 2 + 12 * tags, first)
    with pytest.raises(errors.UnreadableImage, match="in a circle"):
        read(bytes(body))


def declared(types: list[int], *, last: np.ndarray | None = None) -> bytes:
    """Return pages of two fields of view, each declared as full (0), reduced (1) or mask (4)."""
    planes = list(STACK.reshape(6, H, W)[: len(types)])
    planes[-1] = planes[-1] if last is None else last
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for plane, kind in zip(planes, types, strict=True):
            tag = (254, "I", 1, kind, True)  # tifffile writes only some masks as masks
            options = {"metadata": None, "contiguous": False, "extratags": [tag]}
            writer.write(plane, photometric="minisblack", **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "types", [[0, 0, 0, 1, 1, 1], [0, 1, 1, 0, 1, 1], [1] * 6, [0, 1, 1, 1, 1, 1]], ids=str
)
def test_declared_copies_with_the_size_of_full_pages_are_full_pages(types: list[int]) -> None:
    stack = read(declared(types), axes="PCYX")
    np.testing.assert_array_equal(stack.pixels, STACK)
    assert stack.warnings == ()


@pytest.mark.parametrize(
    ("types", "last", "reported"),
    [
        ([0, 0, 0, 1], STACK[0, 0, ::2, ::2], False),
        ([0, 0, 0, 1], (STACK[0, 0] > 9).astype(np.uint8), True),
        ([0, 0, 0, 4], (STACK[0, 0] > 9).astype(np.uint8), False),
        ([0, 0, 0, 4], None, True),
    ],
    ids=["thumbnail", "copy of full size", "mask", "mask like a page"],
)
def test_copies_of_full_size_that_are_left_out_are_reported(
    types: list[int], last: np.ndarray | None, reported: bool
) -> None:
    stack = read(declared(types, last=last))
    np.testing.assert_array_equal(stack.pixels, STACK[:1])
    assert [notice.code for notice in stack.notices] == ["pages-left-out"] * reported


def test_copies_of_full_size_in_sub_directories_are_reported() -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for plane in STACK[0]:
            writer.write(plane, photometric="minisblack", metadata=None, contiguous=False, subifds=1)
            writer.write(plane + 1, photometric="minisblack", metadata=None, subfiletype=1)
    stack = read(buffer.getvalue())
    np.testing.assert_array_equal(stack.pixels, STACK[:1])
    assert [notice.code for notice in stack.notices] == ["pages-left-out"]
    assert "3 pages" in stack.warnings[0]
