"""Reading fields of view from TIFF and NPY files that nobody vouches for.

All that a file declares (pages, size, compression, axes, channels) is checked before a pixel is decoded
and before memory for it is allocated.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from senoscope_client import ifd, npy
from senoscope_client._foreign import tellable
from senoscope_client.axes import FovSpec, Layout, layout_of
from senoscope_client.errors import (
    AmbiguousAxes,
    InvalidRequest,
    NonFinitePixels,
    PayloadTooLarge,
    SenoscopeError,
    TooManyFields,
    UnreadableImage,
    UnsupportedMediaType,
    WrongChannelCount,
)

__all__ = ["FovSpec", "FovStack", "Limits", "as_supported", "read_fovs"]

_MIB = 1024 * 1024
_UNSUSPICIOUS_BYTES = 64 * _MIB
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_NPY_MAGIC = b"\x93NUMPY"
_READABLE = frozenset({"image/tiff", "image/x-tiff", "image/tif", "application/x-npy", "application/npy"})
_SUPPORTED = frozenset({"uint8", "uint16", "float32"})
_KNOWN = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "a gzip archive",
    b"\x89HDF": "an HDF5 file",
    b"BM": "a BMP image",
    b"%PDF": "a PDF document",
}


@dataclass(frozen=True)
class Limits:
    """What one file may unpack to.

    Attributes
    ----------
    max_fovs : int
        Fields of view.
    max_decoded_bytes : int
        Bytes of pixels.
    max_ratio : float
        Bytes of pixels per byte of file, for files that declare more than 64 MiB.
    admit : callable, optional
        Called with the bytes that decoding takes, when all else was checked and before it begins; what it
        raises is what reading raises.
    """

    max_fovs: int = 512
    max_decoded_bytes: int = 512 * _MIB
    max_ratio: float = 100.0
    admit: Callable[[int], None] | None = None

    def unpacked_bytes(self, packed_bytes: int) -> int:
        """What a body of that many compressed bytes may unpack to."""
        plausible = max(_UNSUSPICIOUS_BYTES, int(self.max_ratio * packed_bytes))
        return min(self.max_decoded_bytes, plausible)


@dataclass(frozen=True)
class FovStack:
    """Fields of view from a file.

    Attributes
    ----------
    pixels : array [N, C, H, W]
        Raw detector units; uint8, uint16 or float32, channels in the order that was asked for.
    warnings : tuple of str
        What was assumed about the file.
    """

    pixels: npt.NDArray[Any]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Image:
    """An image that was opened but not yet decoded."""

    shape: tuple[int, ...]
    axes: str
    dtype: np.dtype[Any]
    channel_names: tuple[str, ...] | None
    decode: Callable[[], npt.NDArray[Any]]


def read_fovs(
    file: BinaryIO | Path,
    spec: FovSpec,
    *,
    media_type: str | None = None,
    axes: str | None = None,
    channels: Sequence[str] | None = None,
    limits: Limits | None = None,
    name: str = "the file",
) -> FovStack:
    """Read the fields of view of a TIFF or NPY file.

    Parameters
    ----------
    file : binary file or Path
        Seekable.
    spec : FovSpec
        What the ensemble takes. Frames of another size are refused, never resized.
    media_type : str, optional
        As the sender declares it; the first bytes of the file count more.
    axes : str, optional
        The file's axes, such as ``PCYX``, where it does not tell or tells wrongly.
    channels : sequence of str, optional
        The names of the file's channels in its order, where it does not tell or tells wrongly.
    limits : Limits, optional
    name : str
        Of the file, for messages.

    Raises
    ------
    UnsupportedMediaType, UnreadableImage, AmbiguousAxes, WrongFrameSize, WrongChannelCount,
    NonFinitePixels, PayloadTooLarge, TooManyFields, InvalidRequest
        See `senoscope_client.errors`.
    OSError
        If a path cannot be opened.
    """
    limits = limits or Limits()
    opened: AbstractContextManager[BinaryIO] = (
        cast(BinaryIO, file.open("rb")) if isinstance(file, Path) else nullcontext(file)
    )
    with opened as stream:
        size = stream.seek(0, io.SEEK_END)
        stream.seek(0)
        head = stream.read(8)
        stream.seek(0)
        if not size:
            raise UnreadableImage(f"{name} is empty; send a TIFF stack or an NPY array")
        if head.startswith(_NPY_MAGIC):
            image = Image(*npy.describe(stream, size, name))
            return decode(image, size, spec, axes, channels, limits, name)
        if head.startswith(_TIFF_MAGIC):
            return _read_tiff(stream, size, spec, axes, channels, limits, name)
    declared = (media_type or "").partition(";")[0].strip().lower()
    if declared in _READABLE:
        raise UnreadableImage(f"{name} is declared as {declared}, but does not begin as such a file does")
    found = next((what for magic, what in _KNOWN.items() if head.startswith(magic)), None)
    if found is None and head.isascii() and head.decode().replace("\n", " ").replace("\r", " ").isprintable():
        found = "text"
    raise UnsupportedMediaType(
        f"{name} is {found or 'neither a TIFF stack nor an NPY array'}; send TIFF or NPY"
    )


def _read_tiff(
    stream: BinaryIO,
    size: int,
    spec: FovSpec,
    axes: str | None,
    channels: Sequence[str] | None,
    limits: Limits,
    name: str,
) -> FovStack:
    try:
        from senoscope_client import tiff
    except ImportError as error:
        raise SenoscopeError('reading TIFF files needs `pip install "senoscope[tiff]"`') from error
    max_pages = limits.max_fovs * max(8, 2 * len(spec.channels))
    smallest = ifd.check_pages(stream, size, max_pages=max_pages, name=name)
    told = axes is not None
    try:
        with tiff.open_tiff(stream) as opened:
            image = Image(
                *tiff.describe(opened, size, max_pages=max_pages, smallest=smallest, told=told, name=name)
            )
            return decode(image, size, spec, axes, channels, limits, name)
    except SenoscopeError:
        raise
    except MemoryError as error:
        raise PayloadTooLarge(f"{name} unpacks to more than the memory that is free; split it") from error
    except Exception as error:  # the decoders raise dozens of unrelated classes on damaged files
        raise UnreadableImage(
            f"{name} is a damaged TIFF file, or one of a kind that cannot be read ({type(error).__name__}); "
            "write it again, best without compression"
        ) from error


def decode(
    image: Image,
    size: int,
    spec: FovSpec,
    asked: str | None,
    channels: Sequence[str] | None,
    limits: Limits,
    name: str,
) -> FovStack:
    """Check what an image declares, then decode it; see `read_fovs`."""
    if image.dtype.kind not in "uif":
        raise UnreadableImage(f"{name} holds values of type {image.dtype}; pixels are integers or floats")
    if not prod(image.shape):
        raise UnreadableImage(f"{name} holds an image without pixels, of shape {image.shape}")
    axes = image.axes or (
        npy.axes_of(image.shape, len(spec.channels), name) if asked is None else "?" * len(image.shape)
    )
    layout = layout_of(image.shape, axes, asked, spec, name)
    select, warnings = _channels(image, layout, spec, channels, name)
    _check_size(image, layout, size, limits, name)
    if limits.admit is not None:
        decoded = prod(image.shape) * image.dtype.itemsize
        as_it_is = select is None and image.dtype.isnative and image.dtype.name in _SUPPORTED
        limits.admit(decoded if as_it_is else 2 * decoded)  # the pixels are copied on the way
    pixels = layout.apply(image.decode())
    if select is not None:
        pixels = pixels[:, select]
    return FovStack(as_supported(pixels, spec, name), (*layout.warnings, *warnings))


def _check_size(image: Image, layout: Layout, size: int, limits: Limits, name: str) -> None:
    if layout.fovs > limits.max_fovs:
        raise TooManyFields(
            f"{name} holds {layout.fovs} fields of view, at most {limits.max_fovs} are taken; split it"
        )
    decoded = prod(image.shape) * image.dtype.itemsize
    if decoded > limits.max_decoded_bytes:
        raise PayloadTooLarge(
            f"{name} unpacks to {decoded / _MIB:.0f} MiB, at most {limits.max_decoded_bytes / _MIB:.0f} MiB "
            "are taken; split it"
        )
    if decoded > _UNSUSPICIOUS_BYTES and decoded > limits.max_ratio * size:
        raise PayloadTooLarge(
            f"{name} unpacks to {decoded / size:.0f} times its size, which no real stack does; at most "
            f"{limits.max_ratio:.0f} times are taken. Split it, or save it without compression"
        )


def _channels(
    image: Image, layout: Layout, spec: FovSpec, asked: Sequence[str] | None, name: str
) -> tuple[list[int] | None, tuple[str, ...]]:
    """Which of the file's channels to take, in which order (None: all, as they are), and warnings."""
    names = image.channel_names
    if asked is not None:
        if len(asked) != layout.channels:
            raise InvalidRequest(f"channels= names {len(asked)} channels, {name} has {layout.channels}")
        names = tuple(asked)
    wanted = ", ".join(spec.channels)
    if names is not None and len(names) == layout.channels:
        known = [_plain(given) for given in names]
        found = [known.index(_plain(c)) for c in spec.channels if known.count(_plain(c)) == 1]
        if len(found) == len(spec.channels):
            extra = [given for n, given in enumerate(names) if n not in found]
            warning = (f"channels that the ensemble does not take were left out: {_told(extra)}",)
            return (None if found == list(range(len(names))) else found), warning if extra else ()
        if found or asked is not None:
            raise AmbiguousAxes(
                f"{name} has channels named {_told(names)}; the ensemble takes {wanted}. Pass "
                "channels= with the names of the file's channels in its order"
            )
    if layout.channels != len(spec.channels):
        raise WrongChannelCount(
            f"{name} has {layout.channels} channels, the ensemble takes {len(spec.channels)}: {wanted}"
        )
    if names is not None and any(names):
        return None, (f"the file's channels ({_told(names)}) are taken as {wanted}, by position",)
    return None, ()


