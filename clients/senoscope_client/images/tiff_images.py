"""Which page of a TIFF file shows what, by the descriptions that programs write, and the pages there are.

Every image that comes out of here consists of pages that the file's directories name (or, where a program
writes one directory for many planes, of bytes that are in the file). What a description declares beyond
them was planned and never taken; what it does not mention is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from senoscope_client.errors import AmbiguousAxes, UnreadableImage
from senoscope_client.images.calibration import Calibration
from senoscope_client.images.channel_names import mentioned
from senoscope_client.images.notices import Notice
from senoscope_client.images.stored import StoredImage
from senoscope_client.images.tiff import TiffPages
from senoscope_client.images.tiff_kinds import (
    IMAGEJ_METADATA,
    fluoview_planes,
    imagej_planes,
    interleaved_planes,
    lsm_planes,
    scanimage_channels,
    shaped_planes,
)
from senoscope_client.images.tiff_micromanager import micromanager_planes
from senoscope_client.images.tiff_ome import ome_planes
from senoscope_client.images.tiff_page_check import WalkLimits, list_pages
from senoscope_client.images.tiff_page_names import page_labels, page_texts
from senoscope_client.images.tiff_planes import Mismatch, Planes, Request, bare_pages, require_alike
from senoscope_client.images.tiff_values import checked_type, values_of

__all__ = ["Request", "open_images"]

_MAX_TEXT: Final = 4 * 1024 * 1024
_UIC2: Final = 33629
_FOUR_GIB: Final = 2**32
_MISMATCH: Final = (
    "describes other pages than it holds: it was cut off, edited, or is one file of several. Write the stack "
    "into one file, or pass axes= with a letter for each axis, as in PCYX"
)


def open_images(stream: BinaryIO, size: int, limits: WalkLimits, request: Request) -> list[StoredImage]:
    """The images in a TIFF file; several only where OME-XML declares them.

    Raises
    ------
    AmbiguousAxes
        If it holds several images, or describes others than it holds.
    UnreadableImage
        If it is damaged, or its numbers are no counts.
    TooManyFields
        If it has too many pages.
    """
    name = request.name
    directories = list_pages(stream, size, limits, name)
    if not len(directories):
        raise UnreadableImage(f"{name} is a TIFF file without an image; write it again")
    pages = TiffPages(stream, size, directories, name)
    if pages.first.is_lsm and size >= _FOUR_GIB:
        raise UnreadableImage(
            f"{name} is an LSM file of over 4 GiB, whose offsets are cut off; save it as OME-TIFF"
        )
    notices: list[Notice] = []
    if directories.others:
        text = (
            f"{directories.others} pages in sub-directories are left out, though not marked as smaller copies"
        )
        notices.append(Notice("pages-left-out", text))
    if directories.unreduced:
        text = (
            f"{directories.unreduced} pages are left out, which are declared as reduced copies or masks, but "
            "are of full size"
        )
        notices.append(Notice("pages-left-out", text))
    try:
        found = _described(pages, stream, request)
    except Mismatch:
        if not request.axes_told:
            raise AmbiguousAxes(f"{name} {_MISMATCH}") from None
        text = "the file describes other pages than it holds; its description is not used"
        notices.append(Notice("pages-left-out", text))
        found = [bare_pages(pages, page_labels(pages, request), name)]
    mentions = tuple(mentioned(_text(pages), request.channels))
    return [_stored(pages, planes, tuple(notices), mentions, request) for planes in found]


def _described(  # noqa: PLR0911 - one return for each kind of file
    pages: TiffPages, stream: BinaryIO, request: Request
) -> list[Planes]:
    first = pages.first
    if first.is_ome:
        return ome_planes(pages, request)
    if first.is_imagej:
        return [imagej_planes(pages, request)]
    if first.is_shaped:
        return [shaped_planes(pages, request)]
    if pages.directories.metadata[1]:
        micromanager = micromanager_planes(pages, request)
        if micromanager is not None:
            return [micromanager]
    if first.is_stk and first.tags.get(_UIC2) is not None and first.tags[_UIC2].count > 1:
        planes = int(first.tags[_UIC2].count)
        read = pages.contiguous(planes, "MetaMorph")
        # In depth or time: of wavelengths MetaMorph writes a file each.
        return [Planes("Z", (planes,), [0] * planes, read=read)]
    if first.is_fluoview:
        return [fluoview_planes(pages, request)]
    if (names := scanimage_channels(pages, stream)) is not None:
        return [interleaved_planes(pages, names, request)]
    if first.is_lsm:
        return [lsm_planes(pages, request)]
    return [bare_pages(pages, page_labels(pages, request), request.name)]


def _stored(
    pages: TiffPages,
    planes: Planes,
    notices: tuple[Notice, ...],
    mentions: tuple[str, ...],
    request: Request,
) -> StoredImage:
    """The planes as an image, its numbers understood and its axes of length one dropped, but for channels."""
    name = request.name
    require_alike(pages, planes.pages, name)
    page = pages.page(planes.pages[0])
    shape, axes = pages.shape(planes.pages[0])
    dtype = np.dtype(page.dtype) if page.dtype is not None else np.dtype("V1")
    table = planes.pages
    calibration, of_values = _values(pages, table, name)
    read: Callable[[int], npt.NDArray[Any]] = planes.read or (lambda n: pages.read(table[n]))
    read, of_type = checked_type(read, planes.pixel_type, dtype, name)
    calibration = planes.calibration or calibration
    if calibration is not None:
        read = _calibrated(read, calibration)
        of_values += (Notice("calibration", f"counts are {calibration}, as the file says"),)
    kept = [
        (letter, n) for letter, n in zip(planes.axes, planes.shape, strict=True) if n != 1 or letter == "C"
    ]
    return StoredImage(
        mentions=mentions,
        shape=(*(n for _, n in kept), *shape),
        axes="".join(letter for letter, _ in kept) + axes,
        inner=len(shape),
        dtype=dtype,
        read_plane=read,
        labels=planes.labels,
        calibration=calibration,
        notices=(*notices, *planes.notices, *of_values, *of_type),
        pixel_size_um=planes.pixel_size_um,
        position_of=planes.position_of,
    )


def _values(
    pages: TiffPages, table: Sequence[int], name: str
) -> tuple[Calibration | None, tuple[Notice, ...]]:
    """What `values_of` finds for all pages of an image."""
    transfers = pages.directories.transfers
    kinds: dict[int, int] = {}
    for number in table:
        kinds.setdefault(transfers[number], number)
    found = [values_of(pages.page(number), name) for number in kinds.values()]
    calibration = found[0][0]
    if any(other != calibration for other, _ in found):
        raise UnreadableImage(
            f"{name} declares different scales or offsets for its pages (GDAL_METADATA); save the counts "
            "themselves"
        )
    notices: dict[str, Notice] = {}
    for notice in (notice for _, of_page in found for notice in of_page):
        notices.setdefault(notice.text.partition("(")[0], notice)  # one of each kind, however they differ
    return calibration, tuple(notices.values())


def _text(pages: TiffPages) -> str:
    """All that programs wrote into the pages in words, in which names of channels may be."""
    page = pages.first
    texts = [page.tags.valueof(code, "") for code in (270, 305, 315)] + [page.description1]
    metadata = page.tags.valueof(IMAGEJ_METADATA)
    if isinstance(metadata, dict):
        texts += [str(value) for key, value in metadata.items() if key in {"Info", "Properties", "Labels"}]
    return "\n".join(text[:_MAX_TEXT] for text in [*texts, *page_texts(pages)] if isinstance(text, str))


def _calibrated(
    read: Callable[[int], npt.NDArray[Any]], calibration: Calibration
) -> Callable[[int], npt.NDArray[Any]]:
    return lambda n: calibration.apply(read(n))
