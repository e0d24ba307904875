"""What a TIFF file declares, found out without trusting it. Needs the extra ``tiff``."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from typing import Any, BinaryIO
from xml.etree import ElementTree as ET

import imagecodecs  # noqa: F401 - tifffile loads it when a codec is needed; it must not be missing then
import numpy as np
import numpy.typing as npt
import tifffile

from senoscope_client.errors import AmbiguousAxes, TooManyFields, UnreadableImage

_MAX_METADATA = 4 * 1024 * 1024
_MAX_TAGS = 4096
_MAX_SEGMENTS = 1_000_000
_MAX_SEGMENT_PIXELS = 16 * 1024 * 1024

Description = tuple[
    tuple[int, ...], str, "np.dtype[Any]", "tuple[str, ...] | None", Callable[[], npt.NDArray[Any]]
]


def check_pages(stream: BinaryIO, size: int, *, max_pages: int, name: str) -> None:
    """Follow the chain of pages, which can be endless, before anything else does.

    Raises
    ------
    UnreadableImage
        If it leads out of the file or back into itself.
    TooManyFields
        If it has more than ``max_pages`` pages.
    """
    head = stream.read(16)
    order = "<" if head[:1] == b"I" else ">"
    big = head[2:4] in (b"+\0", b"\0+")
    entry, count_format, offset_format = (20, "Q", "Q") if big else (12, "H", "I")
    count_size, offset_size = struct.calcsize(count_format), struct.calcsize(offset_format)
    damaged = UnreadableImage(f"{name} is a damaged TIFF file: it is cut off, or its pages go in a circle")
    start = 8 if big else 4
    if len(head) < start + offset_size:
        raise damaged
    (offset,) = struct.unpack_from(order + offset_format, head, start)
    seen: set[int] = set()
    while offset:
        if offset in seen or offset + count_size > size:
            raise damaged
        seen.add(offset)
        if len(seen) > max_pages:
            raise TooManyFields(f"{name} has more than {max_pages} pages; split it")
        stream.seek(offset)
        (tags,) = struct.unpack(order + count_format, stream.read(count_size))
        if tags > _MAX_TAGS:
            raise damaged
        stream.seek(offset + count_size + tags * entry)
        link = stream.read(offset_size)
        if len(link) < offset_size:
            raise damaged
        (offset,) = struct.unpack(order + offset_format, link)
    stream.seek(0)


def open_tiff(stream: BinaryIO) -> tifffile.TiffFile:
    """The file; others that an OME-TIFF file names are not opened."""
    return tifffile.TiffFile(stream, name="upload.tif", _multifile=False)


def describe(file: tifffile.TiffFile, size: int, name: str) -> Description:
    """Shape, axes, dtype, channel names and decoder of the one image in the file.

    Raises
    ------
    AmbiguousAxes
        If it holds several images.
    UnreadableImage
        If it declares data that are not there, or segments of absurd size.
    """
    series = file.series
    if len(series) != 1:
        shapes = ", ".join("x".join(map(str, one.shape)) for one in series[:5])
        raise AmbiguousAxes(f"{name} holds {len(series)} images ({shapes}); save one stack per file")
    (image,) = series
    dtype = np.dtype(image.dtype) if image.dtype is not None else np.dtype("V1")
    if image.dataoffset is not None:
        # All pixels in one piece, which may reach beyond what the pages themselves declare.
        _require_inside(int(image.dataoffset), int(image.nbytes), size, name)
    for page in image.pages:
        if page is None:
            raise UnreadableImage(f"{name} lacks a page that its description names; write it again")
        _check_page(page, size, name)
    return (
        tuple(image.shape),
        image.axes,
        dtype,
        _channel_names(file, image),
        lambda: np.asarray(image.asarray(maxworkers=1)),
    )


def _check_page(page: Any, size: int, name: str) -> None:
    offsets, counts = page.dataoffsets, page.databytecounts
    if len(offsets) > _MAX_SEGMENTS or not len(offsets):
        raise UnreadableImage(f"{name} has a page without pixels, or cut into {len(offsets)} pieces")
    frame = page.keyframe
    if frame.is_tiled and frame.tilewidth * frame.tilelength * max(1, frame.tiledepth) > _MAX_SEGMENT_PIXELS:
        raise UnreadableImage(f"{name} has tiles of {frame.tilelength}x{frame.tilewidth} pixels")
    for offset, count in zip(offsets, counts, strict=False):
        _require_inside(int(offset), int(count), size, name)


def _require_inside(offset: int, count: int, size: int, name: str) -> None:
    if offset + count > size:
        raise UnreadableImage(
            f"{name} is cut off: pixels are at bytes {offset} to {offset + count}, the file has {size}"
        )


def _channel_names(file: tifffile.TiffFile, image: Any) -> tuple[str, ...] | None:
    """Names of the channels, from OME-XML, ImageJ's labels or tifffile's own description."""
    channels = dict(zip(image.axes, image.shape, strict=True)).get("C", 1)
    if file.is_ome:
        return _ome_names(file.ome_metadata or "")
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


def _ome_names(xml: str) -> tuple[str, ...] | None:
    # Without a document type there are no entities to expand, which is all that is dangerous in XML.
    if len(xml) > _MAX_METADATA or re.search(r"<!(DOCTYPE|ENTITY)", xml, re.IGNORECASE):
        return None
    try:
        root = ET.fromstring(xml)  # noqa: S314 - see above
    except ET.ParseError:
        return None
    pixels = root.find(".//{*}Pixels")
    found = [] if pixels is None else pixels.findall("{*}Channel")
    names = tuple(channel.get("Name", "") for channel in found)
    return names if any(names) else None
