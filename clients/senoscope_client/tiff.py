"""What a TIFF file declares, found out without trusting it. Needs the extra ``tiff``."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import prod
from typing import Any, BinaryIO

import imagecodecs  # noqa: F401 - tifffile loads it when a codec is needed; it must not be missing then
import numpy as np
import numpy.typing as npt
import tifffile

from senoscope_client import ome
from senoscope_client.errors import AmbiguousAxes, UnreadableImage

_MAX_METADATA = 4 * 1024 * 1024
# Bytes of the tiles of one page, however small it is.
_MAX_TILES = 2 * 1024 * 1024
# None, LZW, Deflate (both codes), PackBits, LZMA, Zstandard (both codes). These unpack into the room that
# the TIFF file declares; JPEG, PNG and the like bring their own size, which may be a thousand times that.
_CODECS = {1, 5, 8, 32946, 32773, 34925, 34926, 50000}
# Kinds of TIFF whose own readers are left out, so that they are taken as bare pages: the first two look for
# files beside this one; the others are of slide scanners and gels, and hold no stacks.
_OTHER_KINDS = (
    *("mmstack", "ndtiff"),
    *("avs", "bif", "eer", "mdgel", "ndpi", "nih", "philips", "qpi", "scn", "sis", "svs"),
)

Description = tuple[
    tuple[int, ...], str, "np.dtype[Any]", "tuple[str, ...] | None", Callable[[], npt.NDArray[Any]]
]


def open_tiff(stream: BinaryIO) -> tifffile.TiffFile:
    """The file; others that its metadata name are not opened."""
    flags: dict[str, Any] = {f"is_{kind}": False for kind in _OTHER_KINDS}
    return tifffile.TiffFile(stream, name="upload.tif", _multifile=False, **flags)


def describe(
    file: tifffile.TiffFile, size: int, *, max_pages: int, smallest: int, told: bool, name: str
) -> Description:
    """Shape, axes, dtype, channel names and decoder of the one image in the file.

    Parameters
    ----------
    file : TiffFile
    size : int
        Of the file, in bytes.
    max_pages : int
    smallest : int
        Pixels of the smallest page.
    told : bool
        Whether the user tells the axes, so that the file need not.
    name : str
        Of the file, for messages.

    Raises
    ------
    AmbiguousAxes
        If it holds several images, or describes others than it holds.
    UnreadableImage
        If it declares data that are not there, or segments of absurd size.
    """
    xml = (file.ome_metadata or "") if file.is_ome else ""
    names = ome.channel_names(xml, pages=len(file.pages), smallest=smallest, name=name) if xml else None
    series = [one for one in file.series if not (one.keyframe.is_reduced or one.keyframe.is_mask)]
    series = series or file.series
    if not series:
        raise UnreadableImage(f"{name} is a TIFF file without an image; write it again")
    if len(series) != 1:
        shapes = ", ".join("x".join(map(str, one.shape)) for one in series[:5])
        raise AmbiguousAxes(f"{name} holds {len(series)} images ({shapes}); save one stack per file")
    (image,) = series
    described = file.is_ome or file.is_imagej or file.is_shaped
    if described and image.kind in {"uniform", "generic"} and not told:
        raise AmbiguousAxes(
            f"{name} describes other pages than it holds: it was cut off, edited, or is one file of several. "
            "Write the stack into one file, or pass axes= with a letter for each axis, as in PCYX"
        )
    if not xml:
        names = _channel_names(file, image)
    return describe_image(image, names, size, max_pages=max_pages, name=name)


def describe_image(
    image: tifffile.TiffPageSeries,
    names: tuple[str, ...] | None,
    size: int,
    *,
    max_pages: int,
    name: str,
) -> Description:
    """The same of one of several images, whose channels' names are known."""
    _check_data(image, size, max_pages, name)
    dtype = np.dtype(image.dtype) if image.dtype is not None else np.dtype("V1")
    return tuple(image.shape), image.axes, dtype, names, lambda: np.asarray(image.asarray(maxworkers=1))


