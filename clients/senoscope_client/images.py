"""Reading fields of view from TIFF and NPY files that nobody vouches for.

All that a file declares (pages, size, compression, axes, channels) is checked before a pixel is decoded
and before memory for it is allocated. A file is opened, and then read field of view by field of view.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf, prod
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from senoscope_client import npy
from senoscope_client._foreign import tellable
from senoscope_client.axes import FovSpec, Layout, layout_of
from senoscope_client.calibration import Calibration, zero_levels
from senoscope_client.channel_names import name_planes, plain
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
from senoscope_client.file_kinds import kind_of
from senoscope_client.ifd import WalkLimits
from senoscope_client.notices import Notice, distinct
from senoscope_client.stored import StoredImage
from senoscope_client.wire import Position

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
_UNSUSPICIOUS_BYTES = 64 * _MIB
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_NPY_MAGIC = b"\x93NUMPY"
_HEAD = 600
_READABLE = frozenset({"image/tiff", "image/x-tiff", "image/tif", "application/x-npy", "application/npy"})
_ANY = 2**40
_RGB_SAMPLES = 3
_LOOKED_AT = 16  # fields of view of a local file, for whether its colours are grey


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
    hostile : bool
        The file is a stranger's: its metadata are limited too, so that they cannot cost time or memory.
    """

    max_fovs: int = 512
    max_decoded_bytes: int = 512 * _MIB
    max_ratio: float = 100.0
    hostile: bool = True

    def walk(self, channels: int) -> WalkLimits:
        """How many pages and how much metadata a TIFF file of so many channels may have."""
        if not self.hostile:
            return WalkLimits(_ANY, _ANY, _ANY, shared=True)
        return WalkLimits(self.max_fovs * max(8, 2 * channels))

    def unpacked_bytes(self, packed_bytes: int) -> int:
        """What a body of that many compressed bytes may unpack to."""
        plausible = max(_UNSUSPICIOUS_BYTES, int(self.max_ratio * packed_bytes))
        return min(self.max_decoded_bytes, plausible)


# Of the user's own files: as long as a night, and read one field of view at a time.
LOCAL_FILES: Final = Limits(max_fovs=1_000_000, max_decoded_bytes=8 * 1024**4, max_ratio=inf, hostile=False)


@dataclass(frozen=True)
class FovStack:
    """Fields of view from a file.

    Attributes
    ----------
    pixels : array [N, C, H, W]
        Raw detector units; uint8, uint16 or float32, channels in the order that was asked for.
    notices : tuple of Notice
        What was assumed about the file, converted, or left out.
    calibration : Calibration or None
        How its stored numbers became counts, where they were not counts.
    """

    pixels: npt.NDArray[Any]
    notices: tuple[Notice, ...]
    calibration: Calibration | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """The notices as sentences."""
        return tuple(notice.text for notice in self.notices)


class OpenStack:
    """The fields of view of an open file, each read when it is asked for.

    Attributes
    ----------
    notices : tuple of Notice
        What was assumed about the file, converted, or left out.
    calibration : Calibration or None
        How its stored numbers become counts, where they are not counts.
    """

    def __init__(self, images: Sequence[_Arranged], spec: FovSpec, name: str) -> None:
        self._images = images
        self._spec = spec
        self._name = name
        self.notices = distinct(notice for image in images for notice in image.notices)
        self.calibration = images[0].stored.calibration
        self._places = [(image, n) for image in images for n in range(image.layout.fovs)]

    def __len__(self) -> int:
        return len(self._places)

    @property
    def warnings(self) -> tuple[str, ...]:
        """The notices as sentences."""
        return tuple(notice.text for notice in self.notices)

    def read(self, n: int) -> npt.NDArray[Any]:
        """A field of view, [C, H, W]; uint8, uint16 or float32.

        Raises
        ------
        UnreadableImage
            If the file is damaged there.
        NonFinitePixels
            If a pixel is NaN or infinite.
        """
        image, k = self._places[n]
        with _as_unreadable(self._name):
            pixels = image.read(k)
        fov: npt.NDArray[Any] = as_supported(pixels[None], self._spec, self._name, first=n)[0]
        return fov

    def position_um(self, n: int) -> Position | None:
        """Where the stage stood for a field of view, if the file tells."""
        image, k = self._places[n]
        return None if image.stored.position_of is None else image.stored.position_of(image.first_plane(k))

    def pixel_size_um(self, n: int) -> float | None:
        """The edge of a pixel in micrometres, if the file tells."""
        return self._places[n][0].stored.pixel_size_um

    def read_all(self) -> npt.NDArray[Any]:
        """All fields of view, [N, C, H, W], of one type."""
        first = self.read(0)
        pixels = np.empty((len(self), *first.shape), first.dtype)
        pixels[0] = first
        for n in range(1, len(self)):
            fov = self.read(n)
            if fov.dtype != pixels.dtype:
                raise AmbiguousAxes(f"{self._name} holds images of different types; save one stack per file")
            pixels[n] = fov
        return pixels


