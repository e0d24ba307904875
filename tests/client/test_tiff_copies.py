"""Pages of a TIFF file that are copies of others, or are declared as such."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import tifffile

from senoscope_client import errors
from senoscope_client.images import FovSpec, FovStack, read_fovs

H, W = 20, 24
SPEC = FovSpec(("SRS", "TPEF", "Transmission"), H, W)
STACK = np.random.default_rng(0).integers(0, 4096, (2, 3, H, W), dtype=np.uint16)


def read(body: bytes, **options) -> FovStack:
    return read_fovs(io.BytesIO(body), SPEC, **options)


def pyramid(levels: int, **options) -> bytes:
    """Pages with smaller copies in sub-directories, which tifffile also links to each other."""
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


def test_pages_in_a_circle_are_refused() -> None:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, STACK[0, 0], photometric="minisblack", metadata=None)
    body = bytearray(buffer.getvalue())
    (first,) = struct.unpack_from("<I", body, 4)
    (tags,) = struct.unpack_from("<H", body, first)
    struct.pack_into("<I", body, first + 2 + 12 * tags, first)
    with pytest.raises(errors.UnreadableImage, match="in a circle"):
        read(bytes(body))
