"""Reader of the images in a TIFF file, from its pages and the descriptions that programs write.

All images consist of pages in the file's directories (or, if a program writes one directory for many planes,
of bytes in the file). Further pages that a description declares were planned and never acquired; pages that
it does not declare are reported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from senoscope_client.errors import AmbiguousAxes, UnreadableImage
from senoscope_client.images.axes import ReadOptions
from senoscope_client.images.calibration import Calibration
from senoscope_client.images.channel_names import mentioned_channels
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
from senoscope_client.images.tiff_planes import (
    DescriptionMismatch,
    Planes,
    bare_pages,
    require_alike,
)
from senoscope_client.images.tiff_values import check_pixel_type, interpret_values

_MAX_TEXT: Final = 4 * 1024 * 1024
_UIC2: Final = 33629
_FOUR_GIB: Final = 2**32
_MISMATCH: Final = (
    "has a description that does not match its pages: it was cut off or edited, or is one file of several. "
    "Save the stack in one file, or pass axes= with a letter for each axis, such as PCYX"
)


def open_images(stream: BinaryIO, size: int, limits: WalkLimits, options: ReadOptions) -> list[StoredImage]:
    """Open the images in a TIFF file; there are several only if OME-XML declares them.

    Raises
    ------
    AmbiguousAxes
        If it holds several images, or its description does not match its pages.
    UnreadableImage
        If it is damaged, or its numbers are not counts.
    TooManyFields
        If it has too many pages.
    """
    name = options.name
    directories = list_pages(stream, size, limits, name)
    if not len(directories):
        raise UnreadableImage(f"{name} is a TIFF file without an image; save it again")
    pages = TiffPages(stream, size, directories, name)
    if pages.first.is_lsm and size >= _FOUR_GIB:
        raise UnreadableImage(
            f"{name} is an LSM file of over 4 GiB, whose offsets are cut off; save it as OME-TIFF"
        )
    others, unreduced = directories.others, directories.unreduced
    left_out = {
        "in sub-directories are left out, though they are not declared as reduced copies": others,
        "of full size are left out, because they are declared as reduced copies or masks": unreduced,
    }
    notices = [Notice("pages-left-out", f"{count} pages {why}") for why, count in left_out.items() if count]
    try:
        found = _describe_planes(pages, stream, options)
    except DescriptionMismatch:
        if options.axes is None:
            raise AmbiguousAxes(f"{name} {_MISMATCH}") from None
        text = "the description of the file does not match its pages, and is not used"
        notices.append(Notice("pages-left-out", text))
        found = [bare_pages(pages, page_labels(pages, options))]
    mentions = tuple(mentioned_channels(_metadata_text(pages), options.spec.channels))
    return [_stored_image(pages, planes, tuple(notices), mentions, options) for planes in found]


def _describe_planes(  # noqa: PLR0911 - one return for each kind of file
    pages: TiffPages, stream: BinaryIO, options: ReadOptions
) -> list[Planes]:
    """Return the planes by the description of the program that wrote the file."""
    first = pages.first
    if first.is_ome:
        return ome_planes(pages, options)
    if first.is_imagej:
        return [imagej_planes(pages, options)]
    if first.is_shaped:
        return [shaped_planes(pages, options)]
    if pages.directories.metadata[1]:
        micromanager = micromanager_planes(pages, options)
        if micromanager is not None:
            return [micromanager]
    if first.is_stk and first.tags.get(_UIC2) is not None and first.tags[_UIC2].count > 1:
        planes = int(first.tags[_UIC2].count)
        read = pages.contiguous_planes(planes, "MetaMorph")
        # Planes are depths or times, because MetaMorph writes one file for each wavelength.
        return [Planes("Z", (planes,), [0] * planes, read=read)]
    if first.is_fluoview:
        return [fluoview_planes(pages)]
    if (names := scanimage_channels(pages, stream)) is not None:
        return [interleaved_planes(pages, names, options)]
    if first.is_lsm:
        return [lsm_planes(pages, options)]
    return [bare_pages(pages, page_labels(pages, options))]


def _stored_image(
    pages: TiffPages,
    planes: Planes,
    notices: tuple[Notice, ...],
    mentions: tuple[str, ...],
    options: ReadOptions,
) -> StoredImage:
    """Return the planes as an image, with its calibration, without axes of length one except for channels."""
    name = options.name
    require_alike(pages, planes.pages)
    page = pages.page(planes.pages[0])
    shape, axes = pages.shape(planes.pages[0])
    dtype = np.dtype(page.dtype) if page.dtype is not None else np.dtype("V1")
    table = planes.pages
    calibration, value_notices = _interpret_all_values(pages, table, name)
    read: Callable[[int], npt.NDArray[Any]] = planes.read or (lambda n: pages.read(table[n]))
    read, type_notices = check_pixel_type(read, planes.pixel_type, dtype, name)
    calibration = planes.calibration or calibration
    if calibration is not None:
        value_notices += (Notice("calibration", f"counts are {calibration}, as the file declares"),)

    def read_counts(n: int) -> npt.NDArray[Any]:
        return read(n) if calibration is None else calibration.apply(read(n))

    kept = [
        (letter, n) for letter, n in zip(planes.axes, planes.shape, strict=True) if n != 1 or letter == "C"
    ]
    return StoredImage(
        mentions=mentions,
        shape=(*(n for _, n in kept), *shape),
        axes="".join(letter for letter, _ in kept) + axes,
        inner=len(shape),
        dtype=dtype,
        read_plane=read_counts,
        labels=planes.labels,
        calibration=calibration,
        notices=(*notices, *planes.notices, *value_notices, *type_notices),
        pixel_size_um=planes.pixel_size_um,
        position_of=planes.position_of,
    )


def _interpret_all_values(
    pages: TiffPages, table: Sequence[int], name: str
) -> tuple[Calibration | None, tuple[Notice, ...]]:
    """Return the result of `interpret_values` for all pages of an image."""
    transfers = pages.directories.transfers
    kinds: dict[int, int] = {}
    for number in table:
        kinds.setdefault(transfers[number], number)
    found = [interpret_values(pages.page(number), name) for number in kinds.values()]
    calibration = found[0][0]
    if any(other != calibration for other, _ in found):
        raise UnreadableImage(
            f"{name} declares different scales or offsets for its pages (GDAL_METADATA); save the counts "
            "themselves"
        )
    notices: dict[str, Notice] = {}
    for notice in (notice for _, of_page in found for notice in of_page):
        notices.setdefault(notice.text.partition("(")[0], notice)  # one of each kind
    return calibration, tuple(notices.values())


def _metadata_text(pages: TiffPages) -> str:
    """Return all texts in the pages, which may contain names of channels."""
    page = pages.first
    texts = [page.tags.valueof(code, "") for code in (270, 305, 315)] + [page.description1]
    metadata = page.tags.valueof(IMAGEJ_METADATA)
    if isinstance(metadata, dict):
        texts += [str(value) for key, value in metadata.items() if key in {"Info", "Properties", "Labels"}]
    return "\n".join(text[:_MAX_TEXT] for text in [*texts, *page_texts(pages)] if isinstance(text, str))
