"""What an NPY file declares, found out without trusting it; nothing is unpickled."""

from __future__ import annotations

import io
import threading
from math import prod
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from senoscope_client.errors import AmbiguousAxes, UnreadableImage
from senoscope_client.images.notices import Notice
from senoscope_client.images.stored import StoredImage

_MAX_HEADER = 10_000  # as much as NumPy reads
# Python below 3.11.8 and 3.12.2 can take a literal for damaged when another is parsed meanwhile (gh-106905).
_ONE_AT_A_TIME = threading.Lock()


def describe(stream: BinaryIO, size: int, channels: int, asked: str | None, name: str) -> StoredImage:
    """The array in a file.

    Parameters
    ----------
    stream : binary file
        At its beginning.
    size : int
        Of the file, in bytes.
    channels : int
        How many the ensemble takes.
    asked : str or None
        The axes as the user gives them; else they follow from the shape.
    name : str
        Of the file, for messages.

    Raises
    ------
    UnreadableImage
        If it is of Python objects, or if it declares another number of bytes than there are.
    AmbiguousAxes
        If the axes do not follow from the shape.
    """
    start, shape, fortran, dtype = _open(stream, size, name)
    axes = axes_of(shape, channels, name) if asked is None else "?" * len(shape)
    given = (asked or "").strip().upper()
    # Planes begin at the first of rows and columns; pages that the user unfolds come before them anyway.
    letters = given if len(given) == len(shape) else axes if asked is None else "?" * (len(shape) - 2) + "YX"
    first = min((letters.find(letter) for letter in "YX" if letter in letters), default=0)
    inner = len(shape) - first
    plane = shape[first:]
    count = prod(plane)
    whole: npt.NDArray[Any] | None = None

    def read_contiguous(n: int) -> npt.NDArray[Any]:
        stream.seek(start + n * count * dtype.itemsize)
        return np.frombuffer(stream.read(count * dtype.itemsize), dtype).reshape(plane)

    def read_scattered(n: int) -> npt.NDArray[Any]:
        nonlocal whole
        if whole is None:
            if isinstance(stream, io.BufferedReader):  # a local file can be longer than memory
                whole = np.memmap(stream, dtype, "r", start, shape, "F")
            else:
                stream.seek(start)
                whole = np.frombuffer(stream.read(), dtype).reshape(shape, order="F")
        at = np.unravel_index(n, shape[:first]) if first else ()
        return np.asarray(whole[tuple(at)])

    read = read_scattered if fortran else read_contiguous
    notices: tuple[Notice, ...] = ()
    if axes == "PCYX" and shape[0] == shape[1]:
        text = (
            f"the array is taken as {shape[0]} fields of view of {shape[1]} channels each; if the channels "
            "come first, pass axes=CPYX"
        )
        notices = (Notice("axes", text),)
    return StoredImage(shape, axes, inner, dtype, read, notices=notices)


def read_array(stream: BinaryIO, size: int, name: str) -> npt.NDArray[Any]:
    """The whole array in a file.

    Raises
    ------
    UnreadableImage
        As of `describe`.
    """
    _, shape, fortran, dtype = _open(stream, size, name)
    return np.frombuffer(stream.read(), dtype).reshape(shape, order="F" if fortran else "C")


def _open(stream: BinaryIO, size: int, name: str) -> tuple[int, tuple[int, ...], bool, np.dtype[Any]]:
    """Where the numbers begin, their shape, whether the first axis changes fastest, and their type."""
    shape, fortran, dtype = _header(stream, name)
    if dtype.hasobject:
        raise UnreadableImage(
            f"{name} is an NPY file of Python objects, which is never opened; save an array of numbers"
        )
    if min(shape, default=1) < 1 or max(shape, default=1) > size:  # numbers that can be too long to print
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
    return start, shape, fortran, dtype


def _header(stream: BinaryIO, name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    head = stream.read(12)
    long = head[6:7] != b"\1"
    header = int.from_bytes(head[8 : 12 if long else 10], "little")
    if header > _MAX_HEADER:
        raise UnreadableImage(f"{name} is an NPY file with a header of {header} bytes; save it again")
    stream.seek(0)
    try:
        version = np.lib.format.read_magic(stream)

        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        with _ONE_AT_A_TIME:
            shape, fortran, dtype = read[version](stream)
    except Exception as error:  # NumPy hands the header to Python's parser, which raises what it likes
        raise UnreadableImage(f"{name} is an NPY file with a damaged header; save it again") from error
    if any(type(length) is not int for length in shape):  # NumPy lets True pass
        raise UnreadableImage(f"{name} is an NPY file with a damaged header; save it again")
    return tuple(shape), fortran, dtype


def axes_of(shape: tuple[int, ...], channels: int, name: str) -> str:
    """The axes that an array can have: [C, H, W], or [H, W, C], with or without N before; or bare pages.

    Raises
    ------
    AmbiguousAxes
        If it has more axes, or fewer than two.
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
        f"{name} is an array of {len(shape)} axes; pass axes= with a letter for each, as in TZCYX"
    )
