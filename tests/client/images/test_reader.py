"""The reader of TIFF and NPY files: the same pixels from every container, and errors with their reason."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tifffile

from senoscope_client import errors
from senoscope_client.images.reader import FovSpec, FovStack, Limits, read_fovs
from support.crafted_tiff import crafted, description, ome_xml, one_page, zeros_in_one_go
from support.image_bytes import npy, tiff

H, W = 20, 24
NAMES = ("SRS", "TPEF", "Transmission")
SPEC = FovSpec(NAMES, H, W)
RNG = np.random.default_rng(0)
STACK = RNG.integers(0, 4096, (4, 3, H, W), dtype=np.uint16)
ONE = STACK[0]


def read(body: bytes, **options) -> FovStack:
    return read_fovs(io.BytesIO(body), SPEC, **options)


def tcyx(**options) -> bytes:
    return tiff(STACK, **({"metadata": {"axes": "TCYX"}} | options))


def ome(array: np.ndarray, axes: str, names: list[str]) -> bytes:
    return tiff(array, ome=True, metadata={"axes": axes, "Channel": {"Name": names}})


def with_reduced(*, subifds: int, ome: bool = False) -> bytes:
    """Return a TIFF of the stack, with reduced copies as further pages or in sub-directories."""
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, ome=ome) as writer:
        writer.write(STACK, photometric="minisblack", metadata={"axes": "TCYX"}, subifds=subifds)
        writer.write(STACK[..., ::2, ::2], photometric="minisblack", subfiletype=1)
    return buffer.getvalue()


@dataclass(frozen=True)
class Good:
    """A file, and the fields of view in it."""

    name: str
    make: Callable[[], bytes]
    expected: np.ndarray
    options: tuple[tuple[str, object], ...] = ()
    warns: bool = False


GOOD = [
    Good("plain", tcyx, STACK),
    Good("lzw", lambda: tcyx(compression="lzw"), STACK),
    Good("deflate with predictor", lambda: tcyx(compression="zlib", predictor=True), STACK),
    Good("zstd", lambda: tcyx(compression="zstd"), STACK),
    Good("bigtiff", lambda: tcyx(bigtiff=True), STACK),
    Good("tiled", lambda: tcyx(tile=(16, 16)), STACK),
    Good("strips", lambda: tcyx(rowsperstrip=3, compression="lzw"), STACK),
    Good("big-endian", lambda: tiff(STACK.astype(">u2"), byteorder=">", metadata={"axes": "TCYX"}), STACK),
    Good("imagej", lambda: tiff(STACK, imagej=True, metadata={"axes": "TCYX"}), STACK),
    Good("z stack", lambda: tiff(STACK, imagej=True, metadata={"axes": "ZCYX"}), STACK),
    Good("positions", lambda: tcyx(metadata={"axes": "PCYX"}), STACK),
    Good(
        "channel before time",
        lambda: tiff(np.ascontiguousarray(STACK.swapaxes(0, 1)), metadata={"axes": "CTYX"}),
        STACK,
    ),
    Good("two leading axes", lambda: tiff(STACK.reshape(2, 2, 3, H, W), metadata={"axes": "TZCYX"}), STACK),
    Good("one field of view", lambda: tiff(ONE, metadata={"axes": "CYX"}), ONE[None]),
    Good("three bare pages", lambda: tiff(ONE, metadata=None), ONE[None]),
    Good(
        "planar samples", lambda: tiff(ONE, photometric="rgb", planarconfig="separate"), ONE[None], warns=True
    ),
    Good(
        "interleaved samples",
        lambda: tiff(np.ascontiguousarray(ONE.transpose(1, 2, 0)), photometric="rgb"),
        ONE[None],
        warns=True,
    ),
    Good(
        "bare pages, axes given",
        lambda: tiff(STACK.reshape(12, H, W), metadata=None),
        STACK,
        (("axes", "PCYX"),),
    ),
    Good(
        "bare pages, other axes given",
        lambda: tiff(STACK.swapaxes(0, 1).reshape(12, H, W), metadata=None),
        STACK,
        (("axes", "cpyx"),),
    ),
    Good("ome", lambda: ome(STACK, "TCYX", list(NAMES)), STACK),
    Good(
        "ome, channels in another order",
        lambda: ome(np.ascontiguousarray(STACK[:, [2, 0, 1]]), "TCYX", ["transmission", "srs", " tpef"]),
        STACK,
    ),
    Good(
        "ome, more channels than needed",
        lambda: ome(STACK[:, [0, 1, 1, 2]], "TCYX", ["SRS", "TPEF", "CARS", "Transmission"]),
        STACK,
        warns=True,
    ),
    Good("ome, other names", lambda: ome(STACK, "TCYX", ["a", "b", "c"]), STACK, warns=True),
    Good(
        "imagej labels",
        lambda: tiff(
            np.ascontiguousarray(STACK[:, ::-1]),
            imagej=True,
            metadata={"axes": "TCYX", "Labels": list(NAMES[::-1]) * 4},
        ),
        STACK,
    ),
    Good(
        "channels given",
        lambda: tiff(np.ascontiguousarray(STACK[:, [1, 0, 2]]), metadata={"axes": "TCYX"}),
        STACK,
        (("channels", ["TPEF", "SRS", "Transmission"]),),
    ),
    Good("with thumbnails", lambda: with_reduced(subifds=0), STACK),
    Good("pyramid", lambda: with_reduced(subifds=1), STACK),
    Good("pyramid in ome", lambda: with_reduced(subifds=1, ome=True), STACK),
    Good(
        "stacks of planar samples",
        lambda: tiff(STACK, photometric="rgb", planarconfig="separate", metadata={"axes": "TSYX"}),
        STACK,
        warns=True,
    ),
    Good(
        "samples, axes given",
        lambda: tiff(np.ascontiguousarray(np.moveaxis(STACK, 1, -1)), photometric="rgb", metadata=None),
        STACK,
        (("axes", "TYXS"),),
        warns=True,
    ),
    Good("npy", lambda: npy(STACK), STACK),
    Good("npy, one", lambda: npy(ONE), ONE[None]),
    Good("npy, Fortran order", lambda: npy(np.asfortranarray(STACK)), STACK),
    Good("npy, big-endian", lambda: npy(STACK.astype(">u2")), STACK),
    Good("npy, channels last", lambda: npy(np.moveaxis(STACK, 1, -1)), STACK),
    Good("npy, float64", lambda: npy(STACK.astype(np.float64)), STACK.astype(np.float32)),
    Good("npy, int32", lambda: npy(STACK.astype(np.int32)), STACK.astype(np.float32)),
    Good("npy, uint8", lambda: npy((STACK // 16).astype(np.uint8)), (STACK // 16).astype(np.uint8)),
    Good("npy, five axes given", lambda: npy(STACK.reshape(2, 2, 3, H, W)), STACK, (("axes", "TZCYX"),)),
]


@pytest.mark.parametrize("good", GOOD, ids=lambda good: good.name)
def test_reading_returns_the_pixels_of_the_file(good: Good, tmp_path: Path) -> None:
    body = good.make()
    stack = read(body, **dict(good.options))
    np.testing.assert_array_equal(stack.pixels, good.expected)
    assert stack.pixels.dtype == good.expected.dtype
    assert stack.pixels.dtype.isnative
    assert bool(stack.warnings) == good.warns, stack.warnings
    (tmp_path / "file").write_bytes(body)
    from_disk = read_fovs(tmp_path / "file", SPEC, **dict(good.options))
    np.testing.assert_array_equal(from_disk.pixels, stack.pixels)


def with_value(value: float, dtype: type = np.float32) -> bytes:
    stack = STACK.astype(dtype)
    stack[2, 1, 3, 4] = value
    return npy(stack)


def objects() -> bytes:
    return npy(np.array([{}, None], object), allow_pickle=True)


def npy_header(header: str, body: bytes = b"") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


def circle() -> bytes:
    """Return a TIFF whose only page links to itself."""
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 0) + struct.pack("<I", 8)


def chain(pages: int) -> bytes:
    """Return a TIFF of many empty pages."""
    links = [struct.pack("<HI", 0, 8 + 6 * (n + 1)) for n in range(pages)]
    return b"II*\0" + struct.pack("<I", 8) + b"".join(links) + struct.pack("<HI", 0, 0)


def patched(body: bytes, tag: int, value: int) -> bytes:
    """Return a little-endian TIFF with the value of one tag replaced."""
    data = bytearray(body)
    (offset,) = struct.unpack_from("<I", data, 4)
    (tags,) = struct.unpack_from("<H", data, offset)
    for n in range(tags):
        at = offset + 2 + 12 * n
        if struct.unpack_from("<H", data, at)[0] == tag:
            struct.pack_into("<HII", data, at + 2, 4, 1, value)
            return bytes(data)
    raise AssertionError("no such tag")


def two_images() -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(ONE, photometric="minisblack")
        writer.write(ONE[:, :10], photometric="minisblack")
    return buffer.getvalue()


@dataclass(frozen=True)
class Bad:
    """A file, and the error that reading it must raise."""

    name: str
    make: Callable[[], bytes]
    error: type[errors.SenoscopeError]
    message: str
    options: tuple[tuple[str, object], ...] = ()


CYX = {"metadata": {"axes": "CYX"}}
OTHER_FILE = (
    '<TiffData IFD="0" FirstT="0" PlaneCount="1"><UUID FileName="b.ome.tif">urn:uuid:1</UUID></TiffData>'
)
BAD = [
    Bad("empty", lambda: b"", errors.UnreadableImage, "empty"),
    Bad("text", lambda: b"hello", errors.UnsupportedMediaType, "is text; send"),
    Bad("png", lambda: b"\x89PNG\r\n\x1a\n12345", errors.UnsupportedMediaType, "a PNG image"),
    Bad(
        "text declared as TIFF",
        lambda: b"hello",
        errors.UnreadableImage,
        "declared as image/tiff",
        (("media_type", "image/tiff"),),
    ),
    Bad("only a magic number", lambda: b"II*\0", errors.UnreadableImage, "damaged"),
    Bad("pages in a circle", circle, errors.UnreadableImage, "circle"),
    Bad("100,000 pages", lambda: chain(100_000), errors.TooManyFields, "pages"),
    Bad("truncated in the pixels", lambda: tiff(ONE, **CYX)[:1000], errors.UnreadableImage, "cut off"),
    Bad("truncated in the pages", lambda: tcyx()[:-100], errors.UnreadableImage, "cut off|damaged"),
    Bad("truncated npy", lambda: npy(STACK)[:-1], errors.UnreadableImage, "cut off"),
    Bad("npy with surplus bytes", lambda: npy(STACK) + b"x", errors.UnreadableImage, "damaged"),
    Bad("objects", objects, errors.UnreadableImage, "never opened"),
    Bad(
        "npy header of code", lambda: npy_header("__import__('os')"), errors.UnreadableImage, "damaged header"
    ),
    Bad(
        "npy header of a petabyte",
        lambda: npy_header("{'descr': '<u2', 'fortran_order': False, 'shape': (1000000, 1000000, 1000)}"),
        errors.UnreadableImage,
        "cut off",
    ),
    Bad(
        "negative shape",
        lambda: npy_header("{'descr': '<u2', 'fortran_order': False, 'shape': (-1, -2)}", b"1234"),
        errors.UnreadableImage,
        "shape is empty",
    ),
    Bad("no pixels", lambda: npy(np.zeros((0, 3, H, W))), errors.UnreadableImage, "shape is empty"),
    Bad("complex", lambda: npy(STACK.astype(complex)), errors.UnreadableImage, "integers or floats"),
    Bad("bool", lambda: npy(STACK > 5), errors.UnreadableImage, "integers or floats"),
    Bad("NaN", lambda: with_value(np.nan), errors.NonFinitePixels, "field of view 2, channel TPEF"),
    Bad("infinite", lambda: with_value(-np.inf), errors.NonFinitePixels, "1 pixels"),
    Bad("too large for float32", lambda: with_value(1e300, np.float64), errors.NonFinitePixels, "1 pixels"),
    Bad("2 channels", lambda: tiff(ONE[:2], **CYX), errors.WrongChannelCount, "has 2 channels"),
    Bad("4 channels", lambda: tiff(STACK[:, 0], **CYX), errors.WrongChannelCount, "has 4 channels"),
    Bad("4 samples", lambda: tiff(STACK[:, 0], planarconfig="separate"), errors.WrongChannelCount, "has 4"),
    Bad("1 page", lambda: tiff(ONE[0]), errors.WrongChannelCount, "has 1 channel,"),
    Bad("5 bare pages", lambda: tiff(STACK.reshape(12, H, W)[:5]), errors.WrongChannelCount, "5 images"),
    Bad("6 bare pages", lambda: tiff(STACK.reshape(12, H, W)[:6]), errors.AmbiguousAxes, "axes=PCYX"),
    Bad("3 slices", lambda: tiff(ONE, metadata={"axes": "ZYX"}), errors.AmbiguousAxes, "axes=PCYX"),
    Bad("npy pages", lambda: npy(STACK.reshape(12, H, W)), errors.AmbiguousAxes, "axes=PCYX"),
    Bad("another size", lambda: tiff(np.zeros((3, 64, 64), "u2"), **CYX), errors.WrongFrameSize, "64x64"),
    Bad("transposed", lambda: npy(ONE.swapaxes(1, 2)), errors.WrongFrameSize, "swapped"),
    Bad(
        "some names known",
        lambda: ome(STACK, "TCYX", ["SRS", "Transmission", "PMT2"]),
        errors.AmbiguousAxes,
        "channels named SRS, Transmission, PMT2",
    ),
    Bad("two images", two_images, errors.AmbiguousAxes, "holds 2 images"),
    Bad(
        "channels and samples",
        lambda: tiff(np.zeros((3, H, W, 3), "u1"), photometric="rgb", metadata={"axes": "CYXS"}),
        errors.AmbiguousAxes,
        "both channels and colour samples",
    ),
    Bad(
        "one file of several",
        lambda: crafted(one_page(W, H) | description(ome_xml(W, H, t=2, data=OTHER_FILE)), pages=3),
        errors.AmbiguousAxes,
        "one file of several",
    ),
    Bad(
        "imagej, more pages than described",
        lambda: crafted(
            one_page(W, H) | description("ImageJ=1.53\nimages=3\nchannels=3\nhyperstack=true\n"), pages=6
        ),
        errors.AmbiguousAxes,
        "does not match its pages",
    ),
    Bad(
        "imagej in one piece, cut off",
        lambda: crafted(
            one_page(W, H) | description("ImageJ=1.53\nimages=12\nchannels=3\nframes=4\nhyperstack=true\n")
        ),
        errors.UnreadableImage,
        "cut off",
    ),
    Bad("no image", lambda: b"II*\0" + bytes(100), errors.UnreadableImage, "without an image"),
    Bad(
        "too few bytes in a page",
        lambda: crafted(one_page(W, H) | {279: (4, 1, 100)}, pages=3),
        errors.UnreadableImage,
        "cut off",
    ),
    Bad(
        "a strip not written",
        lambda: crafted(one_page(W, H) | {279: (4, 1, 0)}, pages=3),
        errors.UnreadableImage,
        "not finished",
    ),
    Bad(
        "a strip not declared",
        lambda: crafted(one_page(W, H) | {278: (4, 1, H // 2), 279: (4, 1, W * H)}, pages=3),
        errors.UnreadableImage,
        "2 pieces",
    ),
    Bad("unknown letter", tcyx, errors.InvalidRequest, "one letter", (("axes", "GCYX"),)),
    Bad("bad axes", tcyx, errors.InvalidRequest, "one letter", (("axes", "TCYY"),)),
    Bad("axes without channel", tcyx, errors.InvalidRequest, "C, Y and X", (("axes", "TZYX"),)),
    Bad("axes too few", tcyx, errors.InvalidRequest, "names 3 axes", (("axes", "CYX"),)),
    Bad("bad channels", tcyx, errors.InvalidRequest, "names 2 channels", (("channels", ["a", "b"]),)),
    Bad("wrong channels", tcyx, errors.AmbiguousAxes, "named a, b, c", (("channels", ["a", "b", "c"]),)),
    Bad(
        "absurd tiles",
        lambda: patched(tiff(ONE[0], tile=(16, 16), metadata=None), 322, 1_000_000),
        errors.UnreadableImage,
        "tiles of",
    ),
    Bad(
        "absurd width",
        lambda: patched(tiff(ONE[0], metadata=None), 256, 2**31),
        errors.UnreadableImage,
        "cut off",
    ),
    Bad(
        "too many",
        tcyx,
        errors.TooManyFields,
        "holds 4 fields of view, at most 3",
        (("limits", Limits(max_fovs=3)),),
    ),
    Bad(
        "too large",
        tcyx,
        errors.PayloadTooLarge,
        "at most",
        (("limits", Limits(max_decoded_bytes=10_000)),),
    ),
]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_invalid_files_and_options_raise_an_error_with_the_reason(bad: Bad) -> None:
    with pytest.raises(bad.error, match=bad.message) as refused:
        read(bad.make(), name="stack.tif", **dict(bad.options))
    assert type(refused.value) is bad.error
    if bad.error is not errors.InvalidRequest or "stack.tif" in str(refused.value):
        assert "stack.tif" in refused.value.detail


def test_a_small_file_that_declares_many_pixels_is_rejected_before_decoding(tracemalloc_peak) -> None:
    zeros = np.zeros((300, 3, 250, 300), np.uint16)
    body = tiff(zeros, compression="zlib", metadata={"axes": "TCYX"})
    assert len(body) < 1_000_000 < zeros.nbytes / 100
    del zeros
    spec = FovSpec(NAMES, 250, 300)
    with tracemalloc_peak() as peak, pytest.raises(errors.PayloadTooLarge, match="times its size"):
        read_fovs(io.BytesIO(body), spec)
    assert peak() < 50e6


@pytest.mark.parametrize(
    "names",
    [["\ud800", "b", "c"], ["a\r\nb", "b", "c"], ["x" * 5000, "b", "c"], [*NAMES, "\ud800\n" + "y" * 5000]],
    ids=["surrogate", "two lines", "very long", "one more"],
)
def test_channel_names_in_warnings_are_sanitized(names: list[str]) -> None:
    shaped = {"shape": [len(names), H, W], "axes": "CYX", "Channel": {"Name": names}}
    body = crafted(one_page(W, H) | description(json.dumps(shaped)), pages=len(names))
    (warning,) = read(body).warnings
    assert warning.isprintable()
    assert len(warning) < 400


def test_ome_xml_with_a_document_type_is_rejected() -> None:
    body = ome(STACK, "TCYX", list(NAMES[::-1]))
    declaration = b'<?xml version="1.0" encoding="UTF-8"?>'
    assert declaration in body
    np.testing.assert_array_equal(read(body).pixels, STACK[:, ::-1])
    hostile = b'<!DOCTYPE x [<!ENTITY y "z">]>'.ljust(len(declaration))
    with pytest.raises(errors.UnreadableImage, match="document type"):
        read(body.replace(declaration, hostile))


HOSTILE = [
    Bad(
        "OME-XML of a billion time points",
        lambda: crafted(one_page(W, H) | description(ome_xml(W, H, t=10**9))),
        errors.UnreadableImage,
        "far more planes",
    ),
    Bad(
        "OME-XML of a billion planes in a piece",
        lambda: crafted(
            one_page(W, H) | description(ome_xml(W, H, data='<TiffData PlaneCount="1000000000"/>'))
        ),
        errors.UnreadableImage,
        "far more planes",
    ),
    Bad(
        "OME-XML that repeats its planes",
        lambda: crafted(
            one_page(W, H) | description(ome_xml(W, H, data='<TiffData PlaneCount="50"/>' * 20_000))
        ),
        errors.UnreadableImage,
        "far more planes",
    ),
    Bad(
        "OME-XML of a long modulo",
        lambda: crafted(
            one_page(W, H) | description(ome_xml(W, H, more='<ModuloAlongT Start="0" End="1e12" Step="1"/>'))
        ),
        errors.UnreadableImage,
        "far more planes",
    ),
    Bad(
        "OME-XML of negative counts",
        lambda: crafted(one_page(W, H) | description(ome_xml(W, H, t=-1))),
        errors.UnreadableImage,
        "invalid numbers",
    ),
    Bad(
        "OME-XML of many elements",
        lambda: crafted(one_page(W, H) | description(ome_xml(W, H, more="<a/>" * 500_000))),
        errors.UnreadableImage,
        "too long",
    ),
    Bad(
        "a description that all pages share",
        lambda: crafted(one_page(W, H) | description("x" * 2_000_000), pages=2000),
        errors.UnreadableImage,
        "too much metadata",
    ),
    Bad(
        "strips that all pages share",
        lambda: crafted(
            one_page(W, H) | {273: (4, 500_000, bytes(2_000_000)), 279: (4, 500_000, bytes(2_000_001))},
            pages=500,
        ),
        errors.UnreadableImage,
        "too much metadata",
    ),
    Bad(
        "many tags",
        lambda: crafted(one_page(W, H) | dict.fromkeys(range(40000, 42000), (4, 1, 0)), pages=500),
        errors.UnreadableImage,
        "too much metadata",
    ),
    Bad(
        "MetaMorph's tags of many planes",
        lambda: crafted(one_page(W, H) | {33629: (5, 100_000, bytes(2_400_000))}),
        errors.UnreadableImage,
        "too much metadata",
    ),
    Bad(
        "pages below pages in a circle",
        lambda: crafted(one_page(W, H) | {330: (4, 1, 8 + 2 * W * H)}, pages=3),
        errors.UnreadableImage,
        "circle",
    ),
    Bad(
        "50,000 pages below each page",
        lambda: crafted(one_page(W, H) | {330: (4, 50_000, bytes([9, 0, 0, 0]) * 50_000)}, pages=500),
        errors.TooManyFields,
        "more than 4096 pages",
    ),
    Bad(
        "a compressed page described as a billion",
        lambda: crafted(
            one_page(W, H)
            | zeros_in_one_go(2 * W * H)
            | description(f'{{"shape": [1000000000, 3, {H}, {W}], "axes": "TCYX"}}')
        ),
        errors.UnreadableImage,
        "describes 3000000000 pages",
    ),
    Bad(
        "tiles of 32 MB",
        lambda: crafted(
            {tag: value for tag, value in one_page(W, H).items() if tag not in {273, 278, 279}}
            | {322: (4, 1, 4000), 323: (4, 1, 4000), 324: (4, 1, 8), 325: (4, 1, 100)},
            pages=3,
        ),
        errors.UnreadableImage,
        "tiles of 4000x4000",
    ),
    Bad(
        "different bits for ten thousand samples",
        lambda: crafted(
            one_page(W, H) | {277: (4, 1, 10_000), 258: (3, 5, struct.pack("<5H", 16, 8, 16, 8, 16))},
            pages=3,
        ),
        errors.UnreadableImage,
        "several values for one size",
    ),
    Bad(
        "a strip that unpacks to 200 MB",
        lambda: crafted(one_page(W, H) | zeros_in_one_go(200_000_000), pages=3),
        errors.UnreadableImage,
        "damaged",
    ),
    Bad(
        "a codec that declares its own size",
        lambda: crafted(one_page(W, H) | {259: (3, 1, 7)}, pages=3),
        errors.UnreadableImage,
        "compressed with JPEG",
    ),
    Bad(
        "npy header of 60 MB",
        lambda: b"\x93NUMPY\x02\x00" + struct.pack("<I", 60_000_000) + bytes(60_000_000),
        errors.UnreadableImage,
        "header of 60000000 bytes",
    ),
    Bad(
        "npy header of a number too long to print",
        lambda: npy_header(f"{{'descr': '<u2', 'fortran_order': False, 'shape': (0x{'f' * 9000},)}}"),
        errors.UnreadableImage,
        "larger than the file",
    ),
    Bad("npy header of brackets", lambda: npy_header("(" * 9000), errors.UnreadableImage, "damaged header"),
]


@pytest.mark.timeout(60)  # without the checks, reading would take minutes
@pytest.mark.parametrize("bad", HOSTILE, ids=lambda bad: bad.name)
def test_malicious_files_are_rejected_in_little_time_and_memory(bad: Bad, tracemalloc_peak) -> None:
    body = io.BytesIO(bad.make())
    with tracemalloc_peak() as peak, pytest.raises(bad.error, match=bad.message):
        read_fovs(body, SPEC)
    assert peak() < 100e6


@pytest.mark.parametrize("good", GOOD, ids=lambda good: good.name)
def test_a_truncated_file_is_rejected_or_read_completely(good: Good) -> None:
    body = good.make()
    for length in np.linspace(0, len(body) - 1, 40, dtype=int):
        with contextlib.suppress(errors.SenoscopeError):
            stack = read(body[:length], **dict(good.options))
            np.testing.assert_array_equal(stack.pixels, good.expected)


@pytest.mark.parametrize("seed", range(8))
def test_damaged_files_raise_only_senoscope_errors(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bodies = [good.make() for good in GOOD]
    for _ in range(60):
        data = bytearray(bodies[rng.integers(len(bodies))])
        for _ in range(rng.integers(1, 12)):
            # Most damage is in the first bytes, which contain the declarations.
            at = int(rng.integers(len(data)) if rng.random() < 0.3 else rng.integers(min(600, len(data))))
            data[at] = rng.integers(256)
        if rng.random() < 0.2:
            del data[rng.integers(1, len(data)) :]
        with contextlib.suppress(errors.SenoscopeError):
            read(bytes(data))


def test_headers_can_be_read_by_several_threads() -> None:
    """Python below 3.11.8 and 3.12.2 confuses two literals that are parsed at the same time (gh-106905)."""
    body = npy(ONE)
    finished = threading.Event()

    def read_repeatedly(depth: int) -> None:
        if depth:  # the fault does not occur in threads with the same depth of the stack
            read_repeatedly(depth - 1)
            return
        while not finished.is_set():
            with contextlib.suppress(errors.UnreadableImage):
                read(body)

    def switch_thread(*_: object) -> None:
        if threading.current_thread() is not other:
            time.sleep(0.001)

    other = threading.Thread(target=read_repeatedly, args=(50,))
    threshold = gc.get_threshold()
    gc.freeze()  # so that objects of other tests are not scanned each time
    gc.callbacks.append(switch_thread)
    gc.set_threshold(20)  # so that threads also switch during parsing
    other.start()
    try:
        for _ in range(20):
            assert read(body).pixels.shape == (1, *ONE.shape)
    finally:
        gc.callbacks.remove(switch_thread)
        gc.set_threshold(*threshold)
        gc.unfreeze()
        finished.set()
        other.join()
