"""List of the pages in the directories of an untrusted TIFF file.

A page is an image file directory (IFD, TIFF 6.0 section 2): tags, and a link to the next page. The tag
SubIFDs links to further pages. Links can form a circle, so that they are checked before tifffile uses them.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import chain
from typing import BinaryIO

from senoscope_client.errors import TooManyFields, UnreadableImage

_MIB = 1024 * 1024
_MAX_TAGS = 1024
# Bytes of one value, by type of tag; 0 for types that do not exist.
_TAG_BYTES = dict(enumerate((0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8)))
_LINKS = {4: "I", 13: "I", 16: "Q", 18: "Q"}
_NUMBERS = {1: "B", 3: "H"} | _LINKS
_DESCRIPTION, _PAGE_NAME = 270, 285
_SUBFILE, _OLD_SUBFILE, _WIDTH, _LENGTH, _SUBIFDS = 254, 255, 256, 257, 330
_MICROMANAGER = 51123
_REDUCED, _MASK = 1, 4  # in NewSubfileType
# MetaMorph's tags have a value for each plane, which tifffile reads one at a time.
_METAMORPH = range(33628, 33632)
# Tags whose values tifffile reads when it opens a page; of others it only stores the offset.
_LOADED = {258, 273, 277, 279, 282, 283, 305, 324, 325, 338, 339, 347, 513, 514, 530}
_LOADED |= {_DESCRIPTION, _PAGE_NAME, _SUBIFDS, 33628, 50838, 50839, _MICROMANAGER}
# Tags that define the meaning of numbers: pages that differ in them are not planes of one image. The storage
# of the numbers (compression, strips, tiles) may differ from page to page.
_MEANING = {_WIDTH, _LENGTH, 258, 262, 274, 277, 284, 338, 339, 32997}
# Tags that define the storage of numbers: FillOrder, RowsPerStrip, Predictor, the size of tiles and others.
_PACKING = {259, 266, 278, 292, 293, 317, 322, 323, 530}
# Tags that define conversions of numbers: curves, a colour table, scales, levels, the value of missing data.
_TRANSFER = {291, 301, 320, 33445, 42112, 42113, 50712, 50714}
# Default values of tags, for each sample.
_DEFAULTS = {258: 1, 274: 1, 277: 1, 284: 1, 339: 1, 32997: 1}


@dataclass(frozen=True)
class WalkLimits:
    """Limits of the metadata of a file.

    Attributes
    ----------
    max_pages : int
    max_tags : int
        Number of tags of all pages together.
    max_value : int
        Bytes of the value of one tag.
    shared : bool
        Accept long values that are shared by pages, although they are read again for each page.
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
        Offset of the directory of each full page; reduced copies, masks and sub-directories are not listed,
        unless there are no other pages. A page that is declared as a reduced copy, but has the size and type
        of the full pages, is a full page.
    meanings : array of int
        Number of each page's kind: pages of equal size, type and meaning have the same number.
    packings : array of int
        Number of each page's kind of storage.
    transfers : array of int
        Number of each page's set of conversion tags.
    metadata : array of int
        Offset and length of each page's Micro-Manager metadata: two numbers per page, 0 if it has none.
    names, descriptions : array of int
        Offset and length of each page's PageName and ImageDescription, likewise.
    skipped : list of int
        Positions in the chain of the pages that are reduced copies or masks.
    others : int
        Number of pages in sub-directories that are not declared as reduced copies.
    unreduced : int
        Number of pages that are left out because they are declared as reduced copies or masks, although they
        have full size, or are masks with the size and type of the full pages.
    smallest : int
        Number of pixels of the smallest of all pages.
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
        """Number of pages of the chain, including the skipped ones."""
        return len(self.offsets) + len(self.skipped)

    def number(self, position: int) -> int | None:
        """Return the number of the page at a position in the chain; None if it is a skipped one."""
        before = bisect_left(self.skipped, position)
        is_skipped = before < len(self.skipped) and self.skipped[before] == position
        return None if is_skipped else position - before


def list_pages(stream: BinaryIO, size: int, limits: WalkLimits, name: str) -> Directories:
    """Follow all links from the start of the stream, and list the pages; return to the start.

    ``size`` is that of the file, in bytes.

    Raises
    ------
    UnreadableImage
        If a link points out of the file, the links form a circle, or there are too many tags.
    TooManyFields
        If there are more than ``limits.max_pages`` pages.
    """
    pages = _DirectoryWalk(stream, size, limits, name).list_pages()
    stream.seek(0)
    return pages


