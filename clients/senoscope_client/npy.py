"""What an NPY file declares, found out without trusting it; nothing is unpickled."""

from __future__ import annotations

import threading
from collections.abc import Callable
from math import prod
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from senoscope_client.errors import AmbiguousAxes, UnreadableImage

_MAX_HEADER = 10_000  # as much as NumPy reads
# Python below 3.11.8 and 3.12.2 can take a literal for damaged when another is parsed meanwhile (gh-106905).
_ONE_AT_A_TIME = threading.Lock()

Description = tuple[tuple[int, ...], str, "np.dtype[Any]", None, Callable[[], npt.NDArray[Any]]]


def describe(stream: BinaryIO, size: int, name: str) -> Description:
    """Shape, no axes, dtype, no channel names, and decoder of the array; ``name`` is for messages.

    Raises
    ------
    UnreadableImage
        If it is of Python objects, or if it declares another number of bytes than there are.
    """
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
    if dtype.hasobject:
        raise UnreadableImage(
            f"{name} is an NPY file of Python objects, which is never opened; save an array of numbers"
        )
    if min(shape, default=1) < 1 or max(shape, default=1) > size:  # numbers that can be too long to print
        raise UnreadableImage(
            f"{name} is an NPY file whose shape is empty or larger than the file: it is cut off or damaged"
        )
    wanted, present = prod(shape) * dtype.itemsize, size - stream.tell()
    if wanted != present or not wanted:
        raise UnreadableImage(
            f"{name} is an NPY file of shape {shape} and type {dtype}, which takes {wanted} bytes of pixels; "
            f"it holds {present}: the file is cut off or damaged"
        )

    def decode() -> npt.NDArray[Any]:
        flat = np.frombuffer(stream.read(wanted), dtype)
        return flat.reshape(shape, order="F" if fortran else "C")

    return tuple(shape), "", dtype, None, decode


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