class _Arranged:
    """An image whose axes are known, and in the end its channels.

    Attributes
    ----------
    plane_names : tuple of str or None
        The channel that each plane shows, where the file tells.
    """

    def __init__(self, stored: StoredImage, layout: Layout, plane_names: tuple[str, ...] | None) -> None:
        self.stored = stored
        self.layout = layout
        self.plane_names = plane_names
        self.notices: tuple[Notice, ...] = ()
        self._select: list[int] | None = None
        outer = len(layout.shape)
        rest = prod(stored.shape[len(stored.shape) - stored.inner :])
        while outer and rest > 1:
            outer -= 1
            rest //= layout.shape[outer]
        self._outer = outer
        numbers = np.arange(prod(layout.shape[:outer])).reshape(
            *layout.shape[:outer], *(1,) * (len(layout.shape) - outer)
        )
        # By field of view the planes that it consists of: one for each channel, or one with all of them.
        self._planes = numbers.transpose(layout.order).reshape(layout.fovs, -1) if self._separable else None
        self._whole: npt.NDArray[Any] | None = None

    @property
    def _separable(self) -> bool:
        """Whether a plane belongs to one field of view."""
        layout = self.layout
        return all(axis < self._outer or layout.shape[axis] == 1 for axis in layout.order[:-3])

    @property
    def planes(self) -> npt.NDArray[Any] | None:
        """The number of each channel's plane, by field of view; None where a plane has several channels."""
        if self._planes is None or self._planes.shape[1] != self.layout.channels:
            return None
        return self._planes

    def first_plane(self, n: int) -> int:
        """The number of a plane of a field of view."""
        return 0 if self._planes is None else int(self._planes[n, 0])

    def chosen(self, select: list[int] | None, notices: tuple[Notice, ...]) -> _Arranged:
        """The image itself, of which certain channels are read, in that order."""
        self._select, self.notices = select, notices
        return self

    def read(self, n: int) -> npt.NDArray[Any]:
        """A field of view, [C, H, W], of the chosen channels."""
        layout = self.layout
        if self._planes is None:
            if self._whole is None:
                count = prod(self.stored.shape[: len(self.stored.shape) - self.stored.inner])
                whole = np.stack([self.stored.read_plane(k) for k in range(count)])
                self._whole = layout.apply(whole)
            fov = self._whole[n]
        else:
            inner = [axis - self._outer for axis in layout.order if axis >= self._outer]
            numbers = self._planes[n]
            if self.planes is not None and self._select is not None:
                numbers = numbers[self._select]
            shape = layout.shape[self._outer :]
            parts = [self.stored.read_plane(int(k)).reshape(shape).transpose(inner) for k in numbers]
            fov = (np.stack(parts) if len(parts) > 1 else parts[0]).reshape(-1, layout.height, layout.width)
            if self.planes is not None:
                return fov
        return fov if self._select is None else np.asarray(fov[self._select])


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
    """Open a TIFF or NPY file to read its fields of view one by one.

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
    limits : Limits
        Default: those of the user's own files.
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
    if isinstance(file, Path):
        with file.open("rb") as stream:
            yield _opened(stream, spec, media_type, axes, channels, limits, file.name, name)
    else:
        yield _opened(file, spec, media_type, axes, channels, limits, name, name)


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
    """Read the fields of view of a TIFF or NPY file, all of them at once.

    Parameters and errors are those of `open_fovs`, and

    Parameters
    ----------
    limits : Limits, optional
        Default: those of uploads.

    Raises
    ------
    NonFinitePixels
        If a pixel is NaN or infinite.
    """
    limits = limits or Limits()
    with open_fovs(
        file, spec, media_type=media_type, axes=axes, channels=channels, limits=limits, name=name
    ) as stack:
        return FovStack(stack.read_all(), stack.notices, stack.calibration)


def _opened(
    stream: BinaryIO,
    spec: FovSpec,
    media_type: str | None,
    axes: str | None,
    channels: Sequence[str] | None,
    limits: Limits,
    file_name: str,
    name: str,
) -> OpenStack:
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    head = stream.read(_HEAD)
    stream.seek(0)
    if not size:
        raise UnreadableImage(f"{name} is empty; send a TIFF stack or an NPY array")
    if head.startswith(_NPY_MAGIC):
        images = [npy.describe(stream, size, len(spec.channels), axes, name)]
    elif head.startswith(_TIFF_MAGIC):
        images = _open_tiff(stream, size, spec, axes, limits, file_name, name)
    else:
        raise _refused(head, media_type, name)
    with _as_unreadable(name):
        arranged = [_lay_out(image, spec, axes, channels, name) for image in images]
        _check_size(arranged, size, limits, name)
        arranged = [_assign_channels(image, spec, channels, name) for image in arranged]
    return OpenStack(arranged, spec, name)


def _refused(head: bytes, media_type: str | None, name: str) -> SenoscopeError:
    declared = (media_type or "").partition(";")[0].strip().lower()
    kind = kind_of(head)
    if declared in _READABLE and kind is None:
        return UnreadableImage(f"{name} is declared as {declared}, but does not begin as such a file does")
    if kind is None:
        return UnsupportedMediaType(f"{name} is neither a TIFF stack nor an NPY array; send TIFF or NPY")
    said = f"is declared as {declared}, but is" if declared in _READABLE else "is"
    error = UnreadableImage if declared in _READABLE else UnsupportedMediaType
    return error(f"{name} {said} {kind.what}; {kind.advice}")


def _open_tiff(
    stream: BinaryIO,
    size: int,
    spec: FovSpec,
    axes: str | None,
    limits: Limits,
    file_name: str,
    name: str,
) -> list[StoredImage]:
    try:
        from senoscope_client import tiff_images
    except ImportError as error:
        raise SenoscopeError('reading TIFF files needs `pip install "senoscope[tiff]"`') from error
    request = tiff_images.Request(spec.channels, axes is not None, not limits.hostile, file_name, name)
    with _as_unreadable(name):
        images = tiff_images.open_images(stream, size, limits.walk(len(spec.channels)), request)
        if len({image.shape[-image.inner :] for image in images}) > 1:
            shapes = ", ".join("x".join(map(str, image.shape)) for image in images[:5])
            raise AmbiguousAxes(f"{name} holds {len(images)} images ({shapes}); save one stack per file")
        return images


@contextmanager
def _as_unreadable(name: str) -> Iterator[None]:
    """Turn what decoders raise into errors that a sender can act on."""
    try:
        yield
    except (SenoscopeError, OSError):
        raise
    except MemoryError as error:
        raise PayloadTooLarge(f"{name} unpacks to more than the memory that is free; split it") from error
    except Exception as error:  # the decoders raise dozens of unrelated classes on damaged files
        raise UnreadableImage(
            f"{name} is a damaged TIFF file, or one of a kind that cannot be read ({type(error).__name__}); "
            "write it again, best without compression"
        ) from error


def _lay_out(
    image: StoredImage, spec: FovSpec, asked: str | None, channels: Sequence[str] | None, name: str
) -> _Arranged:
    """Find out which axis of an image is which, from what it declares."""
    if image.dtype.kind not in "uif":
        raise UnreadableImage(f"{name} holds values of type {image.dtype}; pixels are integers or floats")
    if not prod(image.shape):
        raise UnreadableImage(f"{name} holds an image without pixels, of shape {image.shape}")
    labels = image.labels
    planes = name_planes(labels.planes, spec.channels) if labels is not None and labels.planes else None
    layout = layout_of(
        image.shape,
        image.axes,
        asked,
        spec,
        name,
        plane_names=planes if channels is None else None,
        channels=None if channels is None else len(channels),
    )
    return _Arranged(image, layout, planes)


def _assign_channels(image: _Arranged, spec: FovSpec, channels: Sequence[str] | None, name: str) -> _Arranged:
    """Find out which channel of an image is which."""
    layout, labels = image.layout, image.stored.labels
    notices = [*image.stored.notices, *layout.notices]
    if layout.samples and layout.channels == _RGB_SAMPLES and _is_grey(image):
        if len(spec.channels) == 1:
            text = "the file's three colour samples are equal: one of them is taken, as a grey picture"
            return image.chosen([0], (*image.stored.notices, Notice("grey-samples", text)))
        if channels is None:
            wanted = ", ".join(spec.channels)
            raise WrongChannelCount(
                f"{name} has 1 channel, a grey picture saved as colours (its three samples are equal); the "
                f"ensemble takes {len(spec.channels)}: {wanted}"
            )
        notices.append(
            Notice("grey-samples", "the channels are equal in every pixel: a grey picture saved as colours")
        )
    names = None
    if channels is None and labels is not None:
        if image.plane_names is not None and image.planes is not None:
            names = _names_of_columns(image.plane_names, image.planes, spec, labels.source, name)
        elif len(labels.samples) == layout.channels:
            names = labels.samples
        if names is None:
            given = _told(list(dict.fromkeys(labels.samples or labels.planes)))
            text = f"names in the file do not say which channel is which ({labels.source}: {given})"
            notices.append(Notice("channel-names", text))
    elif channels is None and len(spec.channels) > 1 and image.stored.mentions:
        given = ", ".join(image.stored.mentions)
        text = f"the file mentions {given}, but not which channel is which: taken by position"
        notices.append(Notice("channel-names", text))
    select, further = _channels(names, layout, spec, channels, name)
    return image.chosen(select, (*notices, *further))


def _is_grey(image: _Arranged) -> bool:
    """Whether the channels are equal in every pixel of the first fields of view, which are not all flat."""
    flat = True
    for n in range(min(image.layout.fovs, _LOOKED_AT)):
        fov = image.read(n)
        if not (fov[:1] == fov).all():
            return False
        flat = flat and fov.min() == fov.max()
    return not flat


def _names_of_columns(
    names: Sequence[str], planes: npt.NDArray[Any], spec: FovSpec, source: str, name: str
) -> tuple[str, ...] | None:
    """The name of each channel, if all planes of the channel have it.

    Raises
    ------
    AmbiguousAxes
        If planes of one channel show different channels of the ensemble.
    """
    wanted = {plain(channel) for channel in spec.channels}
    columns = [list(dict.fromkeys(names[k] for k in column)) for column in planes.T]
    mixed = next((column for column in columns if len({plain(one) for one in column} & wanted) > 1), None)
    if mixed is not None:
        raise AmbiguousAxes(
            f"{name} has planes that would be one channel, but are named {_told(mixed)} ({source}). Pass "
            "axes= as the file is (PCYX: the channel changes from image to image, CPYX: all images of "
            "a channel come together), or channels= with the names in its order, if the names are wrong"
        )
    if any(len(column) > 1 for column in columns):
        return None
    return tuple(column[0] for column in columns)


def _check_size(images: Sequence[_Arranged], size: int, limits: Limits, name: str) -> None:
    fovs = sum(image.layout.fovs for image in images)
    if fovs > limits.max_fovs:
        raise TooManyFields(
            f"{name} holds {fovs} fields of view, at most {limits.max_fovs} are taken; split it"
        )
    decoded = sum(prod(image.stored.shape) * image.stored.dtype.itemsize for image in images)
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
    names: Sequence[str] | None, layout: Layout, spec: FovSpec, asked: Sequence[str] | None, name: str
) -> tuple[list[int] | None, tuple[Notice, ...]]:
    """Which of the file's channels to take, in which order (None: all, as they are)."""
    if asked is not None:
        if len(asked) != layout.channels:
            raise InvalidRequest(f"channels= names {len(asked)} channels, {name} has {layout.channels}")
        names = tuple(asked)
    wanted = ", ".join(spec.channels)
    if names is not None and len(names) == layout.channels:
        known = [plain(given) for given in names]
        found = [known.index(plain(c)) for c in spec.channels if known.count(plain(c)) == 1]
        if len(found) == len(spec.channels):
            extra = [given for n, given in enumerate(names) if n not in found]
            text = f"channels that the ensemble does not take were left out: {_told(extra)}"
            notices = (Notice("channels-left-out", text),) if extra else ()
            return None if found == list(range(len(names))) else found, notices
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
        text = f"the file's channels ({_told(names)}) are taken as {wanted}, by position"
        return None, (Notice("channel-names", text),)
    return None, ()


def _told(names: Sequence[str]) -> str:
    return tellable(", ".join(names), 200)


def as_supported(pixels: npt.NDArray[Any], spec: FovSpec, name: str, *, first: int = 0) -> npt.NDArray[Any]:
    """The pixels as contiguous uint8, uint16 or float32 of this machine's byte order, all of them finite.

    Parameters
    ----------
    pixels : array [N, C, H, W], any real dtype
        Returned as it is where it is all that already.
    name : str
        What holds them, for messages.
    first : int
        Number of the first field of view, for messages.

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
            f"{name} holds {int(bad.sum())} pixels that are NaN or infinite, the first in field of view "
            f"{first + n}, channel {spec.channels[c]}; replace or crop them"
        )
    return pixels
