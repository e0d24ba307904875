"""Which page of a TIFF file shows what, by the descriptions that programs write, and the pages there are.

Every image that comes out of here consists of pages that the file's directories name (or, where a program
writes one directory for many planes, of bytes that are in the file). What a description declares beyond
them was planned and never taken; what it does not mention is reported.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt
import tifffile

from senoscope_client import ome
from senoscope_client._foreign import tellable
from senoscope_client.calibration import Calibration, imagej_calibration
from senoscope_client.channel_names import mentioned, scanimage_names
from senoscope_client.errors import AmbiguousAxes, UnreadableImage
from senoscope_client.ifd import WalkLimits, list_pages
from senoscope_client.notices import Notice
from senoscope_client.stored import Labels, StoredImage
from senoscope_client.tiff import TiffPages
from senoscope_client.tiff_values import checked_type, values_of
from senoscope_client.wire import Position

_MAX_PLANES: Final = 1_000_000
_MAX_TEXT: Final = 4 * 1024 * 1024
_SCANIMAGE_MAGIC: Final = 0x07030301
_UIC2: Final = 33629
_IMAGEJ_METADATA: Final = 50839
_FOUR_GIB: Final = 2**32
# Axes, the slowest first, of ImageJ's orders of planes.
_IMAGEJ_ORDERS: Final = {"ctz": "ZTC", "zct": "TCZ", "ztc": "CTZ", "tcz": "ZCT", "tzc": "CZT"}

_MISMATCH: Final = (
    "describes other pages than it holds: it was cut off, edited, or is one file of several. Write the stack "
    "into one file, or pass axes= with a letter for each axis, as in PCYX"
)


@dataclass(frozen=True)
class Request:
    """What is asked of a file.

    Attributes
    ----------
    channels : tuple of str
        That the ensemble takes.
    axes_told : bool
        Whether the user tells the axes, so that the file need not.
    trusted : bool
        Whether the file is the user's own, and may be of any length.
    file_name : str or None
        As its own metadata may call it.
    name : str
        Of the file, for messages.
    """

    channels: tuple[str, ...]
    axes_told: bool
    trusted: bool
    file_name: str | None
    name: str


@dataclass(frozen=True)
class _Planes:
    """Planes of one image, in C order of the leading axes.

    Attributes
    ----------
    axes, shape
        The leading axes.
    pages : sequence of int
        The page of each plane.
    read : callable or None
        Reads a plane; default: its page.
    """

    axes: str
    shape: tuple[int, ...]
    pages: Sequence[int]
    labels: Labels | None = None
    notices: tuple[Notice, ...] = ()
    read: Callable[[int], npt.NDArray[Any]] | None = None
    calibration: Calibration | None = None
    pixel_type: str = ""
    pixel_size_um: float | None = None
    position_of: Callable[[int], Position | None] | None = None


class _Mismatch(Exception):
    """A description that does not fit the pages."""


class _Incomplete(UnreadableImage):
    """An image of which not one field of view is complete."""


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
    try:
        found = _described(pages, stream, request)
    except _Mismatch:
        if not request.axes_told:
            raise AmbiguousAxes(f"{name} {_MISMATCH}") from None
        text = "the file describes other pages than it holds; its description is not used"
        notices.append(Notice("pages-left-out", text))
        found = [_bare(pages, _page_labels(pages), name)]
    mentions = tuple(mentioned(_text(pages.first), request.channels))
    return [_stored(pages, planes, tuple(notices), mentions, request) for planes in found]


def _described(  # noqa: PLR0911 - one return for each kind of file
    pages: TiffPages, stream: BinaryIO, request: Request
) -> list[_Planes]:
    first = pages.first
    if first.is_ome:
        return _ome(pages, request)
    if first.is_imagej:
        return [_imagej(pages, request)]
    if first.is_shaped:
        return [_shaped(pages, request)]
    if pages.directories.metadata[1]:
        micromanager = _micromanager(pages, request)
        if micromanager is not None:
            return [micromanager]
    if first.is_stk and first.tags.get(_UIC2) is not None and first.tags[_UIC2].count > 1:
        planes = int(first.tags[_UIC2].count)
        read = pages.contiguous(planes, "MetaMorph")
        return [_Planes("Q", (planes,), [0] * planes, read=read)]
    if first.is_fluoview:
        return [_fluoview(pages, request)]
    if (names := _scanimage(pages, stream)) is not None:
        return [_interleaved(pages, names, request)]
    labels = _lsm_names(pages) if first.is_lsm else _page_labels(pages)
    return [_bare(pages, labels, request.name)]


def _stored(
    pages: TiffPages,
    planes: _Planes,
    notices: tuple[Notice, ...],
    mentions: tuple[str, ...],
    request: Request,
) -> StoredImage:
    """The planes as an image, its numbers understood and its axes of length one dropped."""
    name = request.name
    _require_alike(pages, planes.pages, name)
    page = pages.page(planes.pages[0])
    shape, axes = pages.shape(planes.pages[0])
    dtype = np.dtype(page.dtype) if page.dtype is not None else np.dtype("V1")
    calibration, of_values = values_of(page, name)
    table = planes.pages
    read: Callable[[int], npt.NDArray[Any]] = planes.read or (lambda n: pages.read(table[n]))
    read, of_type = checked_type(read, planes.pixel_type, dtype, name)
    calibration = planes.calibration or calibration
    if calibration is not None:
        read = _calibrated(read, calibration)
        of_values += (Notice("calibration", f"counts are {calibration}, as the file says"),)
    kept = [(letter, n) for letter, n in zip(planes.axes, planes.shape, strict=True) if n != 1]
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


def _text(page: Any) -> str:
    """All that programs wrote into the first page in words, in which names of channels may be."""
    texts = [page.tags.valueof(code, "") for code in (270, 305, 315)] + [page.description1]
    metadata = page.tags.valueof(_IMAGEJ_METADATA)
    if isinstance(metadata, dict):
        texts += [str(value) for key, value in metadata.items() if key in {"Info", "Properties", "Labels"}]
    return "\n".join(text[:_MAX_TEXT] for text in texts if isinstance(text, str))


def _calibrated(
    read: Callable[[int], npt.NDArray[Any]], calibration: Calibration
) -> Callable[[int], npt.NDArray[Any]]:
    return lambda n: calibration.apply(read(n))


def _require_alike(pages: TiffPages, numbers: Sequence[int], name: str) -> None:
    meanings = pages.directories.meanings
    kinds: dict[int, int] = {}
    for number in numbers:
        kinds.setdefault(meanings[number], number)
    if len(kinds) < 2:
        return
    chosen = list(kinds.values())[:5]
    shapes = ", ".join(map(pages.kind, chosen))
    turned = sorted({pages.orientation(number) for number in chosen})
    if len(turned) > 1:
        raise AmbiguousAxes(
            f"{name} has pages of different orientation (tag 274: {', '.join(map(str, turned))}), of shapes "
            f"{shapes}; save them all alike"
        )
    raise AmbiguousAxes(f"{name} holds {len(kinds)} images ({shapes}); save one stack per file")


def _bare(pages: TiffPages, labels: Labels | None, name: str) -> _Planes:
    """All pages, of which nothing is known."""
    count = len(pages)
    _require_alike(pages, range(count), name)
    return _Planes("Q", (count,), range(count), labels)


# --- planes that were planned, and pages that there are


def _present(
    axes: str, sizes: tuple[int, ...], page_of: Mapping[int, int], request: Request, elsewhere: bool = False
) -> tuple[str, tuple[int, ...], list[int], list[int], tuple[Notice, ...]]:
    """The planes of complete fields of view.

    Parameters
    ----------
    axes, sizes
        The leading axes as planned.
    page_of : mapping of int to int
        By the number of a plane in C order, its page.
    elsewhere : bool
        Whether other planes are said to be in other files.

    Returns
    -------
    axes, sizes
        As planned where all planes are there, else a list of fields of view, P, with their channels, C.
    planes, pages : list of int
        The number of each plane that is kept, and its page.
    notices : tuple of Notice
    """
    planned = prod(sizes)
    if len(page_of) == planned:
        return axes, sizes, list(range(planned)), [page_of[n] for n in range(planned)], ()
    if planned > max(_MAX_PLANES, 100 * len(page_of)):
        raise UnreadableImage(
            f"{request.name} describes {planned} pages, but holds {len(page_of)}; write it again"
        )
    numbers = np.arange(planned).reshape(sizes)
    numbers = np.moveaxis(numbers, axes.index("C"), -1) if "C" in axes else numbers[..., None]
    numbers = numbers.reshape(-1, numbers.shape[-1])
    there = np.zeros(planned, bool)
    there[list(page_of)] = True
    complete = numbers[there[numbers].all(axis=1)]
    left_out = len(page_of) - complete.size
    what = "fields of view" if "C" in axes else "pages"
    where = " in this file" if elsewhere else ""
    if not len(complete):
        raise _Incomplete(
            f"{request.name} holds no complete field of view: {len(numbers)} were planned, of whose "
            f"{planned} pages {len(page_of)} are there{where}; write it again"
        )
    text = f"{len(numbers)} {what} were planned, {len(complete)} are complete{where} and taken"
    if left_out:
        text += f"; {left_out} pages of incomplete ones are left out"
    planes = [int(n) for n in complete.ravel()]
    kept = ("PC", complete.shape) if "C" in axes else ("Q", complete.shape[:1])
    return (*kept, planes, [page_of[n] for n in planes], (Notice("incomplete", text),))


def _channel_labels(
    names: Sequence[str] | None, axes: str, sizes: tuple[int, ...], planes: Sequence[int], source: str
) -> Labels | None:
    """Labels of planes by the names of the channels; of samples where the planes have no channels."""
    if not names or not any(names):
        return None
    if "C" not in axes or sizes[axes.index("C")] != len(names):
        return Labels(source, samples=tuple(names))
    step = prod(sizes[axes.index("C") + 1 :])
    return Labels(source, [names[n // step % len(names)] for n in planes])


# --- kinds of files


def _ome(pages: TiffPages, request: Request) -> list[_Planes]:
    xml, name, directories = pages.first.description, request.name, pages.directories
    chain = directories.chain
    ome.check(xml, pages=chain, smallest=directories.smallest, trusted=request.trusted, name=name)
    declared = ome.read_images(xml, pages=chain, file_name=request.file_name, name=name)
    here = [image for image in declared if image.pages]
    if not here:
        micromanager = _micromanager(pages, request) if directories.metadata[1] else None
        if micromanager is None:
            raise _Mismatch
        return [micromanager]
    notices: list[Notice] = []
    if len(here) < len(declared):
        text = f"the file describes {len(declared)} images, {len(here)} of them are in it"
        notices.append(Notice("incomplete", text))
    if len(here) > 1 and all(prod(image.sizes) == image.samples == 1 for image in here):
        return [_single_planes(pages, here, tuple(notices), request)]
    found: list[_Planes] = []
    used: set[int] = set()
    incomplete: list[_Incomplete] = []
    for image in here:
        try:
            planes = _ome_image(pages, image, (), request)
        except _Incomplete as error:
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
) -> _Planes:
    """Images of one plane each, of which nothing tells whether they are channels or fields of view."""
    planes = [_ome_image(pages, image, (), request) for image in images]
    names = [image.channels[0] if image.channels else "" for image in images]
    return _Planes(
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
) -> _Planes:
    numbers = {index: pages.directories.number(place) for index, place in image.pages.items()}
    found = {index: number for index, number in numbers.items() if number is not None}
    if not found:
        raise _Mismatch
    number = next(iter(found.values()))
    page = pages.first if number == 0 else pages.page(number)
    if (page.imagelength, page.imagewidth) != (image.height, image.width):
        raise _Mismatch
    axes, sizes = image.axes, image.sizes
    samples = max(page.shaped[0], page.shaped[4])
    if samples > 1 == image.samples and sizes[axes.index("C")] == samples:
        axes, sizes, found = _without_channels(axes, sizes, found)
    elif samples != image.samples:
        raise _Mismatch
    page_of = {int(np.ravel_multi_index(index, sizes)): number for index, number in found.items()}
    elsewhere = image.elsewhere > 0
    kept_axes, kept_sizes, planes, table, incomplete = _present(axes, sizes, page_of, request, elsewhere)
    labels = _channel_labels(image.channels, axes, sizes, planes, "OME-XML") or _page_labels(pages, table)

    def position_of(n: int) -> Position | None:
        index = np.unravel_index(planes[n], sizes)
        at = dict(zip(axes, map(int, index), strict=True))
        return image.position(tuple(at.get(axis, 0) for axis in image.axes))

    return _Planes(
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
        raise _Mismatch
    kept = {index[:at] + index[at + 1 :]: number for index, number in found.items()}
    return axes[:at] + axes[at + 1 :], sizes[:at] + sizes[at + 1 :], kept


def _imagej(pages: TiffPages, request: Request) -> _Planes:
    page, name = pages.first, request.name
    lines = str(page.imagej_description or "").splitlines()
    told = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines)}
    try:
        sizes = {
            axis: int(told.get(key, 1))
            for axis, key in zip("TZC", ("frames", "slices", "channels"), strict=True)
        }
        images = int(told.get("images", 1))
    except ValueError:
        raise _Mismatch from None
    if min(*sizes.values(), images) < 1:
        raise _Mismatch
    samples = max(page.shaped[0], page.shaped[4])
    if samples > 1 and sizes["C"] == samples:  # samples that are declared as channels
        sizes["C"] = 1
    axes = _IMAGEJ_ORDERS.get(told.get("order", "").lower(), "TZC")
    shape = tuple(sizes[axis] for axis in axes)
    if prod(shape) == 1 and max(images, len(pages)) > 1:
        axes, shape = "I", (max(images, len(pages)),)
    planned = prod(shape)
    read = None
    notices: tuple[Notice, ...] = ()
    planes: list[int]
    table: Sequence[int]
    if len(pages) > planned:
        raise _Mismatch
    kept, lengths = axes, shape
    if len(pages) == 1 < planned and pages.is_contiguous:
        read = pages.contiguous(_plausible(planned, pages, request), "ImageJ")
        planes, table = list(range(planned)), [0] * planned
    else:
        page_of = {n: n for n in range(len(pages))}
        kept, lengths, planes, table, notices = _present(axes, shape, page_of, request)
    dtype = np.dtype(page.dtype) if page.dtype is not None else np.dtype("V1")
    calibration = imagej_calibration(told, dtype, name) if samples == 1 else None
    labels = _imagej_labels(page, planes) or (None if read else _page_labels(pages, table))
    return _Planes(kept, lengths, table, labels, notices, read, calibration)


def _plausible(planned: int, pages: TiffPages, request: Request) -> int:
    """A number of planes that a file of this size can hold."""
    if planned > max(1, pages.size // max(1, int(pages.first.nbytes))) + 1:
        raise UnreadableImage(
            f"{request.name} describes {planned} pages, but is cut off: it has room for fewer; write it again"
        )
    return planned


def _imagej_labels(page: Any, planes: Sequence[int]) -> Labels | None:
    metadata = page.tags.valueof(_IMAGEJ_METADATA)
    labels = metadata.get("Labels") if isinstance(metadata, dict) else None
    if not isinstance(labels, (list, tuple)) or not any(labels):
        return None
    texts = [str(label) for label in labels]
    return Labels("ImageJ labels", [texts[n] if n < len(texts) else "" for n in planes])


def _shaped(pages: TiffPages, request: Request) -> _Planes:
    """As tifffile itself writes: a shape, and perhaps axes and names, as JSON."""
    page = pages.first
    text = str(page.shaped_description or "")
    if len(text) > _MAX_TEXT:
        raise _Mismatch
    try:
        told = tifffile.tifffile.shaped_description_metadata(text)
        shape = tuple(int(n) for n in told["shape"])
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        raise _Mismatch from None
    if not shape or min(shape) < 1:
        raise _Mismatch
    inner = next(
        (
            k
            for k in range(len(shape) + 1)
            if _squeezed(shape[len(shape) - k :]) == _squeezed(page.shape) and k >= 2
        ),
        0,
    )
    if not inner:
        raise _Mismatch
    axes = told.get("axes")
    axes = axes.upper() if isinstance(axes, str) and len(axes) == len(shape) else "Q" * len(shape)
    lead = len(shape) - inner
    sizes, letters = shape[:lead], axes[:lead]
    planned = prod(sizes)
    count = len(pages)
    if count > planned:
        _refuse_several(pages, planned, request.name)
    kept, lengths, read = letters, sizes, None
    notices: tuple[Notice, ...] = ()
    planes: list[int]
    table: Sequence[int]
    if count == 1 < planned and pages.is_contiguous:
        read = pages.contiguous(_plausible(planned, pages, request), "tifffile")
        planes, table = list(range(planned)), [0] * planned
    else:
        page_of = {n: n for n in range(count)}
        kept, lengths, planes, table, notices = _present(letters, sizes, page_of, request)
    try:
        names = told["Channel"]["Name"]
    except (KeyError, TypeError):
        names = None
    names = tuple(map(str, names)) if isinstance(names, list) else None
    labels = _channel_labels(names, letters, sizes, planes, "the file's description")
    return _Planes(kept, lengths, table, labels, notices, read)


def _squeezed(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(n for n in shape if n != 1)


def _refuse_several(pages: TiffPages, first: int, name: str) -> None:
    """Refuse pages after those that a description declares, as further images or as what they are."""
    _require_alike(pages, range(len(pages)), name)
    following = pages.page(first)
    if following.is_shaped:
        shapes = ", ".join("x".join(map(str, pages.shape(n)[0])) for n in (0, first))
        raise AmbiguousAxes(f"{name} holds several images ({shapes}); save one stack per file")
    raise _Mismatch


def _micromanager(pages: TiffPages, request: Request) -> _Planes | None:
    """Pages that each say which channel of which field of view they are; None if they do not all say it."""
    _require_alike(pages, range(len(pages)), request.name)
    fovs: dict[tuple[object, ...], dict[str, int]] = {}
    times: dict[tuple[object, ...], int] = {}
    for n in range(len(pages)):
        key, channel = _event(pages.metadata(n))
        if channel is None:
            return None
        if channel in fovs.get((key, times.get(key, 0)), {}):
            times[key] = times.get(key, 0) + 1  # the same place once more
        fovs.setdefault((key, times.get(key, 0)), {})[channel] = n
    names = list(dict.fromkeys(name for channels in fovs.values() for name in channels))
    wanted = [name for name in names if name in request.channels]
    needed = wanted if len(wanted) == len(request.channels) else names
    complete = [channels for channels in fovs.values() if all(name in channels for name in needed)]
    left_out = len(pages) - sum(len(channels) for channels in complete)
    if not complete:
        raise UnreadableImage(
            f"{request.name} holds no complete field of view: of {len(fovs)}, none has a page of each of its "
            f"channels ({tellable(', '.join(names), 200)})"
        )
    # Channels that only some fields of view have are not a channel of the stack.
    names = [name for name in names if all(name in channels for channels in complete)]
    notices: tuple[Notice, ...] = ()
    if len(complete) < len(fovs):
        text = f"{len(fovs)} fields of view were begun, {len(complete)} are complete and taken"
        text += f"; {left_out} pages of incomplete ones are left out"
        notices = (Notice("incomplete", text),)
    table = [channels[name] for channels in complete for name in names]
    labels = Labels("Micro-Manager's metadata", names * len(complete))
    size = (pages.metadata(table[0]) or {}).get("PixelSizeUm")
    return _Planes(
        "PC",
        (len(complete), len(names)),
        table,
        labels,
        notices,
        pixel_size_um=float(size) if isinstance(size, int | float) and size > 0 else None,
        position_of=lambda n: _stage(pages.metadata(table[n])),
    )


def _event(metadata: Mapping[str, Any] | None) -> tuple[tuple[object, ...], str | None]:
    """Which field of view a page belongs to, and its channel; without one, None."""
    if metadata is None:
        return (), None
    axes = metadata.get("Axes")
    axes = axes if isinstance(axes, dict) else {}
    channel = next((key for key in axes if key.lower() == "channel"), "")
    name = metadata.get("Channel")
    if not isinstance(name, str) or not name:
        name = axes.get(channel)
    place: dict[str, object] = {key: str(value) for key, value in axes.items() if key != channel}
    if not axes:
        for keys in (
            ("PositionIndex", "Position", "PositionName"),
            ("FrameIndex", "Frame"),
            ("SliceIndex", "Slice"),
        ):
            place[keys[0]] = next((str(metadata[key]) for key in keys if key in metadata), "")
    return tuple(sorted(place.items())), None if name is None else str(name)


def _stage(metadata: Mapping[str, Any] | None) -> Position | None:
    told = metadata or {}
    x, y, z = (
        next((told[key] for key in (f"{axis}PositionUm", f"{axis}Position_um_Intended") if key in told), None)
        for axis in "XYZ"
    )
    try:
        return (
            Position(x=float(x), y=float(y), z=float(z or 0.0)) if x is not None and y is not None else None
        )
    except (TypeError, ValueError):
        return None


def _page_labels(pages: TiffPages, table: Sequence[int] | None = None) -> Labels | None:
    """The channel that Micro-Manager's metadata of each page name."""
    if not pages.directories.metadata[1]:
        return None
    numbers = range(len(pages)) if table is None else table
    names = [_event(pages.metadata(n))[1] or "" for n in numbers]
    return Labels("Micro-Manager's metadata", names) if any(names) else None


