"""Planes of a TIFF file: how the planned planes of an image are matched with the existing pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from senoscope_client.errors import AmbiguousAxes, UnreadableImage
from senoscope_client.images.axes import ReadOptions
from senoscope_client.images.calibration import Calibration
from senoscope_client.images.notices import Notice
from senoscope_client.images.stored import Labels
from senoscope_client.images.tiff import TiffPages
from senoscope_client.wire.messages import Position

_MAX_PLANES: Final = 1_000_000


@dataclass(frozen=True)
class Planes:
    """The planes of one image, in C order of the leading axes.

    Attributes
    ----------
    axes, shape
        The leading axes.
    pages : sequence of int
        The page of each plane.
    numbers : sequence of int
        The number of each plane among the planned ones, in C order.
    read : callable or None
        Reads a plane; default: reads its page.
    """

    axes: str
    shape: tuple[int, ...]
    pages: Sequence[int]
    numbers: Sequence[int] = ()
    labels: Labels | None = None
    notices: tuple[Notice, ...] = ()
    read: Callable[[int], npt.NDArray[Any]] | None = None
    calibration: Calibration | None = None
    pixel_type: str = ""
    pixel_size_um: float | None = None
    position_of: Callable[[int], Position | None] | None = None


class DescriptionMismatch(Exception):
    """A description does not match the pages."""


class IncompleteImage(UnreadableImage):
    """An image has no complete field of view."""


def require_alike(pages: TiffPages, numbers: Sequence[int]) -> None:
    """Check that pages have the same size, type and meaning.

    Raises
    ------
    AmbiguousAxes
    """
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
            f"{pages.name} has pages of different orientation (tag 274: {', '.join(map(str, turned))}), of "
            f"shapes {shapes}; save them all with the same orientation"
        )
    raise AmbiguousAxes(f"{pages.name} holds {len(kinds)} images ({shapes}); save one stack per file")


def bare_pages(pages: TiffPages, labels: Labels | None = None) -> Planes:
    """Return all pages as planes without further information."""
    count = len(pages)
    require_alike(pages, range(count))
    return Planes("Q", (count,), range(count), labels=labels)


def declared_planes(
    pages: TiffPages, axes: str, sizes: tuple[int, ...], options: ReadOptions, program: str
) -> Planes:
    """Return the planes that a program declares: one per page, or all of them behind the only page.

    Raises
    ------
    UnreadableImage
        If planes are missing in the file.
    """
    planned = prod(sizes)
    if not (len(pages) == 1 < planned and pages.is_contiguous):
        return complete_planes(axes, sizes, {n: n for n in range(len(pages))}, options)
    if planned > max(1, pages.size // max(1, int(pages.first.nbytes))) + 1:
        raise UnreadableImage(
            f"{options.name} describes {planned} pages, but is cut off: it can hold fewer; save it again"
        )
    read = pages.contiguous_planes(planned, program)
    return Planes(axes, sizes, [0] * planned, range(planned), read=read)


def complete_planes(
    axes: str,
    sizes: tuple[int, ...],
    page_of: Mapping[int, int],
    options: ReadOptions,
    elsewhere: bool = False,
) -> Planes:
    """Select the planes of complete fields of view.

    ``axes`` and ``sizes`` are the planned leading axes; ``page_of`` maps the number of each existing plane,
    in C order, to its page; ``elsewhere`` is whether further planes are declared to be in other files. If
    all planes exist, the axes are the planned ones, else P, a list of fields of view, and C, the channels.
    """
    planned = prod(sizes)
    if len(page_of) == planned:
        return Planes(axes, sizes, [page_of[n] for n in range(planned)], range(planned))
    if planned > max(_MAX_PLANES, 100 * len(page_of)):
        raise UnreadableImage(
            f"{options.name} describes {planned} pages, but holds {len(page_of)}; save it again"
        )
    grid = np.arange(planned).reshape(sizes)
    grid = np.moveaxis(grid, axes.index("C"), -1) if "C" in axes else grid[..., None]
    grid = grid.reshape(-1, grid.shape[-1])  # a row for each field of view
    exists = np.zeros(planned, bool)
    exists[list(page_of)] = True
    complete = grid[exists[grid].all(axis=1)]
    left_out = len(page_of) - complete.size
    what = "fields of view" if grid.shape[-1] > 1 else "pages"
    where = " in this file" if elsewhere else ""
    if not len(complete):
        raise IncompleteImage(
            f"{options.name} holds no complete field of view: {len(grid)} were planned, but only "
            f"{len(page_of)} of their {planned} pages exist{where}; save it again"
        )
    text = f"{len(grid)} {what} were planned, {len(complete)} are complete{where} and taken"
    if left_out:
        text += f"; {left_out} pages of incomplete ones are left out"
    numbers = [int(n) for n in complete.ravel()]
    kept = ("PC", complete.shape) if "C" in axes else ("Q", complete.shape[:1])
    notices = (Notice("incomplete", text),)
    return Planes(*kept, [page_of[n] for n in numbers], numbers, notices=notices)


def channel_labels(
    names: Sequence[str] | None, axes: str, sizes: tuple[int, ...], planes: Sequence[int], source: str
) -> Labels | None:
    """Return the names of channels as labels of the planes, or of the samples if planes have all channels."""
    if not names or not any(names):
        return None
    if "C" not in axes or sizes[axes.index("C")] != len(names):
        return Labels(source, samples=tuple(names))
    step = prod(sizes[axes.index("C") + 1 :])
    return Labels(source, [names[n // step % len(names)] for n in planes])
