"""Listing the pages that the directories of a TIFF file name, without trusting them.

A page is an image file directory (IFD, TIFF 6.0 section 2): tags, and a link to the next page. The tag
SubIFDs links to further pages. Links can be endless, so they are followed here before anything else does.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import BinaryIO

from senoscope_client.errors import TooManyFields, UnreadableImage

_MIB = 1024 * 1024
_MAX_TAGS = 1024
# By type of tag, bytes of one value; 0 for types that there are not.
_TAG_BYTES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8)
_LINKS = {4: "I", 13: "I", 16: "Q", 18: "Q"}
_NUMBERS = {1: "B", 3: "H"} | _LINKS
_DESCRIPTION, _PAGE_NAME = 270, 285
_SUBFILE, _OLD_SUBFILE, _WIDTH, _LENGTH, _SUBIFDS = 254, 255, 256, 257, 330
_MICROMANAGER = 51123
_REDUCED, _MASK = 1, 4  # in NewSubfileType
# MetaMorph's tags have a value for each plane, which tifffile reads one by one.
_METAMORPH = range(33628, 33632)
# Tags whose values tifffile reads as soon as it meets them; of others it only keeps the place.
_LOADED = {258, 273, 277, 279, 282, 283, 305, 324, 325, 338, 339, 347, 513, 514, 530}
_LOADED |= {_DESCRIPTION, _PAGE_NAME, _SUBIFDS, 33628, 50838, 50839, _MICROMANAGER}
# What a number in a page means: pages that differ in these are not planes of one image. How the numbers are
# packed (compression, strips, tiles) may differ from page to page.
_MEANING = {_WIDTH, _LENGTH, 258, 262, 274, 277, 284, 338, 339, 32997}
# How numbers are packed: FillOrder, RowsPerStrip, Predictor, the size of tiles and the like.
_PACKING = {259, 266, 278, 292, 293, 317, 322, 323, 530}
# What the numbers in a page become: curves, a colour table, scales, levels, what stands for no number.
_TRANSFER = {291, 301, 320, 33445, 42112, 42113, 50712, 50714}
# What these tags say where they are left out, for each sample.
_DEFAULTS = {258: 1, 274: 1, 277: 1, 284: 1, 339: 1, 32997: 1}


@dataclass(frozen=True)
class WalkLimits:
    """How much metadata a file may have.

    Attributes
    ----------
    max_pages : int
    max_tags : int
        Tags of all pages together.
    max_value : int
        Bytes of the value of one tag.
    shared : bool
        Accept that pages share long values, which are read again for each of them.
    """

    max_pages: int
    max_tags: int = 128 * 1024
    max_value: int = 4 * _MIB
    shared: bool = False


@dataclass
class Directories:
    """The pages of a file, in the order of its directories.

    Attributes
    ----------
    offsets : array of int
        Where the directory of each full page is; reduced copies, masks and sub-directories are not listed,
        unless there is nothing else. What is declared as a reduced copy but is just like the full pages is
        one of them.
    meanings : array of int
        Number of each page's kind: pages of equal size, type and meaning have the same number.
    packings : array of int
        Number of how each page is packed.
    transfers : array of int
        Number of what each page's tags say that its numbers become.
    metadata : array of int
        Where each page's Micro-Manager metadata are, and how long: two numbers per page, 0 where it has none.
    names, descriptions : array of int
        Likewise where each page's PageName and ImageDescription are.
    skipped : list of int
        Places in the chain of the pages that are reduced copies or masks.
    others : int
        Pages in sub-directories that are not declared as reduced copies.
    unreduced : int
        Pages that are left out because they are declared as reduced copies or masks, but are of full size, or
        masks just like the full pages.
    smallest : int
        Pixels of the smallest page of all.
    """

    offsets: array[int] = field(default_factory=lambda: array("Q"))
    meanings: array[int] = field(default_factory=lambda: array("L"))
    packings: array[int] = field(default_factory=lambda: array("L"))
    transfers: array[int] = field(default_factory=lambda: array("L"))
    metadata: array[int] = field(default_factory=lambda: array("Q"))
    names: array[int] = field(default_factory=lambda: array("Q"))
    descriptions: array[int] = field(default_factory=lambda: array("Q"))
    skipped: list[int] = field(default_factory=list)
    others: int = 0
    unreduced: int = 0
    smallest: int = 1

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def chain(self) -> int:
        """How many pages the chain has, the skipped ones among them."""
        return len(self.offsets) + len(self.skipped)

    def number(self, place: int) -> int | None:
        """Which page is at a place in the chain; None if it is a skipped one."""
        before = bisect_left(self.skipped, place)
        return None if before < len(self.skipped) and self.skipped[before] == place else place - before


def list_pages(stream: BinaryIO, size: int, limits: WalkLimits, name: str) -> Directories:
    """Follow all links, and list the pages.

    Parameters
    ----------
    stream : binary file
        At its beginning, where it will be again.
    size : int
        Of the file, in bytes.
    limits : WalkLimits
    name : str
        Of the file, for messages.

    Raises
    ------
    UnreadableImage
        If a link leads out of the file, the pages go in a circle, or there are too many tags.
    TooManyFields
        If there are more than ``limits.max_pages`` pages.
    """
    pages = _Walk(stream, size, limits, name).run()
    stream.seek(0)
    return pages


@dataclass(frozen=True, slots=True)
class _Page:
    area: int
    meaning: tuple[tuple[int, ...], ...]
    packing: tuple[tuple[int, ...], ...]
    transfer: tuple[tuple[int, int, bytes], ...]
    copy: int
    metadata: tuple[int, int]
    name: tuple[int, int]
    description: tuple[int, int]
    next: int
    below: tuple[int, ...]


def _without_copies(
    found: Directories,
    copies: array[int],
    beneath: dict[tuple[int, int], int],
    meanings: Sequence[tuple[tuple[int, ...], ...]],
) -> Directories:
    """The full pages among those of the chain, and how many of full size are left out.

    Parameters
    ----------
    found : Directories
    copies : array of int
        For each page what it is declared as: 0, or _REDUCED and _MASK.
    beneath : dict
        By meaning and declaration, how many pages sub-directories have.
    meanings : sequence of tuple
        What each number of a meaning stands for.
    """
    full = {meaning for meaning, copy in zip(found.meanings, copies, strict=True) if not copy}
    found.others = sum(count for (_, copy), count in beneath.items() if not copy)
    if not full:
        return found
    sizes = {_size(meanings[meaning]) for meaning in full}

    def kept(meaning: int, copy: int) -> bool:
        return not copy or (copy == _REDUCED and meaning in full)

    def unreduced(meaning: int, copy: int) -> bool:
        return meaning in full or (copy == _REDUCED and _size(meanings[meaning]) in sizes)

    found.unreduced = sum(count for key, count in beneath.items() if key[1] and unreduced(*key))
    if not any(copies):
        return found
    pages = Directories(others=found.others, unreduced=found.unreduced, smallest=found.smallest)
    for n, key in enumerate(zip(found.meanings, copies, strict=True)):
        if not kept(*key):
            pages.skipped.append(n)
            pages.unreduced += unreduced(*key)
            continue
        pages.offsets.append(found.offsets[n])
        pages.meanings.append(found.meanings[n])
        pages.packings.append(found.packings[n])
        pages.transfers.append(found.transfers[n])
        pages.metadata.extend(found.metadata[2 * n : 2 * n + 2])
        pages.names.extend(found.names[2 * n : 2 * n + 2])
        pages.descriptions.extend(found.descriptions[2 * n : 2 * n + 2])
    return pages


def _copy(code: int, values: tuple[int, ...]) -> int:
    """What a page is declared as by NewSubfileType, or by SubfileType, whose 2 is a reduced copy."""
    if code == _OLD_SUBFILE:
        return _REDUCED if values[:1] == (2,) else 0
    return (values[0] if len(values) == 1 else 0) & (_REDUCED | _MASK)


def _size(meaning: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
    return tuple(part for part in meaning if part[0] in {_WIDTH, _LENGTH})


class _Walk:
    """A walk through all pages of a file."""

    def __init__(self, stream: BinaryIO, size: int, limits: WalkLimits, name: str) -> None:
        self._stream, self._size, self._limits = stream, size, limits
        self._damaged = UnreadableImage(
            f"{name} is a damaged TIFF file: it is cut off, or its pages go in a circle"
        )
        self._absurd = UnreadableImage(f"{name} is a TIFF file with absurdly much metadata; write it again")
        self._too_many = TooManyFields(f"{name} has more than {limits.max_pages} pages; split it")
        head = stream.read(8)
        order, big = ("<" if head[:1] == b"I" else ">"), head[2:4] in (b"+\0", b"\0+")
        self._order, self._first = order, (8 if big else 4)
        self._count, self._link = (order + "Q", order + "Q") if big else (order + "H", order + "I")
        self._tag = struct.Struct(order + ("HHQ8s" if big else "HHI4s"))
        self._inline_size = struct.calcsize(self._link)
        self._tags_in_all = self._loaded = 0
        self._digests: dict[tuple[int, ...], bytes] = {}

    def run(self) -> Directories:
        """List the pages."""
        found = Directories()
        copies = array("B")
        beneath: dict[tuple[int, int], int] = {}
        numbers: dict[tuple[tuple[int, ...], ...], int] = {}
        packings: dict[tuple[tuple[int, ...], ...], int] = {}
        transfers: dict[tuple[tuple[int, int, bytes], ...], int] = {}
        # Pages to visit, each with the page in whose tag SubIFDs it or its chain is; 0 in the main chain.
        links = [(*struct.unpack(self._link, self._read(self._first, self._inline_size)), 0)]
        seen: dict[int, int] = {}
        smallest: int | None = None
        while links:
            offset, above = links.pop()
            if not offset:
                continue
            if offset in seen:
                if (
                    above and seen[offset] == above
                ):  # listed in the tag SubIFDs, and linked to from the one before it
                    continue
                raise self._damaged
            seen[offset] = above
            if len(seen) > self._limits.max_pages:
                raise self._too_many
            page = self._page(offset)
            links += [(page.next, above), *((link, offset) for link in page.below)]
            smallest = page.area if smallest is None else min(smallest, page.area)
            meaning = numbers.setdefault(page.meaning, len(numbers))
            if above:
                beneath[meaning, page.copy] = beneath.get((meaning, page.copy), 0) + 1
                continue
            copies.append(page.copy)
            found.offsets.append(offset)
            found.meanings.append(meaning)
            found.packings.append(packings.setdefault(page.packing, len(packings)))
            found.transfers.append(transfers.setdefault(page.transfer, len(transfers)))
            found.metadata.extend(page.metadata)
            found.names.extend(page.name)
            found.descriptions.extend(page.description)
        found.smallest = max(1, smallest or 1)
        return _without_copies(found, copies, beneath, list(numbers))

    def _page(self, offset: int) -> _Page:
        count_size = struct.calcsize(self._count)
        (tags,) = struct.unpack(self._count, self._read(offset, count_size))
        self._tags_in_all += tags
        if tags > _MAX_TAGS or self._tags_in_all > self._limits.max_tags:
            raise self._absurd
        table = tags * self._tag.size
        block = self._read(offset + count_size, table + self._inline_size)
        below: tuple[int, ...] = ()
        meaning: list[tuple[int, ...]] = []
        packing: list[tuple[int, ...]] = []
        transfer: list[tuple[int, int, bytes]] = []
        area, copy = 1, 0
        texts = dict.fromkeys((_DESCRIPTION, _PAGE_NAME, _MICROMANAGER), (0, 0))
        at = offset + count_size - self._inline_size
        for code, kind, count, inline in self._tag.iter_unpack(block[:table]):
            at += self._tag.size  # the end of this tag, less its value
            if code in _METAMORPH and count > self._limits.max_pages:
                raise self._absurd
            place = self._values(kind, count, inline) if code in _LOADED else 0
            if code in _MEANING:
                values = self._small_numbers(kind, count, inline)
                if code not in _DEFAULTS or {*values} != {_DEFAULTS[code]}:
                    meaning.append((code, *values))
                if code in {_WIDTH, _LENGTH} and len(values) == 1:
                    area *= values[0]
            elif code in _PACKING:
                packing.append((code, *self._small_numbers(kind, count, inline)))
            elif code in _TRANSFER:
                transfer.append((code, kind, self._digest(kind, count, inline)))
            elif code in {_SUBFILE, _OLD_SUBFILE}:
                copy |= _copy(code, self._small_numbers(kind, count, inline))
            elif code == _SUBIFDS and place is not None:
                below = self._subifds(kind, count, inline, place)
            elif code in texts and place is not None and kind < len(_TAG_BYTES) and not texts[code][1]:
                texts[code] = (place or at, count * _TAG_BYTES[kind])
        (following,) = struct.unpack_from(self._link, block, table)
        return _Page(
            area,
            tuple(sorted(meaning)),
            tuple(sorted(packing)),
            tuple(sorted(transfer)),
            copy,
            texts[_MICROMANAGER],
            texts[_PAGE_NAME],
            texts[_DESCRIPTION],
            following,
            below,
        )

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
        shared = self._loaded > self._size + self._limits.max_value and not self._limits.shared
        if length > self._limits.max_value or shared:
            raise self._absurd
        return place

    def _digest(self, kind: int, count: int, inline: bytes) -> bytes:
        """A digest of a tag's values; empty where they are not in the file."""
        length = count * (_TAG_BYTES[kind] if kind < len(_TAG_BYTES) else 0)
        if length <= self._inline_size:
            return inline[:length]
        at = (*struct.unpack(self._link, inline), length)
        if at not in self._digests:  # many pages may share a colour table
            place = self._values(kind, count, inline)
            self._digests[at] = b"" if place is None else blake2b(self._read(place, length)).digest()
        return self._digests[at]

    def _small_numbers(self, kind: int, count: int, inline: bytes) -> tuple[int, ...]:
        """The numbers of a tag that has few; what they cannot be read from is what they are told by."""
        length = count * _TAG_BYTES[kind] if kind < len(_TAG_BYTES) else 0
        if kind not in _NUMBERS or not 0 < length <= 64:
            return (kind, count)
        if length <= self._inline_size:
            return self._numbers(kind, count, inline)
        place: int = struct.unpack(self._link, inline)[0]
        if place + length > self._size:
            return (kind, count)
        return self._numbers(kind, count, self._read(place, length))

    def _subifds(self, kind: int, count: int, inline: bytes, place: int) -> tuple[int, ...]:
        if kind not in _LINKS:
            raise self._damaged
        if count > self._limits.max_pages:
            raise self._too_many
        values = self._read(place, count * _TAG_BYTES[kind]) if place else inline
        return tuple(link for link in self._numbers(kind, count, values) if link >= 8)  # as tifffile does

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