@dataclass(frozen=True, slots=True)
class _Page:
    area: int
    meaning: tuple[tuple[int, ...], ...]
    packing: tuple[tuple[int, ...], ...]
    transfer: tuple[tuple[int, int, bytes], ...]
    copy: int
    texts: dict[int, tuple[int, int]]
    next: int
    sub_ifds: tuple[int, ...]


def _remove_copies(
    found: Directories,
    copies: array[int],
    sub_pages: dict[tuple[int, int], int],
    meanings: Sequence[tuple[tuple[int, ...], ...]],
) -> Directories:
    """Remove reduced copies and masks from the pages of the chain, and count those of full size.

    ``copies`` holds the declaration of each page: 0, or _REDUCED and _MASK. ``sub_pages`` counts the pages in
    sub-directories by meaning and declaration. ``meanings`` holds the meaning that each number stands for.
    """
    full = {meaning for meaning, copy in zip(found.meanings, copies, strict=True) if not copy}
    found.others = sum(count for (_, copy), count in sub_pages.items() if not copy)
    if not full:
        return found
    sizes = {_size(meanings[meaning]) for meaning in full}

    def is_full(meaning: int, copy: int) -> bool:
        return not copy or (copy == _REDUCED and meaning in full)

    def is_unreduced(meaning: int, copy: int) -> bool:
        return meaning in full or (copy == _REDUCED and _size(meanings[meaning]) in sizes)

    found.unreduced = sum(count for key, count in sub_pages.items() if key[1] and is_unreduced(*key))
    if not any(copies):
        return found
    keys = list(zip(found.meanings, copies, strict=True))
    kept = [is_full(*key) for key in keys]
    found.skipped = [n for n, keep in enumerate(kept) if not keep]
    found.unreduced += sum(is_unreduced(*keys[n]) for n in found.skipped)
    for name in ("offsets", "meanings", "packings", "transfers", "metadata", "names", "descriptions"):
        column: array[int] = getattr(found, name)
        width = len(column) // len(kept)
        selected = (column[width * n : width * (n + 1)] for n, keep in enumerate(kept) if keep)
        setattr(found, name, array(column.typecode, chain.from_iterable(selected)))
    return found


def _copy_flags(code: int, values: tuple[int, ...]) -> int:
    """Return the declaration of a page by NewSubfileType, or by SubfileType, whose 2 is a reduced copy."""
    if code == _OLD_SUBFILE:
        return _REDUCED if values[:1] == (2,) else 0
    return (values[0] if len(values) == 1 else 0) & (_REDUCED | _MASK)


