"""Which page of a TIFF file shows what, by what its programs write about each page alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from senoscope_client.images.channel_names import name_planes, plain
from senoscope_client.images.stored import Labels
from senoscope_client.images.tiff import TiffPages
from senoscope_client.images.tiff_micromanager import micromanager_labels
from senoscope_client.images.tiff_planes import Request

_MAX_TEXT: Final = 4 * 1024 * 1024
_MAX_LABEL: Final = 1024
_MAX_PAGES: Final = 4096


def page_labels(pages: TiffPages, request: Request, table: Sequence[int] | None = None) -> Labels | None:
    """The channel that each page names: in Micro-Manager's metadata, its PageName, or its description.

    A description can be about anything, even about all pages; those are labels only where each page has one,
    they differ, and all of the channels are named.

    Parameters
    ----------
    pages : TiffPages
    request : Request
    table : sequence of int, optional
        The page of each plane; default: all pages.
    """
    numbers = range(len(pages)) if table is None else table
    if (labels := micromanager_labels(pages, numbers)) is not None:
        return labels
    if any(pages.directories.names):
        names = [_line(pages.page_name(n)) for n in numbers]
        if any(names):
            return Labels("tag PageName", names)
    if not all(pages.directories.descriptions):
        return None
    descriptions = [_line(pages.description(n)) for n in numbers]
    if not all(descriptions) or len(set(descriptions)) < 2:
        return None
    named = {plain(name) for name in name_planes(descriptions, request.channels)}
    if {plain(channel) for channel in request.channels} <= named:
        return Labels("each page's description", descriptions)
    return None


def page_texts(pages: TiffPages) -> Iterator[str]:
    """What the first few thousand pages say of themselves, each text once, up to 4 MiB."""
    room = _MAX_TEXT
    seen: set[str] = set()
    for n in range(min(len(pages), _MAX_PAGES)):
        for text in (pages.page_name(n), pages.description(n) if n else ""):
            if text and text not in seen:
                seen.add(text)
                room -= len(text)
                yield text
        if room <= 0:
            return


def _line(text: str) -> str:
    return next(iter(text[:_MAX_LABEL].strip().splitlines()), "")