def _told(names: Sequence[str]) -> str:
    return tellable(", ".join(names), 200)


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).casefold()


def as_supported(pixels: npt.NDArray[Any], spec: FovSpec, name: str) -> npt.NDArray[Any]:
    """The pixels as contiguous uint8, uint16 or float32 of this machine's byte order, all of them finite.

    Parameters
    ----------
    pixels : array [N, C, H, W], any real dtype
        Returned as it is where it is all that already.
    name : str
        What holds them, for messages.

    Raises
    ------
    NonFinitePixels
    """
    kept = pixels.dtype.kind == "u" and pixels.dtype.itemsize <= 2
    with np.errstate(over="ignore", invalid="ignore"):  # what is too large becomes infinite, found below
        pixels = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("=") if kept else np.float32)
    if pixels.dtype.kind != "f":
        return pixels
    # The sum is finite only if every pixel is, unless large ones overflow it: cheap, and then exact.
    with np.errstate(invalid="ignore"):
        if np.isfinite(pixels.sum(dtype=np.float64)):
            return pixels
    bad = ~np.isfinite(pixels)
    if bad.any():
        n, c = np.argwhere(bad)[0][:2]
        raise NonFinitePixels(
            f"{name} holds {int(bad.sum())} pixels that are NaN or infinite, the first in field of view {n}, "
            f"channel {spec.channels[c]}; replace or crop them"
        )
    return pixels