def _fluoview(pages: TiffPages, request: Request) -> _Planes:
    try:
        dimensions = pages.file.fluoview_metadata["Dimensions"][::-1]
        letters = "".join(tifffile.TIFF.MM_DIMENSIONS.get(one[0].upper(), "Q") for one in dimensions)
        shape = tuple(int(one[1]) for one in dimensions)
    except (KeyError, TypeError, IndexError, ValueError):
        return _bare(pages, None, request.name)
    lead = [(letter, n) for letter, n in zip(letters, shape, strict=True) if letter not in "YX"]
    sizes = tuple(n for _, n in lead)
    if not sizes or min(sizes) < 1 or prod(sizes) != len(pages):
        return _bare(pages, None, request.name)
    return _Planes("".join(letter for letter, _ in lead), sizes, range(len(pages)))


def _lsm_names(pages: TiffPages) -> Labels | None:
    try:
        names = pages.first.tags.valueof(34412)["ChannelColors"]["ColorNames"]
        return Labels("the LSM file's metadata", samples=tuple(map(str, names)))
    except (KeyError, TypeError):
        return None


def _scanimage(pages: TiffPages, stream: BinaryIO) -> tuple[str, ...] | None:
    """The channels of a file of ScanImage, one page after the other; None of another file."""
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


def _interleaved(pages: TiffPages, names: tuple[str, ...], request: Request) -> _Planes:
    """Pages whose channel changes from each to the next."""
    count, channels = len(pages), len(names)
    _require_alike(pages, range(count), request.name)
    fovs, rest = divmod(count, channels)
    if not fovs:
        raise UnreadableImage(
            f"{request.name} holds {count} pages, fewer than one field of view of its {channels} channels has"
        )
    notices: tuple[Notice, ...] = ()
    if rest:
        text = (
            f"{fovs + 1} fields of view were begun, {fovs} are complete and taken; {rest} pages are left out"
        )
        notices = (Notice("incomplete", text),)
    table = range(fovs * channels)
    return _Planes("PC", (fovs, channels), table, Labels("ScanImage's metadata", names * fovs), notices)
