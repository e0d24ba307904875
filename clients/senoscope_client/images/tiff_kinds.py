"""Planes of TIFF files by the descriptions of ImageJ, tifffile, FluoView, Zeiss and ScanImage."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any, BinaryIO, Final

import numpy as np
import tifffile

from senoscope_client.errors import AmbiguousAxes, UnreadableImage
from senoscope_client.images.axes import ReadOptions
from senoscope_client.images.calibration import imagej_calibration
from senoscope_client.images.channel_names import scanimage_names
from senoscope_client.images.notices import Notice
from senoscope_client.images.stored import Labels
from senoscope_client.images.tiff import TiffPages
from senoscope_client.images.tiff_page_names import page_labels
from senoscope_client.images.tiff_planes import (
    DescriptionMismatch,
    Planes,
    bare_pages,
    channel_labels,
    complete_planes,
    declared_planes,
    require_alike,
)

IMAGEJ_METADATA: Final = 50839
_MAX_TEXT: Final = 4 * 1024 * 1024
_SCANIMAGE_MAGIC: Final = 0x07030301
_IMAGEJ_SIZES: Final = {"T": "frames", "Z": "slices", "C": "channels"}
# Axes of ImageJ's orders of planes, the slowest first.
_IMAGEJ_ORDERS: Final = {"ctz": "ZTC", "zct": "TCZ", "ztc": "CTZ", "tcz": "ZCT", "tzc": "CZT"}


def imagej_planes(pages: TiffPages, options: ReadOptions) -> Planes:
    """Return the planes of a file of ImageJ, whose first page describes all of them.

    Raises
    ------
    DescriptionMismatch
        If it describes fewer pages than exist, or the description is invalid.
    UnreadableImage
        If planes are missing in the file, or its numbers are not counts.
    """
    page, name = pages.first, options.name
    lines = str(page.imagej_description or "").splitlines()
    entries = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines)}
    try:
        sizes = {axis: int(entries.get(key, 1)) for axis, key in _IMAGEJ_SIZES.items()}
        images = int(entries.get("images", 1))
    except ValueError:
        raise DescriptionMismatch from None
    if min(*sizes.values(), images) < 1:
        raise DescriptionMismatch
    samples = max(page.shaped[0], page.shaped[4])
    if samples > 1 and sizes["C"] == samples:  # the samples are declared as channels
        sizes["C"] = 1
    axes = _IMAGEJ_ORDERS.get(entries.get("order", "").lower(), "TZC")
    shape = tuple(sizes[axis] for axis in axes)
    if prod(shape) == 1 and max(images, len(pages)) > 1:
        axes, shape = "I", (max(images, len(pages)),)
    if len(pages) > prod(shape):
        raise DescriptionMismatch
    planes = declared_planes(pages, axes, shape, options, "ImageJ")
    dtype = np.dtype(page.dtype) if page.dtype is not None else np.dtype("V1")
    calibration = imagej_calibration(entries, dtype, name) if samples == 1 else None
    labels = _imagej_labels(page, planes.numbers)
    if labels is None and planes.read is None:
        labels = page_labels(pages, options, planes.pages)
    # A single channel of ImageJ is ignored: its labels may name a different one for each slice.
    used = [(axis, n) for axis, n in zip(planes.axes, planes.shape, strict=True) if (axis, n) != ("C", 1)]
    return replace(
        planes,
        axes="".join(axis for axis, _ in used),
        shape=tuple(n for _, n in used),
        labels=labels,
        calibration=calibration,
    )


def _imagej_labels(page: Any, planes: Sequence[int]) -> Labels | None:
    metadata = page.tags.valueof(IMAGEJ_METADATA)
    labels = metadata.get("Labels") if isinstance(metadata, dict) else None
    if not isinstance(labels, (list, tuple)) or not any(labels):
        return None
    texts = [str(label) for label in labels]
    return Labels("ImageJ labels", [texts[n] if n < len(texts) else "" for n in planes])


def shaped_planes(pages: TiffPages, options: ReadOptions) -> Planes:
    """Return the planes of a file of tifffile, which writes shape, axes and names as JSON."""
    page = pages.first
    text = str(page.shaped_description or "")
    if len(text) > _MAX_TEXT:
        raise DescriptionMismatch
    try:
        entries = tifffile.tifffile.shaped_description_metadata(text)
        shape = tuple(int(n) for n in entries["shape"])
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        raise DescriptionMismatch from None
    if not shape or min(shape) < 1:
        raise DescriptionMismatch
    plane = _squeezed(page.shape)
    inner = next((k for k in range(2, len(shape) + 1) if _squeezed(shape[-k:]) == plane), 0)
    if not inner:
        raise DescriptionMismatch
    axes = entries.get("axes")
    axes = axes.upper() if isinstance(axes, str) and len(axes) == len(shape) else "Q" * len(shape)
    lead = len(shape) - inner
    sizes, letters = shape[:lead], axes[:lead]
    if len(pages) > prod(sizes):
        _reject_further_pages(pages, prod(sizes))
    planes = declared_planes(pages, letters, sizes, options, "tifffile")
    try:
        names = entries["Channel"]["Name"]
    except (KeyError, TypeError):
        names = None
    names = tuple(map(str, names)) if isinstance(names, list) else None
    labels = channel_labels(names, letters, sizes, planes.numbers, "the file's description")
    if labels is None and planes.read is None:
        labels = page_labels(pages, options, planes.pages)
    return replace(planes, labels=labels)


def _squeezed(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(n for n in shape if n != 1)


def _reject_further_pages(pages: TiffPages, first: int) -> None:
    """Raise the error for pages after those that a description declares: further images, or a mismatch."""
    require_alike(pages, range(len(pages)))
    following = pages.page(first)
    if following.is_shaped:
        shapes = ", ".join("x".join(map(str, pages.shape(n)[0])) for n in (0, first))
        raise AmbiguousAxes(f"{pages.name} holds several images ({shapes}); save one stack per file")
    raise DescriptionMismatch


def fluoview_planes(pages: TiffPages) -> Planes:
    """Return the planes of a file of FluoView, in the order of its metadata if these match the pages."""
    try:
        dimensions = pages.file.fluoview_metadata["Dimensions"][::-1]
        letters = "".join(tifffile.TIFF.MM_DIMENSIONS.get(one[0].upper(), "Q") for one in dimensions)
        shape = tuple(int(one[1]) for one in dimensions)
    except (KeyError, TypeError, IndexError, ValueError):
        return bare_pages(pages)
    lead = [(letter, n) for letter, n in zip(letters, shape, strict=True) if letter not in "YX"]
    sizes = tuple(n for _, n in lead)
    if not sizes or min(sizes) < 1 or prod(sizes) != len(pages):
        return bare_pages(pages)
    return Planes("".join(letter for letter, _ in lead), sizes, range(len(pages)))


def lsm_planes(pages: TiffPages, options: ReadOptions) -> Planes:
    """Return the planes of a Zeiss LSM file, each of which has all channels as its samples.

    Its pages are tiles, positions, times and depths; the depth changes fastest.
    """
    entries = pages.first.tags.valueof(34412)
    entries = entries if isinstance(entries, dict) else {}
    try:
        names = tuple(map(str, entries["ChannelColors"]["ColorNames"]))
    except (KeyError, TypeError):
        names = ()
    labels = Labels("the LSM file's metadata", samples=names) if names else None
    if entries.get("DimensionChannels") != max(pages.first.shaped[0], pages.first.shaped[4]):
        return bare_pages(pages, labels)
    require_alike(pages, range(len(pages)))
    sizes = tuple(max(1, int(entries.get(f"Dimension{key}", 1))) for key in ("M", "P", "Time", "Z"))
    if prod(sizes) < len(pages):
        return Planes("TC", (len(pages), 1), range(len(pages)), labels=labels)
    page_of = {n: n for n in range(len(pages))}
    return replace(complete_planes("MPTZC", (*sizes, 1), page_of, options), labels=labels)


def scanimage_channels(pages: TiffPages, stream: BinaryIO) -> tuple[str, ...] | None:
    """Return the channels of a file of ScanImage, in the order of its pages; None for other files."""
    texts = [str(pages.first.tags.valueof(tag, "") or "") for tag in (270, 305, 315)]
    stream.seek(16)
    header = stream.read(16)
    if len(header) == 16:
        magic, _, length, _ = struct.unpack("<IIII", header)
        if magic == _SCANIMAGE_MAGIC and length < _MAX_TEXT:
            texts.append(stream.read(length).decode("utf-8", "replace"))
    text = "\n".join(texts)
    if not any(mark in text for mark in ("SI.", "scanimage.", "state.acq", "channelName")):
        return None
    return scanimage_names(text)


def interleaved_planes(pages: TiffPages, names: tuple[str, ...], options: ReadOptions) -> Planes:
    """Return the planes of pages whose channel changes from each page to the next."""
    count, channels = len(pages), len(names)
    require_alike(pages, range(count))
    fovs, rest = divmod(count, channels)
    if not fovs:
        raise UnreadableImage(
            f"{options.name} holds {count} pages, fewer than the {channels} channels of one field of view"
        )
    notices: tuple[Notice, ...] = ()
    if rest:
        text = (
            f"{fovs + 1} fields of view were begun, {fovs} are complete and taken; {rest} pages are left out"
        )
        notices = (Notice("incomplete", text),)
    labels = Labels("ScanImage's metadata", names * fovs)
    return Planes("PC", (fovs, channels), range(fovs * channels), labels=labels, notices=notices)
