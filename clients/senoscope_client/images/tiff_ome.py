"""Planes of TIFF files by their OME-XML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod

import numpy as np

from senoscope_client.images import ome_xml as ome
from senoscope_client.images.axes import ReadOptions
from senoscope_client.images.notices import Notice
from senoscope_client.images.stored import Labels
from senoscope_client.images.tiff import TiffPages
from senoscope_client.images.tiff_micromanager import micromanager_planes
from senoscope_client.images.tiff_page_names import page_labels
from senoscope_client.images.tiff_planes import (
    DescriptionMismatch,
    IncompleteImage,
    Planes,
    channel_labels,
    complete_planes,
)
from senoscope_client.wire.messages import Position


def ome_planes(pages: TiffPages, options: ReadOptions) -> list[Planes]:
    """Return the planes of each image that OME-XML declares and the file contains.

    Raises
    ------
    DescriptionMismatch
        If the file contains none of them, or pages of another shape.
    UnreadableImage
        If none has a complete field of view, or if the XML is rejected.
    """
    xml, directories = pages.first.description, pages.directories
    ome.check_ome_xml(xml, directories, options)
    declared = ome.read_images(xml, directories.chain, options)
    here = [image for image in declared if image.pages]
    if not here:
        micromanager = micromanager_planes(pages, options) if directories.metadata[1] else None
        if micromanager is None:
            raise DescriptionMismatch
        return [micromanager]
    notices: list[Notice] = []
    if len(here) < len(declared):
        text = f"the file describes {len(declared)} images and contains {len(here)} of them"
        notices.append(Notice("incomplete", text))
    if len(here) > 1 and all(prod(image.sizes) == image.samples == 1 for image in here):
        return [_single_planes(pages, here, tuple(notices), options)]
    found: list[Planes] = []
    used: set[int] = set()
    incomplete: list[IncompleteImage] = []
    for image in here:
        try:
            planes = _ome_image(pages, image, options)
        except IncompleteImage as error:
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
        undescribed = len(pages) - len(used)
        text = f"{undescribed} of {len(pages)} pages are not described by the OME-XML, and left out"
        found = [replace(one, notices=(*one.notices, Notice("pages-left-out", text))) for one in found]
    return found


def _single_planes(
    pages: TiffPages, images: Sequence[ome.OmeImage], notices: tuple[Notice, ...], options: ReadOptions
) -> Planes:
    """Return images of one plane each, which may be channels or fields of view."""
    planes = [_ome_image(pages, image, options) for image in images]
    names = [image.channels[0] if image.channels else "" for image in images]
    return Planes(
        "P",
        (len(planes),),
        [one.pages[0] for one in planes],
        labels=Labels("OME-XML", names) if any(names) else None,
        notices=notices,
        pixel_type=images[0].pixel_type,
        pixel_size_um=images[0].pixel_size_um,
        position_of=lambda n: images[n].position(0, 0),
    )


def _ome_image(pages: TiffPages, image: ome.OmeImage, options: ReadOptions) -> Planes:
    numbers = {plane: pages.directories.number(place) for plane, place in image.pages.items()}
    page_of = {plane: number for plane, number in numbers.items() if number is not None}
    if not page_of:
        raise DescriptionMismatch
    number = next(iter(page_of.values()))
    page = pages.first if number == 0 else pages.page(number)
    if (page.imagelength, page.imagewidth) != (image.height, image.width):
        raise DescriptionMismatch
    axes, sizes = image.axes, image.sizes
    samples = max(page.shaped[0], page.shaped[4])
    if samples > 1 == image.samples and sizes[axes.index("C")] == samples:
        axes, sizes, page_of = _without_channels(axes, sizes, page_of)
    elif samples != image.samples:
        raise DescriptionMismatch
    planes = complete_planes(axes, sizes, page_of, options, elsewhere=image.elsewhere > 0)
    labels = channel_labels(image.channels, axes, sizes, planes.numbers, "OME-XML")

    def position_of(n: int) -> Position | None:
        at = dict(zip(axes, np.unravel_index(planes.numbers[n], sizes), strict=True))
        return image.position(int(at.get("T", 0)), int(at.get("Z", 0)))

    return replace(
        planes,
        labels=labels or page_labels(pages, options, planes.pages),
        pixel_type=image.pixel_type,
        pixel_size_um=image.pixel_size_um,
        position_of=position_of,
    )


def _without_channels(
    axes: str, sizes: tuple[int, ...], page_of: Mapping[int, int]
) -> tuple[str, tuple[int, ...], dict[int, int]]:
    """Remove the channel axis, because each page has all channels as its samples."""
    at = axes.index("C")
    step = prod(sizes[at + 1 :])
    if any(plane // step % sizes[at] for plane in page_of):
        raise DescriptionMismatch
    kept = {plane // (step * sizes[at]) * step + plane % step: page for plane, page in page_of.items()}
    return axes[:at] + axes[at + 1 :], sizes[:at] + sizes[at + 1 :], kept
