"""Reader of NPY files that does not trust them: their header is checked, and nothing is unpickled."""

from __future__ import annotations

import threading
from functools import lru_cache
from math import prod
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from senoscope_client.errors import AmbiguousAxes, UnreadableImage
from senoscope_client.images.axes import ReadOptions
from senoscope_client.images.notices import Notice
from senoscope_client.images.stored import StoredImage

_MAX_HEADER = 10_000  # the limit of NumPy
_MAX_TOGETHER_BYTES = 256 * 1024 * 1024
# Python below 3.11.8 and 3.12.2 can reject a valid literal while another thread parses one (gh-106905).
_HEADER_LOCK = threading.Lock()


def open_array(stream: BinaryIO, size: int, options: ReadOptions) -> StoredImage:
    """Open the array in a file of ``size`` bytes; its axes are those of the options or of the shape.

    Raises
    ------
    UnreadableImage
        If the array holds Python objects, or its declared size differs from that of the file.
    AmbiguousAxes
        If the axes cannot be inferred from the shape.
    """
    user_axes, channels = options.axes, len(options.spec.channels)
    start, shape, fortran, dtype = _read_layout(stream, size, options.name)
    axes = infer_axes(shape, channels, options.name) if user_axes is None else "?" * len(shape)
    given = (user_axes or "").strip().upper()
    # Planes begin at the first of the axes Y and X; pages that the user unfolds are before them anyway.
    letters = (
        given if len(given) == len(shape) else axes if user_axes is None else "?" * (len(shape) - 2) + "YX"
    )
    first = min((letters.find(letter) for letter in "YX" if letter in letters), default=0)
    inner = len(shape) - first
    plane = shape[first:]
    count = prod(plane)
    # If the last axis changes most slowly, the numbers of a plane are scattered over the file, and planes are
    # read together. A map of the file would end the process when another program cuts the file off.
    slab = prod(shape[:-1]) * dtype.itemsize
    together = max(1, min(size // 32, _MAX_TOGETHER_BYTES) // (count * dtype.itemsize))

    def read_contiguous(n: int) -> npt.NDArray[Any]:
        stream.seek(start + n * count * dtype.itemsize)
        return np.frombuffer(stream.read(count * dtype.itemsize), dtype).reshape(plane)

    @lru_cache(maxsize=4)  # if the channel is the first axis, those of a field of view are far apart
    def read_together(first_plane: int) -> npt.NDArray[Any]:
        numbers = np.arange(first_plane, min(first_plane + together, prod(shape[:first])))
        at = np.unravel_index(numbers, shape[:first]) if first else (None,)
        planes = np.empty((len(numbers), *plane), dtype)
        for k in range(shape[-1]):
            stream.seek(start + k * slab)
            planes[..., k] = np.frombuffer(stream.read(slab), dtype).reshape(shape[:-1], order="F")[at]
        return planes

    def read_scattered(n: int) -> npt.NDArray[Any]:
        return np.asarray(read_together(n - n % together)[n % together])

    read = read_scattered if fortran else read_contiguous
    notices: tuple[Notice, ...] = ()
    if axes == "PCYX" and shape[0] == shape[1]:
        text = (
            f"the array is taken as {shape[0]} fields of view of {shape[1]} channels each; if its first axis "
            "is the channel, pass axes=CPYX"
        )
        notices = (Notice("axes", text),)
    return StoredImage(shape, axes, inner, dtype, read, notices=notices)


def read_array(stream: BinaryIO, size: int, name: str) -> npt.NDArray[Any]:
    """Read the whole array in a file.

    Raises
    ------
    UnreadableImage
        See `open_array`.
    """
    _, shape, fortran, dtype = _read_layout(stream, size, name)
    return np.frombuffer(stream.read(), dtype).reshape(shape, order="F" if fortran else "C")


def _read_layout(stream: BinaryIO, size: int, name: str) -> tuple[int, tuple[int, ...], bool, np.dtype[Any]]:
    """Return the offset of the numbers, their shape, whether they are in Fortran order, and their type."""
    head = stream.read(12)
    long = head[6:7] != b"\1"
    header = int.from_bytes(head[8 : 12 if long else 10], "little")
    if header > _MAX_HEADER:
        raise UnreadableImage(f"{name} is an NPY file with a header of {header} bytes; save it again")
    stream.seek(0)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        with _HEADER_LOCK:
            shape, fortran, dtype = read[np.lib.format.read_magic(stream)](stream)
        if any(type(length) is not int for length in shape):  # NumPy accepts True
            raise TypeError
    except Exception as error:  # NumPy calls Python's parser, which raises many kinds of exceptions
        raise UnreadableImage(f"{name} is an NPY file with a damaged header; save it again") from error
    if dtype.hasobject:
        raise UnreadableImage(
            f"{name} is an NPY file of Python objects, which is never opened; save an array of numbers"
        )
    if min(shape, default=1) < 1 or max(shape, default=1) > size:  # such numbers may be too long to print
        raise UnreadableImage(
            f"{name} is an NPY file whose shape is empty or larger than the file: it is cut off or damaged"
        )
    start = stream.tell()
    wanted, present = prod(shape) * dtype.itemsize, size - start
    if wanted != present or not wanted:
        raise UnreadableImage(
            f"{name} is an NPY file of shape {shape} and type {dtype}, which takes {wanted} bytes of pixels; "
            f"it holds {present}: the file is cut off or damaged"
        )
    return start, tuple(shape), fortran, dtype


def infer_axes(shape: tuple[int, ...], channels: int, name: str) -> str:
    """Infer the axes of an array: [C, H, W] or [H, W, C], with or without N before, or unnamed pages.

    Raises
    ------
    AmbiguousAxes
        If it has more than four or fewer than two axes.
    """
    lead = "P" * (len(shape) == 4)
    if len(shape) in (3, 4):
        last, before = shape[-1] == channels, shape[-3] == channels
        if last and not before:
            return f"{lead}YXC"
        if before or len(shape) == 4:
            return f"{lead}CYX"
        return "QYX"
    if len(shape) == 2:
        return "YX"
    raise AmbiguousAxes(
        f"{name} is an array of {len(shape)} axes; pass axes= with a letter for each, such as TZCYX"
    )
