"""Reader of fields of view in untrusted TIFF and NPY files.

The declarations of a file (pages, size, compression, axes, channels) are checked before pixels are decoded
and memory for them is allocated. A file is opened, and then read one field of view at a time.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from senoscope_client.errors import (
    AmbiguousAxes,
    NonFinitePixels,
    PayloadTooLarge,
    SenoscopeError,
    TooManyFields,
    UnreadableImage,
    UnsupportedMediaType,
)
from senoscope_client.images import npy
from senoscope_client.images.arranged import ArrangedImage, arrange_image, assign_channels
from senoscope_client.images.axes import FovSpec, ReadOptions
from senoscope_client.images.calibration import Calibration, zero_levels
from senoscope_client.images.file_kinds import detect_file_kind
from senoscope_client.images.image_files import NPY_MAGIC, TIFF_MAGIC
from senoscope_client.images.notices import Notice
from senoscope_client.images.stored import StoredImage
from senoscope_client.images.tiff_page_check import WalkLimits
from senoscope_client.images.tifffile_log import suppress_tifffile_log
from senoscope_client.wire.messages import Position

__all__ = [
    "LOCAL_FILES",
    "FovSpec",
    "FovStack",
    "Limits",
    "Notice",
    "OpenStack",
    "as_supported",
    "open_fovs",
    "read_fovs",
    "zero_levels",
]

_MIB = 1024 * 1024
_PLAUSIBLE_BYTES = 64 * _MIB
_HEAD = 600
_READABLE = frozenset({"image/tiff", "image/x-tiff", "image/tif", "application/x-npy", "application/npy"})
_ANY = 2**40


@dataclass(frozen=True)
class Limits:
    """Limits of the decoded content of one file.

    Attributes
    ----------
    max_fovs : int
        Number of fields of view.
    max_decoded_bytes : int
        Bytes of pixels.
    max_ratio : float
        Bytes of pixels per byte of the file, for files that declare more than 64 MiB.
    hostile : bool
        The file is untrusted: its metadata are limited, too, so that they cannot take much time or memory.
    admit : callable, optional
        Called with the bytes of memory that reading the whole file takes, after all other checks and before
        reading; its exceptions are raised.
    """

    max_fovs: int = 512
    max_decoded_bytes: int = 512 * _MIB
    max_ratio: float = 100.0
    hostile: bool = True
    admit: Callable[[int], None] | None = None

    def walk(self, channels: int) -> WalkLimits:
        """Return the limits of pages and metadata of a TIFF file with this number of channels."""
        if not self.hostile:
            return WalkLimits(_ANY, _ANY, _ANY, shared=True)
        return WalkLimits(self.max_fovs * max(8, 2 * channels))

    def unpacked_bytes(self, packed_bytes: int) -> int:
        """Return the limit of decompressed bytes of a body with this number of compressed bytes."""
        plausible = max(_PLAUSIBLE_BYTES, int(self.max_ratio * packed_bytes))
        return min(self.max_decoded_bytes, plausible)


# For the user's own files, which may hold a night's scan and are read one field of view at a time.
LOCAL_FILES: Final = Limits(max_fovs=1_000_000, max_decoded_bytes=8 * 1024**4, max_ratio=inf, hostile=False)


@dataclass(frozen=True)
class FovStack:
    """Fields of view from a file.

    Attributes
    ----------
    pixels : array [N, C, H, W]
        Raw detector units; uint8, uint16 or float32, channels in the order of the ensemble.
    notices : tuple of Notice
        Assumptions about the file, conversions, and parts that were left out.
    calibration : Calibration or None
        Applied to the stored numbers; None if they are counts.
    """

    pixels: npt.NDArray[Any]
    notices: tuple[Notice, ...]
    calibration: Calibration | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """The notices as sentences."""
        return tuple(notice.text for notice in self.notices)


class OpenStack:
    """The fields of view of an open file, each read on demand.

    Attributes
    ----------
    notices : tuple of Notice
        Assumptions about the file, conversions, and parts that are left out.
    calibration : Calibration or None
        Applied to the stored numbers; None if they are counts.
    """

    def __init__(self, images: Sequence[ArrangedImage], spec: FovSpec, name: str) -> None:
        self._images = images
        self._spec = spec
        self._name = name
        self.notices = tuple(dict.fromkeys(notice for image in images for notice in image.notices))
        self.calibration = images[0].stored.calibration
        self._fovs = [(image, n) for image in images for n in range(image.layout.fovs)]

    def __len__(self) -> int:
        return len(self._fovs)

    @property
    def warnings(self) -> tuple[str, ...]:
        """The notices as sentences."""
        return tuple(notice.text for notice in self.notices)

    @property
    def bytes_at_once(self) -> int:
        """Bytes of the images that are decoded as a whole, however few fields of view are read."""
        return sum(image.bytes_at_once for image in self._images)

    def read(self, n: int) -> npt.NDArray[Any]:
        """Read a field of view, [C, H, W]; uint8, uint16 or float32.

        Raises
        ------
        UnreadableImage
            If its data in the file are damaged.
        NonFinitePixels
            If a pixel is NaN or infinite.
        """
        image, k = self._fovs[n]
        with _translate_decoder_errors(self._name):
            pixels = image.read(k)
        fov: npt.NDArray[Any] = as_supported(pixels[None], self._spec, self._name, first=n)[0]
        return fov

    def position_um(self, n: int) -> Position | None:
        """Return the stage position of a field of view, if the file contains it."""
        image, k = self._fovs[n]
        return None if image.stored.position_of is None else image.stored.position_of(image.first_plane(k))

    def pixel_size_um(self, n: int) -> float | None:
        """Return the edge of a pixel in micrometres, if the file contains it."""
        return self._fovs[n][0].stored.pixel_size_um

    def read_all(self) -> npt.NDArray[Any]:
        """Read all fields of view, [N, C, H, W], which must be of one type."""
        first = self.read(0)
        pixels = np.empty((len(self), *first.shape), first.dtype)
        pixels[0] = first
        for n in range(1, len(self)):
            fov = self.read(n)
            if fov.dtype != pixels.dtype:
                raise AmbiguousAxes(f"{self._name} holds images of different types; save one stack per file")
            pixels[n] = fov
        return pixels


@contextmanager
def open_fovs(
    file: BinaryIO | Path,
    spec: FovSpec,
    *,
    media_type: str | None = None,
    axes: str | None = None,
    channels: Sequence[str] | None = None,
    limits: Limits = LOCAL_FILES,
    name: str = "the file",
) -> Iterator[OpenStack]:
    """Open a TIFF or NPY file to read its fields of view one at a time.

    Parameters
    ----------
    file : binary file or Path
        Seekable.
    spec : FovSpec
        Channels and size that the ensemble takes. Frames of another size are rejected, never resized.
    media_type : str, optional
        As the sender declares it; the first bytes of the file have priority.
    axes : str, optional
        The file's axes, such as ``PCYX``, if the file does not define them or defines wrong ones.
    channels : sequence of str, optional
        The names of the file's channels in order, if the file does not define them or defines wrong ones.
    limits : Limits
        Default: those for the user's own files.
    name : str
        Of the file, for messages.

    Raises
    ------
    UnsupportedMediaType, UnreadableImage, AmbiguousAxes, WrongFrameSize, WrongChannelCount,
    PayloadTooLarge, TooManyFields, InvalidRequest
        See `senoscope_client.errors`.
    OSError
        If a path cannot be opened.
    """
    file_name = file.name if isinstance(file, Path) else name
    options = ReadOptions(spec, axes, channels, not limits.hostile, file_name, name)
    with file.open("rb") if isinstance(file, Path) else nullcontext(file) as stream:
        yield _open_stack(stream, media_type, limits, options)


def read_fovs(
    file: BinaryIO | Path,
    spec: FovSpec,
    *,
    media_type: str | None = None,
    axes: str | None = None,
    channels: Sequence[str] | None = None,
    limits: Limits = Limits(),
    name: str = "the file",
) -> FovStack:
    """Read all fields of view of a TIFF or NPY file at once.

    Parameters and errors are those of `open_fovs`, except the following.

    Parameters
    ----------
    limits : Limits
        Default: those for uploads.

    Raises
    ------
    NonFinitePixels
        If a pixel is NaN or infinite.
    """
    with open_fovs(
        file, spec, media_type=media_type, axes=axes, channels=channels, limits=limits, name=name
    ) as stack:
        return FovStack(stack.read_all(), stack.notices, stack.calibration)


def _open_stack(stream: BinaryIO, media_type: str | None, limits: Limits, options: ReadOptions) -> OpenStack:
    name = options.name
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    head = stream.read(_HEAD)
    stream.seek(0)
    if not size:
        raise UnreadableImage(f"{name} is empty; send a TIFF stack or an NPY array")
    if head.startswith(NPY_MAGIC):
        images = [npy.open_array(stream, size, options)]
    elif head.startswith(TIFF_MAGIC):
        images = _open_tiff(stream, size, limits, options)
    else:
        raise _unsupported_error(head, media_type, name)
    with _translate_decoder_errors(name):
        arranged = [arrange_image(image, options) for image in images]
        _check_size(arranged, size, limits, name)
        for image in arranged:
            assign_channels(image, options)
        if limits.admit is not None:
            limits.admit(sum(map(_required_memory, arranged)))
    return OpenStack(arranged, options.spec, name)


def _required_memory(image: ArrangedImage) -> int:
    """Return the bytes of memory that reading all fields of view of an image takes."""
    layout, dtype = image.layout, image.stored.dtype
    is_supported = dtype.kind == "u" and dtype.itemsize <= 2
    values = layout.fovs * layout.channels * layout.height * layout.width
    result_bytes = values * (dtype.itemsize if is_supported else 4)
    # If planes have several channels, the whole image is decoded first.
    return result_bytes + (image.stored.nbytes if image.planes is None else 0)


def _unsupported_error(head: bytes, media_type: str | None, name: str) -> SenoscopeError:
    declared = (media_type or "").partition(";")[0].strip().lower()
    kind = detect_file_kind(head)
    if declared in _READABLE and kind is None:
        return UnreadableImage(f"{name} is declared as {declared}, but does not begin like such a file")
    if kind is None:
        return UnsupportedMediaType(f"{name} is neither a TIFF stack nor an NPY array; send TIFF or NPY")
    verb = f"is declared as {declared}, but is" if declared in _READABLE else "is"
    error = UnreadableImage if declared in _READABLE else UnsupportedMediaType
    return error(f"{name} {verb} {kind.what}; {kind.advice}")


def _open_tiff(stream: BinaryIO, size: int, limits: Limits, options: ReadOptions) -> list[StoredImage]:
    try:
        from senoscope_client.images.tiff_images import open_images
    except ImportError as error:
        raise SenoscopeError('reading TIFF files needs `pip install "senoscope[tiff]"`') from error
    with _translate_decoder_errors(options.name):
        images = open_images(stream, size, limits.walk(len(options.spec.channels)), options)
        if len({image.shape[-image.inner :] for image in images}) > 1:
            shapes = ", ".join("x".join(map(str, image.shape)) for image in images[:5])
            raise AmbiguousAxes(
                f"{options.name} holds {len(images)} images ({shapes}); save one stack per file"
            )
        return images


@contextmanager
def _translate_decoder_errors(name: str) -> Iterator[None]:
    """Translate exceptions of decoders into errors that a sender can act on, and log nothing."""
    try:
        with suppress_tifffile_log():
            yield
    except (SenoscopeError, OSError):
        raise
    except MemoryError as error:
        raise PayloadTooLarge(f"{name} unpacks to more than the available memory; split it") from error
    except Exception as error:  # decoders raise many unrelated exceptions for damaged files
        raise UnreadableImage(
            f"{name} is a damaged or unsupported file ({type(error).__name__}); save it again, "
            "preferably without compression"
        ) from error


def _check_size(images: Sequence[ArrangedImage], size: int, limits: Limits, name: str) -> None:
    fovs = sum(image.layout.fovs for image in images)
    if fovs > limits.max_fovs:
        raise TooManyFields(
            f"{name} holds {fovs} fields of view, at most {limits.max_fovs} are accepted; split it"
        )
    decoded = sum(image.stored.nbytes for image in images)
    if decoded > limits.max_decoded_bytes:
        raise PayloadTooLarge(
            f"{name} unpacks to {decoded / _MIB:.0f} MiB, at most {limits.max_decoded_bytes / _MIB:.0f} MiB "
            "are accepted; split it"
        )
    if decoded > _PLAUSIBLE_BYTES and decoded > limits.max_ratio * size:
        raise PayloadTooLarge(
            f"{name} unpacks to {decoded / size:.0f} times its size; at most {limits.max_ratio:.0f} times "
            "are accepted. Split it, or save it without compression"
        )


def as_supported(pixels: npt.NDArray[Any], spec: FovSpec, name: str, *, first: int = 0) -> npt.NDArray[Any]:
    """Convert pixels to contiguous uint8, uint16 or float32 in native byte order, and require finite values.

    Parameters
    ----------
    pixels : array [N, C, H, W], any real dtype
        Returned unchanged if no conversion is needed.
    name : str
        Of the file or array, for messages.
    first : int
        Number of the first field of view, for messages.

    Raises
    ------
    NonFinitePixels
    """
    is_supported = pixels.dtype.kind == "u" and pixels.dtype.itemsize <= 2
    with np.errstate(over="ignore", invalid="ignore"):  # too large values become infinite, see below
        pixels = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("=") if is_supported else np.float32)
    if pixels.dtype.kind != "f":
        return pixels
    # A finite sum shows that all pixels are finite; an infinite one, which may be an overflow, is checked.
    with np.errstate(invalid="ignore"):
        if np.isfinite(pixels.sum(dtype=np.float64)):
            return pixels
    bad = ~np.isfinite(pixels)
    if bad.any():
        n, c = np.argwhere(bad)[0][:2]
        raise NonFinitePixels(
            f"{name} holds {int(bad.sum())} pixels that are NaN or infinite, the first in field of view "
            f"{first + n}, channel {spec.channels[c]}; replace or crop them"
        )
    return pixels
