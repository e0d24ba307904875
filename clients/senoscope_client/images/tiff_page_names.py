"""Channels of the pages of a TIFF file by the texts in each page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from senoscope_client.images.axes import ReadOptions
from senoscope_client.images.channel_names import name_planes, normalize_name
from senoscope_client.images.stored import Labels
from senoscope_client.images.tiff import TiffPages
from senoscope_client.images.tiff_micromanager import micromanager_labels

_MAX_TEXT: Final = 4 * 1024 * 1024
_MAX_LABEL: Final = 1024
_MAX_PAGES: Final = 4096


def page_labels(pages: TiffPages, options: ReadOptions, table: Sequence[int] | None = None) -> Labels | None:
    """Return labels of the pages: from Micro-Manager's metadata, the tag PageName, or the descriptions.

    A description can have any content, also about all pages. Descriptions are labels only if each page has
    one, they differ, and they name all channels. ``table`` holds the page of each plane; default: all pages.
    """
    numbers = range(len(pages)) if table is None else table
    if (labels := micromanager_labels(pages, numbers)) is not None:
        return labels
    if any(pages.directories.names):
        names = [_first_line(pages.page_name(n)) for n in numbers]
        if any(names):
            return Labels("tag PageName", names)
    if not all(pages.directories.descriptions):
        return None
    descriptions = [_first_line(pages.description(n)) for n in numbers]
    if not all(descriptions) or len(set(descriptions)) < 2:
        return None
    named = {normalize_name(name) for name in name_planes(descriptions, options.spec.channels)}
    if {normalize_name(channel) for channel in options.spec.channels} <= named:
        return Labels("each page's description", descriptions)
    return None


def page_texts(pages: TiffPages) -> Iterator[str]:
    """Generate the texts of the first 4096 pages, each text once, up to 4 MiB."""
    remaining = _MAX_TEXT
    seen: set[str] = set()
    for n in range(min(len(pages), _MAX_PAGES)):
        for text in (pages.page_name(n), pages.description(n) if n else ""):
            if text and text not in seen:
                seen.add(text)
                remaining -= len(text)
                yield text
        if remaining <= 0:
            return


def _first_line(text: str) -> str:
    return next(iter(text[:_MAX_LABEL].strip().splitlines()), "")
