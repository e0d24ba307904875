"""Following the links between the pages of a TIFF file, which can be endless, before anything else does.

A page is an image file directory (IFD, TIFF 6.0 section 2): tags, and a link to the next page. The tag
SubIFDs links to further pages.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

from senoscope_client.errors import TooManyFields, UnreadableImage

_MAX_METADATA = 4 * 1024 * 1024
_MAX_TAGS = 1024
_MAX_TAGS_IN_ALL = 128 * 1024
# By type of tag, bytes of one value; 0 for types that there are not.
_TAG_BYTES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8)
_LINKS = {4: "I", 13: "I", 16: "Q", 18: "Q"}
_NUMBERS = {3: "H"} | _LINKS
_WIDTH, _LENGTH, _SUBIFDS = 256, 257, 330
# MetaMorph's tags have a value for each plane, which tifffile reads one by one.
_METAMORPH = range(33628, 33632)
# Tags whose values tifffile reads as soon as it meets them; of others it only keeps the place.
_LOADED = {258, 270, 273, 277, 279, 282, 283, 305, 324, 325, _SUBIFDS, 338, 339, 347, 513, 514, 530}
_LOADED |= {33628, 42113, 50838, 50839}


def check_pages(stream: BinaryIO, size: int, *, max_pages: int, name: str) -> int:
    """Check that the pages have an end, and no more tags than real ones.

    Parameters
    ----------
    stream : binary file
        At its beginning, where it will be again.
    size : int
        Of the file, in bytes.
    max_pages : int
    name : str
        Of the file, for messages.

    Returns
    -------
    int
        Pixels of the smallest page.

    Raises
    ------
    UnreadableImage
        If a link leads out of the file or to a page a second time, or if there are too many tags.
    TooManyFields
        If there are more than ``max_pages`` pages.
    """
    smallest = min(_Walk(stream, size, max_pages, name).areas(), default=1)
    stream.seek(0)
    return max(1, smallest)


class _Walk:
    """A walk through all pages of a file."""

    def __init__(self, stream: BinaryIO, size: int, max_pages: int, name: str) -> None:
        self._stream, self._size, self._max_pages = stream, size, max_pages
        self._damaged = UnreadableImage(
            f"{name} is a damaged TIFF file: it is cut off, or its pages go in a circle"
        )
        self._absurd = UnreadableImage(f"{name} is a TIFF file with absurdly much metadata; write it again")
        self._too_many = TooManyFields(f"{name} has more than {max_pages} pages; split it")
        head = stream.read(8)
        order, big = ("<" if head[:1] == b"I" else ">"), head[2:4] in (b"+\0", b"\0+")
        self._order, self._first = order, (8 if big else 4)
        self._count, self._link = (order + "Q", order + "Q") if big else (order + "H", order + "I")
        self._tag = struct.Struct(order + ("HHQ8s" if big else "HHI4s"))
        self._inline_size = struct.calcsize(self._link)
        self._tags_in_all = self._loaded = 0

    def areas(self) -> Iterator[int]:
        """The pixels of each page."""
        links = [*struct.unpack(self._link, self._read(self._first, self._inline_size))]
        seen: set[int] = set()
        while links:
            offset = links.pop()
            if not offset:
                continue
            if offset in seen:
                raise self._damaged
            seen.add(offset)
            if len(seen) > self._max_pages:
                raise self._too_many
            area, further = self._page(offset)
            links += further
            yield area

    def _page(self, offset: int) -> tuple[int, list[int]]:
        """Pixels of a page, and its links."""
        count_size = struct.calcsize(self._count)
        (tags,) = struct.unpack(self._count, self._read(offset, count_size))
        self._tags_in_all += tags
        if tags > _MAX_TAGS or self._tags_in_all > _MAX_TAGS_IN_ALL:
            raise self._absurd
        table = tags * self._tag.size
        block = self._read(offset + count_size, table + self._inline_size)
        links = [*struct.unpack_from(self._link, block, table)]
        area = 1
        for code, kind, count, inline in self._tag.iter_unpack(block[:table]):
            if code in {_WIDTH, _LENGTH} and count == 1 and kind in _NUMBERS:
                area *= self._numbers(kind, 1, inline)[0]
            elif code in _METAMORPH and count > self._max_pages:
                raise self._absurd
            elif code in _LOADED:
                place = self._values(kind, count, inline)
                if code == _SUBIFDS and place is not None:
                    links += self._subifds(kind, count, inline, place)
        return area, links

    def _values(self, kind: int, count: int, inline: bytes) -> int | None:
        """Where a tag's values are (0: in the tag), None if out of the file: then tifffile ignores it."""
        length = count * (_TAG_BYTES[kind] if kind < len(_TAG_BYTES) else 0)
        if length <= self._inline_size:
            return 0
        place: int = struct.unpack(self._link, inline)[0]
        if place + length > self._size:
            return None
        # In real files values lie apart; those that many tags share are read again for each tag.
        self._loaded += length
        if length > _MAX_METADATA or self._loaded > self._size + _MAX_METADATA:
            raise self._absurd
        return place

    def _subifds(self, kind: int, count: int, inline: bytes, place: int) -> list[int]:
        if kind not in _LINKS:
            raise self._damaged
        if count > self._max_pages:
            raise self._too_many
        values = self._read(place, count * _TAG_BYTES[kind]) if place else inline
        return [link for link in self._numbers(kind, count, values) if link >= 8]  # as tifffile does

    def _numbers(self, kind: int, count: int, values: bytes) -> tuple[int, ...]:
        try:
            return struct.unpack_from(f"{self._order}{count}{_NUMBERS[kind]}", values)
        except struct.error:  # a number of 8 bytes in the 4 of a classic tag
            raise self._damaged from None

    def _read(self, offset: int, length: int) -> bytes:
        if offset + length > self._size:
            raise self._damaged
        self._stream.seek(offset)
        return self._stream.read(length)
