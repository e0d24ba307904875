"""Which page of a TIFF file shows what, by its OME-XML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod

import numpy as np

from senoscope_client.images import ome_xml as ome
from senoscope_client.images.notices import Notice
from senoscope_client.images.stored import Labels
from senoscope_client.images.tiff import TiffPages
from senoscope_client.images.tiff_micromanager import micromanager_planes
from senoscope_client.images.tiff_page_names import page_labels
from senoscope_client.images.tiff_planes import (
    Incomplete,
    Mismatch,
    Planes,
    Request,
    channel_labels,
    complete_planes,
)
from senoscope_client.wire.messages import Position


def ome_planes(pages: TiffPages, request: Request) -> list[Planes]:
    """The planes of each image that OME-XML declares and the file holds.

    Raises
    ------
    Mismatch
        If it holds none of them, or pages of another shape.
    UnreadableImage
        If none has a complete field of view, or if the XML is not fit to be read.
    """
    xml, name, directories = pages.first.description, request.name, pages.directories
    chain = directories.chain
    ome.check(xml, pages=chain, smallest=directories.smallest, trusted=request.trusted, name=name)
    declared = ome.read_images(xml, pages=chain, file_name=request.file_name, name=name)
    here = [image for image in declared if image.pages]
    if not here:
        micromanager = micromanager_planes(pages, request) if directories.metadata[1] else None
        if micromanager is None:
            raise Mismatch
        return [micromanager]
    notices: list[Notice] = []
    if len(here) < len(declared):
        text = f"the file describes {len(declared)} images, {len(here)} of them are in it"
        notices.append(Notice("incomplete", text))
    if len(here) > 1 and all(prod(image.sizes) == image.samples == 1 for image in here):
        return [_single_planes(pages, here, tuple(notices), request)]
    found: list[Planes] = []
    used: set[int] = set()
    incomplete: list[Incomplete] = []
    for image in here:
        try:
            planes = _ome_image(pages, image, (), request)
        except Incomplete as error:
            incomplete.append(error)
            continue
        used.update(planes.pages)
        found.append(planes)
    if not found:
        raise incomplete[0]
    if incomplete:
        text = f"{len(here)} images were begun, {len(found)} hold complete fields of view and are taken"
        notices.append(Notice("incomplete", text))
    found = [replace(one, notices=(*notices, *one.notices)) for one in found]
    if len(used) < len(pages) and not any(
        notice.code == "incomplete" for one in found for notice in one.notices
    ):
        text = f"{len(pages) - len(used)} of {len(pages)} pages are not described by the OME-XML and left out"
        found = [replace(one, notices=(*one.notices, Notice("pages-left-out", text))) for one in found]
    return found


def _single_planes(
    pages: TiffPages, images: Sequence[ome.OmeImage], notices: tuple[Notice, ...], request: Request
) -> Planes:
    """Images of one plane each, with no sign whether they are channels or fields of view."""
    planes = [_ome_image(pages, image, (), request) for image in images]
    names = [image.channels[0] if image.channels else "" for image in images]
    return Planes(
        "P",
        (len(planes),),
        [one.pages[0] for one in planes],
        Labels("OME-XML", names) if any(names) else None,
        notices,
        pixel_type=images[0].pixel_type,
        pixel_size_um=images[0].pixel_size_um,
        position_of=lambda n: images[n].position((0,) * len(images[n].axes)),
    )


def _ome_image(
    pages: TiffPages, image: ome.OmeImage, notices: tuple[Notice, ...], request: Request
) -> Planes:
    numbers = {index: pages.directories.number(place) for index, place in image.pages.items()}
    found = {index: number for index, number in numbers.items() if number is not None}
    if not found:
        raise Mismatch
    number = next(iter(found.values()))
    page = pages.first if number == 0 else pages.page(number)
    if (page.imagelength, page.imagewidth) != (image.height, image.width):
        raise Mismatch
    axes, sizes = image.axes, image.sizes
    samples = max(page.shaped[0], page.shaped[4])
    if samples > 1 == image.samples and sizes[axes.index("C")] == samples:
        axes, sizes, found = _without_channels(axes, sizes, found)
    elif samples != image.samples:
        raise Mismatch
    page_of = {int(np.ravel_multi_index(index, sizes)): number for index, number in found.items()}
    elsewhere = image.elsewhere > 0
    kept_axes, kept_sizes, planes, table, incomplete = complete_planes(
        axes, sizes, page_of, request, elsewhere
    )
    labels = channel_labels(image.channels, axes, sizes, planes, "OME-XML") or page_labels(
        pages, request, table
    )

    def position_of(n: int) -> Position | None:
        index = np.unravel_index(planes[n], sizes)
        at = dict(zip(axes, map(int, index), strict=True))
        return image.position(tuple(at.get(axis, 0) for axis in image.axes))

    return Planes(
        kept_axes,
        kept_sizes,
        table,
        labels,
        (*notices, *incomplete),
        pixel_type=image.pixel_type,
        pixel_size_um=image.pixel_size_um,
        position_of=position_of,
    )


def _without_channels(
    axes: str, sizes: tuple[int, ...], found: Mapping[tuple[int, ...], int]
) -> tuple[str, tuple[int, ...], dict[tuple[int, ...], int]]:
    """Axes and pages without the channels, where each page has them all as its samples."""
    at = axes.index("C")
    if any(index[at] for index in found):
        raise Mismatch
    kept = {index[:at] + index[at + 1 :]: number for index, number in found.items()}
    return axes[:at] + axes[at + 1 :], sizes[:at] + sizes[at + 1 :], kept
