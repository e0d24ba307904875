"""Reading single pages of a TIFF file without trusting them. Needs the extra ``tiff``.

tifffile decodes a page, and knows the many ways to pack one. Which pages there are is for the file's own
directories to say (see `tiff_page_check`): for some kinds of file tifffile computes pages instead.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from math import prod
from typing import Any, BinaryIO, Final

import imagecodecs  # noqa: F401 - tifffile loads it when a codec is needed; it must not be missing then
import numpy as np
import numpy.typing as npt
import tifffile

from senoscope_client.errors import UnreadableImage
from senoscope_client.images.tiff_page_check import Directories

# Bytes of the tiles of one page, however small it is.
_MAX_TILES = 2 * 1024 * 1024
# Bytes of what a page says of itself.
_MAX_WORDS = 64 * 1024
# None, LZW, Deflate (both codes), PackBits, LZMA, Zstandard (both codes). These unpack into the room that
# the TIFF file declares; JPEG, PNG and the like bring their own size, which may be a thousand times that.
_CODECS = {1, 5, 8, 32946, 32773, 34925, 34926, 50000}
# Kinds of TIFF whose pages tifffile computes, or whose other files it opens, as soon as it opens one.
_COMPUTED: Final = ("lsm", "mmstack", "ndpi", "ndtiff", "scanimage")
_SAME: Final = 1  # of Orientation
_ORIENTATIONS: Final[dict[int, tuple[bool, bool, bool]]] = {
    # Value of the tag: exchange rows and columns, then turn columns round, then rows.
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}


class TiffPages:
    """The pages that a file's directories name, read one at a time.

    Parameters
    ----------
    stream : binary file
    size : int
        Of the file, in bytes.
    directories : Directories
        As `senoscope_client.images.tiff_page_check.list_pages` found them, at least one.
    name : str
        Of the file, for messages.
    """

    def __init__(self, stream: BinaryIO, size: int, directories: Directories, name: str) -> None:
        self.directories = directories
        self.name = name
        self.size = size
        self._stream = stream
        self.file = _file(stream)
        self.first = self._open(0)
        if self.first.is_lsm:
            self.file.is_lsm = True  # later pages need the same corrections as the first
        self._like: dict[tuple[int, int], Any] = {}
        self._turns = {number: self._orientation(number) for number in set(directories.meanings)}

    def __len__(self) -> int:
        return len(self.directories)

    def _open(self, n: int) -> Any:
        self._stream.seek(self.directories.offsets[n])
        return tifffile.TiffPage(self.file, n)

    def page(self, n: int) -> Any:
        """The page, whose pixels are known to be in the file."""
        page = self.first if n == 0 else self._open(n)
        _check_page(page, page, self.size, self.name)
        return page

    def read(self, n: int) -> npt.NDArray[Any]:
        """The pixels of a page as they are stored, with its first row at the top."""
        kind = (self.directories.meanings[n], self.directories.packings[n])
        like = self._like.get(kind)
        if like is None:  # all tags of a page are read once for all that are like it
            like = self._like[kind] = self.first if n == 0 else self._open(n)
        self._stream.seek(self.directories.offsets[n])
        frame: Any = tifffile.TiffFrame(self.file, n)
        _check_page(frame, like, self.size, self.name)
        frame.keyframe = like
        return self._turned(np.asarray(frame.asarray(maxworkers=1)), like.axes, kind[0])

    def contiguous(self, planes: int, asked_by: str) -> Callable[[int], npt.NDArray[Any]]:
        """A reader of planes that follow one another from the first page's pixels on, as in some kinds.

        Parameters
        ----------
        planes : int
        asked_by : str
            What declares them, for messages.

        Raises
        ------
        UnreadableImage
            If they cannot lie so, or reach beyond the end of the file.
        """
        page = self.page(0)
        start, count = int(page.dataoffsets[0]), int(page.nbytes)
        if not self.is_contiguous:
            raise UnreadableImage(
                f"{self.name} describes {planes} pages ({asked_by}), but holds {len(self)}; write it again"
            )
        require_inside(start, planes * count, self.size, self.name)
        dtype, shape = np.dtype(self.file.byteorder + page.dtype.char), page.shape

        def read(n: int) -> npt.NDArray[Any]:
            self._stream.seek(start + n * count)
            plane = np.frombuffer(self._stream.read(count), dtype).reshape(shape)
            return self._turned(plane, page.axes, self.directories.meanings[0])

        return read

    @property
    def is_contiguous(self) -> bool:
        """Whether the pixels of the first page are one piece, as they lie in memory."""
        return bool(self.first.is_contiguous) and int(self.first.compression) == 1

    def orientation(self, n: int) -> int:
        """The tag Orientation of a page."""
        return self._turns[self.directories.meanings[n]]

    def shape(self, n: int) -> tuple[tuple[int, ...], str]:
        """Shape and axes of a page as `read` gives it."""
        page = self.first if n == 0 else self._open(n)
        shape = list(page.shape)
        if _ORIENTATIONS[self.orientation(n)][0]:
            y, x = page.axes.index("Y"), page.axes.index("X")
            shape[y], shape[x] = shape[x], shape[y]
        return tuple(shape), page.axes

    def kind(self, n: int) -> str:
        """Shape and type of a page, for messages."""
        page = self.first if n == 0 else self._open(n)
        return f"{'x'.join(map(str, page.shape))} {page.dtype}"

    def metadata(self, n: int) -> dict[str, Any] | None:
        """What Micro-Manager wrote about a page; None where it wrote nothing that can be read."""
        place, length = self.directories.metadata[2 * n : 2 * n + 2]
        if not length:
            return None
        self._stream.seek(place)
        try:
            found = json.loads(self._stream.read(length).rstrip(b"\0"))
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    def page_name(self, n: int) -> str:
        """The tag PageName of a page, empty where it has none."""
        return self._words(*self.directories.names[2 * n : 2 * n + 2])

    def description(self, n: int) -> str:
        """The beginning of the first tag ImageDescription of a page, empty where it has none."""
        return self._words(*self.directories.descriptions[2 * n : 2 * n + 2])

    def _words(self, place: int, length: int) -> str:
        if not length:
            return ""
        self._stream.seek(place)
        text = self._stream.read(min(length, _MAX_WORDS)).partition(b"\0")[0]
        return text.decode("utf-8", "replace").strip()

    def _orientation(self, meaning: int) -> int:
        page = self._open(self.directories.meanings.index(meaning))
        value = page.tags.valueof(274, _SAME)
        if value not in _ORIENTATIONS:
            raise UnreadableImage(f"{self.name} has a page with an unknown orientation; write it again")
        return int(value)

    def _turned(self, plane: npt.NDArray[Any], axes: str, meaning: int) -> npt.NDArray[Any]:
        exchange, columns, rows = _ORIENTATIONS[self._turns[meaning]]
        y, x = axes.index("Y"), axes.index("X")
        if exchange:
            plane = plane.swapaxes(y, x)
        flipped = tuple(axis for axis, flip in ((x, columns), (y, rows)) if flip)
        return np.flip(plane, flipped) if flipped else plane


def _file(stream: BinaryIO) -> Any:
    """The file, for its pages to refer to; others that its metadata name are not opened."""
    flags: dict[str, Any] = {f"is_{kind}": False for kind in _COMPUTED}
    return tifffile.TiffFile(stream, name="upload.tif", _multifile=False, **flags)


def _check_page(place: Any, page: Any, size: int, name: str) -> None:
    """All pixels are in the file, and its segments are of a likely size.

    ``place`` says where they are, ``page`` how they are packed.
    """
    if int(page.compression) not in _CODECS:
        codec = getattr(page.compression, "name", page.compression)
        raise UnreadableImage(
            f"{name} is compressed with {codec}; save it with LZW, Deflate, Zstandard, or uncompressed"
        )
    sizes = (page.imagewidth, page.imagelength, page.samplesperpixel, page.bitspersample)
    if not all(isinstance(number, int) for number in sizes):
        # Bits of each sample, for one; multiplied, a tuple would take any amount of memory.
        raise UnreadableImage(f"{name} has a page that tells several sizes of one thing; write it again")
    samples = page.samplesperpixel if page.planarconfig == 1 else 1
    segments = prod(page.chunked)
    if page.is_tiled:
        tile = page.tilewidth * page.tilelength * max(1, page.tiledepth) * samples
        if tile * page.bitspersample // 8 * segments > max(_MAX_TILES, 8 * page.nbytes):
            raise UnreadableImage(
                f"{name} has tiles of {page.tilelength}x{page.tilewidth} pixels, much larger than its "
                "frames; save it without tiles"
            )
    if min(len(place.dataoffsets), len(place.databytecounts)) < segments:
        raise UnreadableImage(
            f"{name} has a page in {segments} pieces and tells the place of {len(place.dataoffsets)} and the "
            f"length of {len(place.databytecounts)} of them; write it again"
        )
    # Places and lengths of 64 bits; a sum of floats cannot overflow.
    offsets = np.asarray(place.dataoffsets[:segments], np.float64)
    counts = np.asarray(place.databytecounts[:segments], np.float64)
    if not (offsets > 0).all() or not (counts > 0).all():
        raise UnreadableImage(f"{name} has a page with pixels missing: writing it was not finished")
    last = int(np.argmax(offsets + counts))
    require_inside(int(place.dataoffsets[last]), int(place.databytecounts[last]), size, name)
    needed = page.imagewidth * page.imagelength * page.samplesperpixel * page.bitspersample // 8
    if page.compression == 1 and counts.sum() < needed:
        raise UnreadableImage(
            f"{name} is cut off: a page takes {needed} bytes of pixels, the file tells {counts.sum():.0f}"
        )


def require_inside(offset: int, count: int, size: int, name: str) -> None:
    """Check that pixels are in the file; tifffile makes zeros of those that are not.

    Raises
    ------
    UnreadableImage
    """
    if offset + count > size:
        raise UnreadableImage(
            f"{name} is cut off: pixels are at bytes {offset} to {offset + count}, the file has {size}"
        )
