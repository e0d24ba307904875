"""The pixels of one file: decoded with suspicion, then brought to the size that the networks take."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from senoscope_client.errors import (
    AmbiguousAxes,
    NonFinitePixels,
    SenoscopeError,
    TooManyFields,
    WrongChannelCount,
)
from senoscope_client.images.axes import FovSpec
from senoscope_client.images.reader import FovStack, read_fovs
from senoscope_training.config import DataConfig, InputConfig
from senoscope_training.dataset import png
from senoscope_training.dataset.faults import Fault
from senoscope_training.dataset.model import FovError

_ONE_PER_FILE = "Save each field of view as a file of its own"
_SAVE_AGAIN = "Save it again, or leave it out"
SIZE_REMEDY = "Set data.fit to pad or resize, set input to the size of the files, or crop the file"
GREY_REMEDY = "Set data.grey: repeat to use the one channel for all, or save all channels"
_KINDS: tuple[tuple[type[SenoscopeError], str, str], ...] = (
    (AmbiguousAxes, "axes", "Save it as TIFF with axes CYX and the channels' names, or as NPY [C, H, W]"),
    (
        WrongChannelCount,
        "channels",
        "Save all channels of data.channels, or set data.channels to what there is",
    ),
    (NonFinitePixels, "pixels", "Replace or crop them"),
    (TooManyFields, "several", _ONE_PER_FILE),
    (SenoscopeError, "corrupt", _SAVE_AGAIN),
)
_COLOURS = ("red", "green", "blue")
_SAMPLES = "colour samples of the file are taken as the channels"  # the reader's notice of RGB pictures
_T = TypeVar("_T")


@dataclass(frozen=True)
class Decoded:
    """The field of view in a file.

    Attributes
    ----------
    pixels : array [C, H, W]
        In the file's size; uint8, uint16 or float32.
    warnings : tuple of str
        What was assumed about the file.
    by_position : tuple of str
        Those of the warnings that say that names of channels were not used.
    grey : bool
        Whether the file holds one plane alone.
    """

    pixels: npt.NDArray[Any]
    warnings: tuple[str, ...] = ()
    by_position: tuple[str, ...] = ()
    grey: bool = False


def decode(data: bytes, file: str, config: DataConfig) -> Decoded:
    """The field of view in a file's bytes.

    Raises
    ------
    FovError
    """
    if data.startswith(png.MAGIC):
        planes, warnings = png.decode_png(data, file)
        return Decoded(_channels_of(planes, file, config), warnings, grey=len(planes) == 1)
    spec = FovSpec(config.channels, 1, 1, any_size=True)
    try:
        stack = read_fovs(io.BytesIO(data), spec, name=file)
    except WrongChannelCount as error:
        grey = _grey_of(data, file) or _one_colour_of(data, file)
        if grey is None:
            raise _fov_error(error, file) from error
        return replace(grey, pixels=_channels_of(grey.pixels, file, config))
    except SenoscopeError as error:
        raise _fov_error(error, file) from error
    if len(stack.pixels) != 1:
        fault = Fault("several", file, f"holds {len(stack.pixels)} fields of view", _ONE_PER_FILE)
        raise FovError(fault)
    single = _without_colour(stack)
    if single is not None:
        return replace(single, pixels=_channels_of(single.pixels, file, config))
    return _decoded(stack, grey=stack.pixels.shape[1] == 1)


def decode_plane(data: bytes, file: str, channel: str, channels: Sequence[str]) -> Decoded:
    """The one plane [1, H, W] of a file that holds one channel of a field of view.

    Parameters
    ----------
    channel : str
        The one of ``channels`` that the file's name contains.

    Raises
    ------
    FovError
    """
    found: Decoded | None
    if data.startswith(png.MAGIC):
        planes, warnings = png.decode_png(data, file)
        found = Decoded(planes, warnings, grey=True) if len(planes) == 1 else None
    else:
        found = _named_plane(data, file, channel, channels) or _one_colour_of(data, file)
    if found is None:
        problem = f"holds more than one plane, and data.per_channel takes it for the channel {channel} alone"
        remedy = "Save each channel as a grey image, or leave data.per_channel away"
        raise FovError(Fault("channels", file, problem, remedy))
    return found


def join(planes: Sequence[Decoded], files: Sequence[str]) -> Decoded:
    """The channels of a field of view that lie in files of their own, as one.

    Raises
    ------
    FovError
        If they have different sizes.
    """
    first = planes[0].pixels
    for file, plane in zip(files, planes, strict=True):
        if plane.pixels.shape != first.shape:
            sizes = ["x".join(map(str, shape[1:])) for shape in (plane.pixels.shape, first.shape)]
            problem = (
                f"has {sizes[0]} pixels, {files[0]}, another channel of its field of view, has {sizes[1]}"
            )
            raise FovError(Fault("size", file, problem, "Save all channels in one size"))
    return Decoded(
        np.concatenate([plane.pixels for plane in planes]),
        tuple(dict.fromkeys(warning for plane in planes for warning in plane.warnings)),
        tuple(text for plane in planes for text in plane.by_position),
    )


def _decoded(stack: FovStack, *, grey: bool) -> Decoded:
    positions = tuple(notice.text for notice in stack.notices if notice.code == "channel-names")
    return Decoded(np.asarray(stack.pixels[0]), tuple(stack.warnings), positions, grey)


def _grey_of(data: bytes, file: str) -> Decoded | None:
    """The one plane [1, H, W] that a file holds; None where there are several."""
    found = _plane_as(data, file, "grey")
    if found is None:
        return None
    # Its one channel is taken for all: what it is called has no part.
    kept = tuple(warning for warning in found.warnings if warning not in found.by_position)
    return replace(found, warnings=kept, by_position=())


def _named_plane(data: bytes, file: str, channel: str, channels: Sequence[str]) -> Decoded | None:
    """The one plane [1, H, W] of a file, whose own name for it must not be that of another channel."""
    found = _plane_as(data, file, channel)
    if found is None or not found.by_position:
        return found
    for other in channels:
        as_other = None if other == channel else _plane_as(data, file, other)
        if as_other is not None and not as_other.by_position:
            problem = f"names its channel {other}, and data.per_channel takes it for {channel}"
            remedy = "Correct the order of data.per_channel, or the name of the channel in the file"
            raise FovError(Fault("channels", file, problem, remedy))
    return found


def _plane_as(data: bytes, file: str, channel: str) -> Decoded | None:
    """The one plane [1, H, W] that a file holds, read as a channel; None where there are several."""
    try:
        stack = read_fovs(io.BytesIO(data), FovSpec((channel,), 1, 1, any_size=True), name=file)
    except (AmbiguousAxes, WrongChannelCount):
        return None
    except SenoscopeError as error:
        raise _fov_error(error, file) from error
    return _decoded(stack, grey=True) if len(stack.pixels) == 1 else None


def _one_colour_of(data: bytes, file: str) -> Decoded | None:
    """The one plane [1, H, W] of a picture in one colour; None for others."""
    try:
        stack = read_fovs(io.BytesIO(data), FovSpec(_COLOURS, 1, 1, any_size=True), name=file)
    except SenoscopeError:
        return None
    return _without_colour(stack) if len(stack.pixels) == 1 else None


def _without_colour(stack: FovStack) -> Decoded | None:
    """The one plane of a stack that is a picture of one channel in a colour; None where it is not."""
    samples = {notice.text for notice in stack.notices if _SAMPLES in notice.text}
    plane = png.one_colour(stack.pixels[0]) if samples else None
    if plane is None:
        return None
    kept = (notice.text for notice in stack.notices if notice.text not in samples)
    return Decoded(plane, (*kept, png.ONE_COLOUR), grey=True)


def _fov_error(error: SenoscopeError, file: str) -> FovError:
    kind, remedy = next((kind, remedy) for cls, kind, remedy in _KINDS if isinstance(error, cls))
    # The reader's errors end with what a client of the service can do, which is not what helps here.
    problem = error.detail.removeprefix(file).strip()
    for advice in (
        ". Pass ",
        "; send ",
        "; save ",
        "; write ",
        "; replace ",
        "; pass ",
        ". Save ",
        "; split ",
    ):
        problem = problem.partition(advice)[0]
    return FovError(Fault(kind, file, problem.replace("the ensemble takes", "data.channels names"), remedy))


def _channels_of(planes: npt.NDArray[Any], file: str, config: DataConfig) -> npt.NDArray[Any]:
    """The planes of an image whose channels have no names, as the channels of the data set."""
    wanted = len(config.channels)
    if len(planes) == wanted:
        return planes
    names = ", ".join(config.channels)
    if len(planes) != 1:
        raise FovError(
            Fault(
                "channels",
                file,
                f"has {len(planes)} channels, data.channels names {wanted}: {names}",
                "Save all channels of data.channels, or set data.channels to what there is",
            )
        )
    if config.grey == "refuse":
        raise FovError(
            Fault(
                "grey",
                file,
                f"has one channel, data.channels names {wanted}: {names}",
                GREY_REMEDY,
            )
        )
    return np.repeat(planes, wanted, axis=0)


def fit(pixels: npt.NDArray[Any], how: str, size: InputConfig) -> npt.NDArray[Any]:
    """A field of view [C, H, W] in the wanted size, padded and cropped about its centre, or resized.

    Raises
    ------
    ValueError
        If it has another size and ``how`` is ``refuse``.
    """
    height, width = pixels.shape[1:]
    if (height, width) == (size.height, size.width):
        return pixels
    if how == "refuse":
        raise ValueError(f"{height}x{width} pixels, not {size.height}x{size.width}")
    if how == "resize":
        shrinks = size.height <= height and size.width <= width
        # Each channel by itself: OpenCV drops the axis of a single channel.
        planes = [
            cv2.resize(
                plane,
                (size.width, size.height),
                interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR,
            )
            for plane in pixels
        ]
        return np.stack(planes)
    fitted = np.zeros((len(pixels), size.height, size.width), pixels.dtype)
    rows, from_rows = _overlap(height, size.height)
    columns, from_columns = _overlap(width, size.width)
    fitted[:, rows, columns] = pixels[:, from_rows, from_columns]
    return fitted


def _overlap(have: int, want: int) -> tuple[slice, slice]:
    """Where the middle of one axis comes to lie in the other."""
    length = min(have, want)
    to, start = (want - length) // 2, (have - length) // 2
    return slice(to, to + length), slice(start, start + length)


def size_fault(file: str, height: int, width: int, size: InputConfig) -> Fault:
    """The fault of a field of view of another size."""
    return Fault(
        "size",
        file,
        f"has {height}x{width} pixels, input asks for {size.height}x{size.width}",
        SIZE_REMEDY,
    )


def guarded(read: Callable[[], _T], file: str) -> _T:
    """What ``read`` gives; an error of the file system becomes a fault of the file."""
    try:
        return read()
    except OSError as error:
        fault = Fault("corrupt", file, f"cannot be opened ({error.strerror})", "Check its permissions")
        raise FovError(fault) from error