def _size(meaning: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
    return tuple(part for part in meaning if part[0] in {_WIDTH, _LENGTH})


class _DirectoryWalk:
    """Follows the links between all pages of a file."""

    def __init__(self, stream: BinaryIO, size: int, limits: WalkLimits, name: str) -> None:
        self._stream, self._size, self._limits = stream, size, limits
        self._damaged = UnreadableImage(
            f"{name} is a damaged TIFF file: it is cut off, or its pages are linked in a circle"
        )
        self._too_much_metadata = UnreadableImage(
            f"{name} is a TIFF file with too much metadata; save it again"
        )
        self._too_many = TooManyFields(f"{name} has more than {limits.max_pages} pages; split it")
        head = stream.read(8)
        order, big = ("<" if head[:1] == b"I" else ">"), head[2:4] in (b"+\0", b"\0+")
        self._order, self._first = order, (8 if big else 4)
        self._count, self._link = (order + "Q", order + "Q") if big else (order + "H", order + "I")
        self._tag = struct.Struct(order + ("HHQ8s" if big else "HHI4s"))
        self._inline_size = struct.calcsize(self._link)
        self._tag_count = self._loaded_bytes = 0
        self._digests: dict[tuple[int, ...], bytes] = {}

    def list_pages(self) -> Directories:
        """List the pages."""
        found = Directories()
        copies = array("B")
        sub_pages: dict[tuple[int, int], int] = {}
        numbers: dict[tuple[tuple[int, ...], ...], int] = {}
        packings: dict[tuple[tuple[int, ...], ...], int] = {}
        transfers: dict[tuple[tuple[int, int, bytes], ...], int] = {}
        # Pages to visit, each with the page whose tag SubIFDs links to its chain; 0 for the main chain.
        links = [(*struct.unpack(self._link, self._read(self._first, self._inline_size)), 0)]
        visited: dict[int, int] = {}
        smallest: int | None = None
        while links:
            offset, parent = links.pop()
            if not offset:
                continue
            if offset in visited:
                # A page in the tag SubIFDs may also be linked to from the one before it.
                if parent and visited[offset] == parent:
                    continue
                raise self._damaged
            visited[offset] = parent
            if len(visited) > self._limits.max_pages:
                raise self._too_many
            page = self._page(offset)
            links += [(page.next, parent), *((link, offset) for link in page.sub_ifds)]
            smallest = page.area if smallest is None else min(smallest, page.area)
            meaning = numbers.setdefault(page.meaning, len(numbers))
            if parent:
                sub_pages[meaning, page.copy] = sub_pages.get((meaning, page.copy), 0) + 1
                continue
            copies.append(page.copy)
            found.offsets.append(offset)
            found.meanings.append(meaning)
            found.packings.append(packings.setdefault(page.packing, len(packings)))
            found.transfers.append(transfers.setdefault(page.transfer, len(transfers)))
            found.metadata.extend(page.texts[_MICROMANAGER])
            found.names.extend(page.texts[_PAGE_NAME])
            found.descriptions.extend(page.texts[_DESCRIPTION])
        found.smallest = max(1, smallest or 1)
        return _remove_copies(found, copies, sub_pages, list(numbers))

    def _page(self, offset: int) -> _Page:
        count_size = struct.calcsize(self._count)
        (tags,) = struct.unpack(self._count, self._read(offset, count_size))
        self._tag_count += tags
        if tags > _MAX_TAGS or self._tag_count > self._limits.max_tags:
            raise self._too_much_metadata
        table = tags * self._tag.size
        block = self._read(offset + count_size, table + self._inline_size)
        sub_ifds: tuple[int, ...] = ()
        meaning: list[tuple[int, ...]] = []
        packing: list[tuple[int, ...]] = []
        transfer: list[tuple[int, int, bytes]] = []
        area, copy = 1, 0
        texts = dict.fromkeys((_MICROMANAGER, _PAGE_NAME, _DESCRIPTION), (0, 0))
        at = offset + count_size - self._inline_size
        for code, kind, count, inline in self._tag.iter_unpack(block[:table]):
            at += self._tag.size  # offset of the value in this tag
            if code in _METAMORPH and count > self._limits.max_pages:
                raise self._too_much_metadata
            values_at = self._values_offset(kind, count, inline) if code in _LOADED else 0
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
                copy |= _copy_flags(code, self._small_numbers(kind, count, inline))
            elif code == _SUBIFDS and values_at is not None:
                sub_ifds = self._sub_ifds(kind, count, inline, values_at)
            elif code in texts and values_at is not None and kind in _TAG_BYTES and not texts[code][1]:
                texts[code] = (values_at or at, count * _TAG_BYTES[kind])
        (following,) = struct.unpack_from(self._link, block, table)
        kinds = (tuple(sorted(meaning)), tuple(sorted(packing)), tuple(sorted(transfer)))
        return _Page(area, *kinds, copy, texts, following, sub_ifds)

    def _values_offset(self, kind: int, count: int, inline: bytes) -> int | None:
        """Return the offset of a tag's values (0: in the tag); None if out of the file."""
        length = count * _TAG_BYTES.get(kind, 0)
        if length <= self._inline_size:
            return 0
        offset: int = struct.unpack(self._link, inline)[0]
        if offset + length > self._size:
            return None
        # In real files values do not overlap; values that many tags share are read again for each tag.
        self._loaded_bytes += length
        shared = self._loaded_bytes > self._size + self._limits.max_value and not self._limits.shared
        if length > self._limits.max_value or shared:
            raise self._too_much_metadata
        return offset

    def _digest(self, kind: int, count: int, inline: bytes) -> bytes:
        """Return a digest of a tag's values; empty if they are not in the file."""
        length = count * _TAG_BYTES.get(kind, 0)
        if length <= self._inline_size:
            return inline[:length]
        at = (*struct.unpack(self._link, inline), length)
        if at not in self._digests:  # many pages may share a colour table
            offset = self._values_offset(kind, count, inline)
            self._digests[at] = b"" if offset is None else blake2b(self._read(offset, length)).digest()
        return self._digests[at]

    def _small_numbers(self, kind: int, count: int, inline: bytes) -> tuple[int, ...]:
        """Return the numbers of a short tag; of other tags, which are only compared, their type and count."""
        length = count * _TAG_BYTES.get(kind, 0)
        offset: int = 0 if length <= self._inline_size else struct.unpack(self._link, inline)[0]
        if kind not in _NUMBERS or not 0 < length <= 64 or offset + length > self._size:
            return (kind, count)
        values = inline if length <= self._inline_size else self._read(offset, length)
        return self._numbers(kind, count, values)

    def _sub_ifds(self, kind: int, count: int, inline: bytes, offset: int) -> tuple[int, ...]:
        if kind not in _LINKS:
            raise self._damaged
        if count > self._limits.max_pages:
            raise self._too_many
        values = self._read(offset, count * _TAG_BYTES[kind]) if offset else inline
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
