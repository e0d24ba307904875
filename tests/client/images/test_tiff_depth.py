"""Planes that are depths or times are not read as channels."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence

import numpy as np
import pytest
import tifffile

from senoscope_client import errors
from senoscope_client.images.reader import FovSpec, FovStack, read_fovs
from support.crafted_tiff import crafted, one_page

H, W = 20, 24
NAMES = ("SRS", "TPEF", "Transmission")
SPEC = FovSpec(NAMES, H, W)
SRS = FovSpec(("SRS",), H, W)
STACK = np.random.default_rng(0).integers(0, 4096, (4, 3, H, W), dtype=np.uint16)


def read(body: bytes, spec: FovSpec = SPEC, **options) -> FovStack:
    return read_fovs(io.BytesIO(body), spec, **options)


def codes(stack: FovStack) -> set[str]:
    return {notice.code for notice in stack.notices}


def stk(planes: np.ndarray, distance: int, created: int) -> bytes:
    """Return a MetaMorph stack, whose tag UIC2 has the distance and the time of each plane."""
    numbers = [(distance, 1, 1, created * n, 0, 0) for n in range(len(planes))]
    uic2 = struct.pack(f"<{6 * len(planes)}I", *(number for one in numbers for number in one))
    tags = one_page(W, H) | {33628: (4, 2, bytes(16)), 33629: (5, len(planes), uic2 + bytes(8))}
    return crafted(tags | {273: (7, planes.nbytes, planes.tobytes())})


@pytest.mark.parametrize(("distance", "created"), [(1, 0), (0, 1), (0, 0)], ids=["depth", "time", "neither"])
def test_planes_of_metamorph_are_not_channels(distance: int, created: int) -> None:
    body = stk(STACK[0], distance, created)
    with pytest.raises(errors.AmbiguousAxes, match="does not define which are channels"):
        read(body)
    np.testing.assert_array_equal(read(body, SRS).pixels, STACK[0][:, None])
    np.testing.assert_array_equal(read(body, axes="PCYX").pixels, STACK[:1])
    np.testing.assert_array_equal(read(body, axes="CYX").pixels, STACK[:1])


INFO = np.dtype([(name or "reserved", kind) for name, kind in tifffile.TIFF.CZ_LSMINFO]).newbyteorder("<")


def lsm(planes: np.ndarray, names: Sequence[str], **dimensions: int) -> bytes:
    """Return a Zeiss LSM file: pages [N, C, H, W], the channels as samples, each with a thumbnail."""
    info = np.zeros(1, INFO)
    channels = planes.shape[1]
    info["MagicNumber"], info["StructureSize"] = 67127628, INFO.itemsize
    metadata = {"X": W, "Y": H, "Z": 1, "Time": 1, "Channels": channels} | dimensions
    for axis, length in metadata.items():
        info[f"Dimension{axis}"] = length

    def written() -> bytes:
        buffer = io.BytesIO()
        tag = (34412, "B", INFO.itemsize, info.tobytes(), True)
        with tifffile.TiffWriter(buffer, byteorder="<") as writer:
            for n, page in enumerate(planes):
                several = {"planarconfig": "separate", "extrasamples": [0] * (channels - 1)}
                writer.write(
                    page if channels > 1 else page[0],
                    photometric="minisblack",
                    metadata=None,
                    contiguous=False,
                    extratags=[tag] if n == 0 else [],
                    **(several if channels > 1 else {}),
                )
                writer.write(
                    np.zeros((8, 8), np.uint8), subfiletype=1, photometric="minisblack", metadata=None
                )
        return buffer.getvalue()

    info["OffsetChannelColors"] = len(written())
    texts = b"".join(struct.pack("<I", len(name) + 1) + name.encode() + b"\0" for name in names)
    end = 24 + 4 * channels
    colours = struct.pack(
        f"<6I{channels}I", end + len(texts), channels, channels, 24, end, 0, *[255] * channels
    )
    return written() + colours + texts


@pytest.mark.parametrize("axis", ["Z", "Time", "P", "M"])
def test_pages_of_an_lsm_file_of_one_channel_are_not_channels(axis: str) -> None:
    body = lsm(STACK[0][:, None], ["SRS"], **{axis: 3})
    with pytest.raises(errors.SenoscopeError, match=r"3 images|1 channel"):
        read(body)
    np.testing.assert_array_equal(read(body, SRS).pixels, STACK[0][:, None])


@pytest.mark.parametrize(
    ("dimensions", "expected_codes"),
    [({"Time": 4}, set()), ({"Z": 2, "Time": 2}, set()), ({"Time": 6}, {"incomplete"}), ({}, set())],
    ids=["times", "depths and times", "stopped", "wrong"],
)
def test_channels_of_an_lsm_file_are_the_samples_of_its_pages(
    dimensions: dict, expected_codes: set[str]
) -> None:
    stack = read(lsm(STACK[:, ::-1], NAMES[::-1], **dimensions))
    np.testing.assert_array_equal(stack.pixels, STACK)
    assert codes(stack) - {"axes"} == expected_codes
