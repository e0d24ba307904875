"""Tags that define conversions of numbers are used on every page."""

from __future__ import annotations

import io
from collections.abc import Sequence
from math import inf

import numpy as np
import pytest
import tifffile

from senoscope_client import errors
from senoscope_client.images.reader import FovSpec, FovStack, Limits, read_fovs
from support.crafted_tiff import crafted, one_page

H, W = 20, 24
SPEC = FovSpec(("SRS", "TPEF", "Transmission"), H, W)
ONE = np.random.default_rng(0).integers(0, 256, (3, H, W), dtype=np.uint16)
SCALE = '<GDALMetadata><Item name="SCALE" sample="0" role="scale">{}</Item></GDALMetadata>'


def read(body: bytes, spec: FovSpec = SPEC, **options) -> FovStack:
    return read_fovs(io.BytesIO(body), spec, **options)


def with_tags(tags: Sequence[tuple | None], dtype: type = np.uint16, **options) -> bytes:
    """Return three pages, each with its own tag."""
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for plane, tag in zip(ONE.astype(dtype), tags, strict=True):
            more = {"photometric": "minisblack", "extratags": [] if tag is None else [(*tag, True)]} | options
            writer.write(plane, metadata=None, contiguous=False, **more)
    return buffer.getvalue()


def on_page(n: int, tag: tuple) -> list[tuple | None]:
    return [tag if k == n else None for k in range(3)]


@pytest.mark.parametrize("page", range(3))
@pytest.mark.parametrize(
    ("tag", "message"),
    [((42112, "s", 0, SCALE.format(0.1)), "different scales"), ((33445, "I", 1, 2), "square roots")],
    ids=["scale", "square roots"],
)
def test_pages_with_different_meanings_of_numbers_are_rejected(page: int, tag: tuple, message: str) -> None:
    with pytest.raises(errors.UnreadableImage, match=message):
        read(with_tags(on_page(page, tag)))


@pytest.mark.parametrize("page", range(3))
@pytest.mark.parametrize(
    ("tag", "text"),
    [
        ((50714, "H", 1, 512), "BlackLevel"),
        ((291, "H", 4, (1, 2, 3, 4)), "GrayResponseCurve"),
        ((42113, "s", 0, "-999"), "without data (-999)"),
    ],
)
def test_conversions_that_are_not_applied_are_reported_for_every_page(
    page: int, tag: tuple, text: str
) -> None:
    stack = read(with_tags(on_page(page, tag)))
    np.testing.assert_array_equal(stack.pixels[0], ONE)
    assert [notice.code for notice in stack.notices] == ["values"]
    assert text in stack.warnings[0]


def test_the_same_scale_on_each_page_is_applied() -> None:
    stack = read(with_tags([(42112, "s", 0, SCALE.format(text)) for text in ("2", "2.0", "2")]))
    np.testing.assert_array_equal(stack.pixels[0], ONE * 2.0)


def test_values_that_differ_from_page_to_page_are_reported_once() -> None:
    stack = read(with_tags([(42113, "s", 0, str(n)) for n in range(3)]))
    assert stack.warnings == ("pixels without data (0) are used like all others",)


@pytest.mark.parametrize("page", range(3))
def test_a_colour_table_on_any_page_is_checked(page: int) -> None:
    ramp = np.stack([np.arange(256)] * 3).astype(np.uint16) * 257
    tables = [np.ascontiguousarray(ramp[:, ::-1]) if k == page else ramp for k in range(3)]
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for plane, table in zip(ONE.astype(np.uint8), tables, strict=True):
            writer.write(plane, photometric="palette", colormap=table, metadata=None, contiguous=False)
    with pytest.raises(errors.UnreadableImage, match="colour table"):
        read(buffer.getvalue())


def test_pages_may_share_a_long_value() -> None:
    tags = one_page(W, H) | {291: (3, 2000, bytes(4000))}
    stack = read(crafted(tags, pages=1500), axes="PCYX", limits=Limits(max_ratio=inf))
    assert stack.pixels.shape == (500, 3, H, W)
