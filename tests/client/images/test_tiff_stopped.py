"""Stacks of stopped scans in files without a channel axis."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import tifffile

from senoscope_client import errors
from senoscope_client.images.reader import FovSpec, FovStack, read_fovs
from support.image_bytes import npy, tiff

H, W = 20, 24
NAMES = ("SRS", "TPEF", "Transmission")
SPEC = FovSpec(NAMES, H, W)
STACK = np.random.default_rng(0).integers(0, 4096, (4, 3, H, W), dtype=np.uint16)


def read(body: bytes, spec: FovSpec = SPEC, **options) -> FovStack:
    return read_fovs(io.BytesIO(body), spec, **options)


def pages(count: int, first: str | None = None, names: Sequence[str] = ()) -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for n, plane in enumerate(STACK.reshape(12, H, W)[:count]):
            tags = [(285, "s", 0, names[n % len(names)], True)] if names else []
            options = {"metadata": None, "contiguous": False, "extratags": tags}
            writer.write(plane, photometric="minisblack", description=None if n else first, **options)
    return buffer.getvalue()


KINDS: dict[str, Callable[[int], bytes]] = {
    "bare": pages,
    "tifffile, without axes": lambda count: pages(count, json.dumps({"shape": [4, 3, H, W]})),
    "tifffile, depths": lambda count: pages(count, json.dumps({"shape": [12, H, W], "axes": "ZYX"})),
    "ImageJ, slices": lambda count: pages(count, "ImageJ=1.54f\nimages=12\nslices=12\n"),
    "ImageJ, frames": lambda count: pages(count, "ImageJ=1.54f\nimages=12\nframes=12\n"),
}


@pytest.mark.parametrize("count", [4, 5, 7, 8, 10, 11])
@pytest.mark.parametrize("kind", KINDS)
def test_complete_fields_of_view_are_read_with_axes_pcyx(kind: str, count: int) -> None:
    body = KINDS[kind](count)
    stack = read(body, axes="PCYX")
    np.testing.assert_array_equal(stack.pixels, STACK[: count // 3])
    assert {notice.code for notice in stack.notices} == {"incomplete"}
    assert ("1 page is left out", "2 pages are left out")[count % 3 - 1] in stack.warnings[-1]
    with pytest.raises(errors.WrongChannelCount, match="axes=PCYX if the scan was stopped"):
        read(body)
    with pytest.raises(errors.InvalidRequest):  # if channels follow one another, none is complete
        read(body, axes="CPYX")


@pytest.mark.parametrize("kind", KINDS)
def test_fewer_pages_than_channels_are_rejected(kind: str) -> None:
    for axes in ("PCYX", None):
        with pytest.raises(errors.SenoscopeError, match=r"names 4 axes|holds 2 images"):
            read(KINDS[kind](2), axes=axes)


@pytest.mark.parametrize("axes", [None, "PCYX"])
@pytest.mark.parametrize("names", [NAMES, ("GFP", *NAMES)], ids=["three", "four"])
def test_names_of_pages_define_the_order_of_a_stopped_stack(names: tuple[str, ...], axes: str | None) -> None:
    stack = read(pages(11, names=names), axes=axes)
    channels = len(names)
    planes = STACK.reshape(12, H, W)[: 11 // channels * channels].reshape(-1, channels, H, W)
    np.testing.assert_array_equal(stack.pixels, planes[:, [names.index(name) for name in NAMES]])
    assert "incomplete" in {notice.code for notice in stack.notices}


def test_arrays_colours_and_declared_channels_are_not_truncated() -> None:
    planes = STACK.reshape(12, H, W)[:7]
    for body in (npy(planes), tiff(planes, metadata={"axes": "CYX"}), tiff(planes, ome=True)):
        with pytest.raises(errors.InvalidRequest):
            read(body, axes="PCYX")
    any_size = FovSpec(NAMES, H, W, any_size=True)
    with pytest.raises(errors.InvalidRequest):
        read(
            tiff((STACK[0].transpose(1, 2, 0) % 256).astype(np.uint8), photometric="rgb"),
            any_size,
            axes="PCYX",
        )
