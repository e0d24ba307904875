"""Reader of single pages of an untrusted TIFF file. Needs the extra ``tiff``.

tifffile decodes the pages. The list of pages is read from the directories of the file (see
`tiff_page_check`), because tifffile computes it for some kinds of files.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from math import prod
from typing import Any, BinaryIO, Final, cast

import imagecodecs  # noqa: F401 - tifffile imports it when it needs a codec; it must be installed then
import numpy as np
import numpy.typing as npt
import tifffile

from senoscope_client.errors import UnreadableImage
from senoscope_client.images.tiff_page_check import Directories

# Limit for the bytes of the tiles of a small page.
_MAX_TILES = 2 * 1024 * 1024
# Limit for the bytes of a text of a page.
_MAX_TEXT_BYTES = 64 * 1024
# None, LZW, Deflate (both codes), PackBits, LZMA, Zstandard (both codes). Their decoded size is declared by
# the TIFF file; JPEG, PNG and similar codecs declare it themselves, and it may be a thousand times larger.
_CODECS = {1, 5, 8, 32946, 32773, 34925, 34926, 50000}
# Kinds of TIFF files for which tifffile computes pages, or opens further files, when it opens one.
_DISABLED_KINDS: Final = ("lsm", "mmstack", "ndpi", "ndtiff", "scanimage")
# Values of the tag Orientation: rows and columns are exchanged, then columns are reversed, then rows.
_UNCHANGED: Final = 1
_EXCHANGED: Final = {5, 6, 7, 8}
_COLUMNS_REVERSED: Final = {2, 3, 6, 7}
_ROWS_REVERSED: Final = {3, 4, 7, 8}


class TiffPages:
    """The pages in the directories of a file, at least one, read one at a time.

    ``size`` is that of the file, in bytes.
    """

    def __init__(self, stream: BinaryIO, size: int, directories: Directories, name: str) -> None:
        self.directories = directories
        self.name = name
        self.size = size
        self._stream = stream
        # Further files that the metadata name are not opened.
        flags: dict[str, Any] = {f"is_{kind}": False for kind in _DISABLED_KINDS}
        self.file = cast(Any, tifffile.TiffFile(stream, name="upload.tif", _multifile=False, **flags))
        stream.seek(directories.offsets[0])
        self.first: Any = tifffile.TiffPage(self.file, 0)
        if self.first.is_lsm:
            self.file.is_lsm = True  # later pages need the same corrections as the first
        self._keyframes: dict[tuple[int, int], Any] = {}
        self._orientations = {number: self._read_orientation(number) for number in set(directories.meanings)}

    def __len__(self) -> int:
        return len(self.directories)

    def _open(self, n: int) -> Any:
        if n == 0:
            return self.first
        self._stream.seek(self.directories.offsets[n])
        return tifffile.TiffPage(self.file, n)

    def page(self, n: int) -> Any:
        """Return a page after checking that its pixels are in the file."""
        page = self._open(n)
        self._check_page(page, page)
        return page

    def read(self, n: int) -> npt.NDArray[Any]:
        """Read the stored pixels of a page, rotated according to its orientation."""
        kind = (self.directories.meanings[n], self.directories.packings[n])
        keyframe = self._keyframes.get(kind)
        if keyframe is None:  # all tags are read once for all pages of a kind
            keyframe = self._keyframes[kind] = self._open(n)
        self._stream.seek(self.directories.offsets[n])
        frame: Any = tifffile.TiffFrame(self.file, n)
        self._check_page(frame, keyframe)
        frame.keyframe = keyframe
        return self._rotate(np.asarray(frame.asarray(maxworkers=1)), keyframe.axes, kind[0])

    def contiguous_planes(self, planes: int, declared_by: str) -> Callable[[int], npt.NDArray[Any]]:
        """Return a reader of planes that are stored one after another, from the first page's pixels on.

        Messages contain the name of the program that declares the planes.

        Raises
        ------
        UnreadableImage
            If the first page is not contiguous, or the planes extend beyond the end of the file.
        """
        page = self.page(0)
        start, count = int(page.dataoffsets[0]), int(page.nbytes)
        if not self.is_contiguous:
            raise UnreadableImage(
                f"{self.name} describes {planes} pages ({declared_by}), but holds {len(self)}; save it again"
            )
        self._require_inside(start, planes * count)
        dtype, shape = np.dtype(self.file.byteorder + page.dtype.char), page.shape

        def read(n: int) -> npt.NDArray[Any]:
            self._stream.seek(start + n * count)
            plane = np.frombuffer(self._stream.read(count), dtype).reshape(shape)
            return self._rotate(plane, page.axes, self.directories.meanings[0])

        return read

    @property
    def is_contiguous(self) -> bool:
        """Whether the pixels of the first page are uncompressed and contiguous."""
        return bool(self.first.is_contiguous) and int(self.first.compression) == 1

    def orientation(self, n: int) -> int:
        """Return the tag Orientation of a page."""
        return self._orientations[self.directories.meanings[n]]

    def shape(self, n: int) -> tuple[tuple[int, ...], str]:
        """Return shape and axes of a page as returned by `read`."""
        page = self._open(n)
        shape = list(page.shape)
        if self.orientation(n) in _EXCHANGED:
            y, x = page.axes.index("Y"), page.axes.index("X")
            shape[y], shape[x] = shape[x], shape[y]
        return tuple(shape), page.axes

    def kind(self, n: int) -> str:
        """Return shape and type of a page, for messages."""
        page = self._open(n)
        return f"{'x'.join(map(str, page.shape))} {page.dtype}"

    def metadata(self, n: int) -> dict[str, Any] | None:
        """Read Micro-Manager's metadata of a page; return None if there are none, or if they are invalid."""
        offset, length = self.directories.metadata[2 * n : 2 * n + 2]
        if not length:
            return None
        self._stream.seek(offset)
        try:
            found = json.loads(self._stream.read(length).rstrip(b"\0"))
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    def page_name(self, n: int) -> str:
        """Return the tag PageName of a page; empty if it has none."""
        return self._read_text(*self.directories.names[2 * n : 2 * n + 2])

    def description(self, n: int) -> str:
        """Return the beginning of the first tag ImageDescription of a page; empty if it has none."""
        return self._read_text(*self.directories.descriptions[2 * n : 2 * n + 2])

    def _read_text(self, offset: int, length: int) -> str:
        if not length:
            return ""
        self._stream.seek(offset)
        text = self._stream.read(min(length, _MAX_TEXT_BYTES)).partition(b"\0")[0]
        return text.decode("utf-8", "replace").strip()

    def _read_orientation(self, meaning: int) -> int:
        page = self._open(self.directories.meanings.index(meaning))
        value = page.tags.valueof(274, _UNCHANGED)
        if value not in range(1, 9):
            raise UnreadableImage(f"{self.name} has a page with an unknown orientation; save it again")
        return int(value)

    def _rotate(self, plane: npt.NDArray[Any], axes: str, meaning: int) -> npt.NDArray[Any]:
        value, y, x = self._orientations[meaning], axes.index("Y"), axes.index("X")
        if value in _EXCHANGED:
            plane = plane.swapaxes(y, x)
        if value in _COLUMNS_REVERSED:
            plane = np.flip(plane, x)
        return np.flip(plane, y) if value in _ROWS_REVERSED else plane

    def _check_page(self, frame: Any, page: Any) -> None:
        """Check that all pixels of a page are in the file, and that its segments have a plausible size.

        ``frame`` has the offsets of the segments, ``page`` their format.
        """
        name = self.name
        if int(page.compression) not in _CODECS:
            codec = getattr(page.compression, "name", page.compression)
            raise UnreadableImage(
                f"{name} is compressed with {codec}; save it with LZW, Deflate, Zstandard, or uncompressed"
            )
        sizes = (page.imagewidth, page.imagelength, page.samplesperpixel, page.bitspersample)
        if not all(isinstance(number, int) for number in sizes):
            # For example the bits of each sample; a tuple multiplied by a number can take much memory.
            raise UnreadableImage(f"{name} has a page with several values for one size; save it again")
        samples = page.samplesperpixel if page.planarconfig == 1 else 1
        segments = prod(page.chunked)
        if page.is_tiled:
            tile = page.tilewidth * page.tilelength * max(1, page.tiledepth) * samples
            if tile * page.bitspersample // 8 * segments > max(_MAX_TILES, 8 * page.nbytes):
                raise UnreadableImage(
                    f"{name} has tiles of {page.tilelength}x{page.tilewidth} pixels, much larger than its "
                    "frames; save it without tiles"
                )
        if min(len(frame.dataoffsets), len(frame.databytecounts)) < segments:
            raise UnreadableImage(
                f"{name} has a page in {segments} pieces, but declares the offsets of "
                f"{len(frame.dataoffsets)} and the lengths of {len(frame.databytecounts)} of them; save it "
                "again"
            )
        # Offsets and lengths have 64 bits; a sum of floats cannot overflow.
        offsets = np.asarray(frame.dataoffsets[:segments], np.float64)
        counts = np.asarray(frame.databytecounts[:segments], np.float64)
        if not (offsets > 0).all() or not (counts > 0).all():
            raise UnreadableImage(f"{name} has a page with pixels missing: writing it was not finished")
        last = int(np.argmax(offsets + counts))
        self._require_inside(int(frame.dataoffsets[last]), int(frame.databytecounts[last]))
        needed = page.imagewidth * page.imagelength * page.samplesperpixel * page.bitspersample // 8
        if page.compression == 1 and counts.sum() < needed:
            raise UnreadableImage(
                f"{name} is cut off: a page needs {needed} bytes of pixels, the file declares "
                f"{counts.sum():.0f}"
            )

    def _require_inside(self, offset: int, count: int) -> None:
        """Check that pixels are in the file; tifffile returns zeros for pixels that are not."""
        if offset + count > self.size:
            raise UnreadableImage(
                f"{self.name} is cut off: pixels are at bytes {offset} to {offset + count}, the file has "
                f"{self.size}"
            )