def _check_data(image: tifffile.TiffPageSeries, size: int, max_pages: int, name: str) -> None:
    """All pixels are in the file; tifffile makes zeros of those that are not."""
    if image.dataoffset is not None:
        # All pixels in one piece, which may reach beyond what the pages themselves declare.
        _require_inside(int(image.dataoffset), int(image.nbytes), size, name)
    elif len(image.pages) > max_pages:
        raise UnreadableImage(f"{name} describes {len(image.pages)} pages, which it has not; write it again")
    for page in [image.keyframe] if image.dataoffset is not None else image.pages:
        if page is None:
            raise UnreadableImage(f"{name} lacks a page that its description names; write it again")
        _check_page(page, size, name)


def _check_page(page: Any, size: int, name: str) -> None:
    frame = page.keyframe
    if int(frame.compression) not in _CODECS:
        codec = getattr(frame.compression, "name", frame.compression)
        raise UnreadableImage(
            f"{name} is compressed with {codec}; save it with LZW, Deflate, Zstandard, or uncompressed"
        )
    sizes = (frame.imagewidth, frame.imagelength, frame.samplesperpixel, frame.bitspersample)
    if not all(isinstance(number, int) for number in sizes):
        # Bits of each sample, for one; multiplied, a tuple would take any amount of memory.
        raise UnreadableImage(f"{name} has a page that tells several sizes of one thing; write it again")
    samples = frame.samplesperpixel if frame.planarconfig == 1 else 1
    segments = prod(frame.chunked)
    if frame.is_tiled:
        tile = frame.tilewidth * frame.tilelength * max(1, frame.tiledepth) * samples
        if tile * frame.bitspersample // 8 * segments > max(_MAX_TILES, 8 * frame.nbytes):
            raise UnreadableImage(
                f"{name} has tiles of {frame.tilelength}x{frame.tilewidth} pixels, much larger than its "
                "frames; save it without tiles"
            )
    if min(len(page.dataoffsets), len(page.databytecounts)) < segments:
        raise UnreadableImage(
            f"{name} has a page in {segments} pieces and tells the place of {len(page.dataoffsets)} and the "
            f"length of {len(page.databytecounts)} of them; write it again"
        )
    # Places and lengths of 64 bits; a sum of floats cannot overflow.
    offsets = np.asarray(page.dataoffsets[:segments], np.float64)
    counts = np.asarray(page.databytecounts[:segments], np.float64)
    if not (offsets > 0).all() or not (counts > 0).all():
        raise UnreadableImage(f"{name} has a page with pixels missing: writing it was not finished")
    last = int(np.argmax(offsets + counts))
    _require_inside(int(page.dataoffsets[last]), int(page.databytecounts[last]), size, name)
    needed = frame.imagewidth * frame.imagelength * frame.samplesperpixel * frame.bitspersample // 8
    if frame.compression == 1 and counts.sum() < needed:
        raise UnreadableImage(
            f"{name} is cut off: a page takes {needed} bytes of pixels, the file tells {counts.sum():.0f}"
        )


def _require_inside(offset: int, count: int, size: int, name: str) -> None:
    if offset + count > size:
        raise UnreadableImage(
            f"{name} is cut off: pixels are at bytes {offset} to {offset + count}, the file has {size}"
        )


def _channel_names(file: tifffile.TiffFile, image: tifffile.TiffPageSeries) -> tuple[str, ...] | None:
    """Names of the channels, from ImageJ's labels or tifffile's own description."""
    channels = dict(zip(image.axes, image.shape, strict=True)).get("C", 1)
    if file.is_imagej:
        labels = [str(label) for label in (file.imagej_metadata or {}).get("Labels", ())]
        # One label per plane, the channel changing fastest.
        first = labels[:channels]
        return tuple(first) if labels and labels == first * (len(labels) // channels) else None
    text = str(file.pages.first.description or "")
    if file.is_shaped and len(text) < _MAX_METADATA:
        try:
            names = json.loads(text)["Channel"]["Name"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        return tuple(map(str, names)) if isinstance(names, list) else None
    return None
