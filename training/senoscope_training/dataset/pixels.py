"""The pixels of one file, decoded strictly and fitted to the input size of the networks."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

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

ONE_PER_FILE = "Save each field of view in a separate file"
_SAVE_AGAIN = "Save it again, or remove it"
SIZE_REMEDY = "Set data.fit to pad or resize, set input to the size of the files, or crop the file"
GREY_REMEDY = "Set data.grey: repeat to use its channel for all channels, or save all channels"
_CHANNELS_REMEDY = "Save all channels of data.channels, or set data.channels to the channels of the file"
_KINDS: tuple[tuple[type[SenoscopeError], str, str], ...] = (
    (AmbiguousAxes, "axes", "Save it as TIFF with axes CYX and the channels' names, or as NPY [C, H, W]"),
    (WrongChannelCount, "channels", _CHANNELS_REMEDY),
    (NonFinitePixels, "pixels", "Replace or crop them"),
    (TooManyFields, "several", ONE_PER_FILE),
    (SenoscopeError, "corrupt", _SAVE_AGAIN),
)
_ADVICE = re.compile(r"(?:\. (?:Pass|Save)|; (?:send|save|write|replace|pass|split)) ")
_COLOURS = ("red", "green", "blue")
_SAMPLES = "colour samples of the file are taken as the channels"  # the reader's notice for RGB images


@dataclass(frozen=True)
class Decoded:
    """The field of view in a file."""

    pixels: npt.NDArray[Any]
    """[C, H, W], in the size of the file; uint8, uint16 or float32."""
    warnings: tuple[str, ...] = ()
    """Assumptions about the file."""
    by_position: tuple[str, ...] = ()
    """The warnings that the names of channels were not used."""
    grey: bool = False
    """Whether the file contains only one plane."""


def decode(data: bytes, file: str, config: DataConfig) -> Decoded:
    """Decode the field of view in a file's bytes.

    Raises
    ------
    FovError
        If the file does not contain exactly one field of view with the channels of the data set.
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
        fault = Fault("several", file, f"contains {len(stack.pixels)} fields of view", ONE_PER_FILE)
        raise FovError(fault)
    single = _without_colour(stack) or _decoded(stack, grey=stack.pixels.shape[1] == 1)
    return replace(single, pixels=_channels_of(single.pixels, file, config))


def decode_plane(data: bytes, file: str, channel: str, channels: Sequence[str]) -> Decoded:
    """Decode the plane [1, H, W] of a file that contains the one of ``channels`` that its name identifies.

    Raises
    ------
    FovError
        If the file contains several planes, or names its channel like another one of ``channels``.
    """
    found: Decoded | None
    if data.startswith(png.MAGIC):
        planes, warnings = png.decode_png(data, file)
        found = Decoded(planes, warnings, grey=True) if len(planes) == 1 else None
    else:
        found = _named_plane(data, file, channel, channels) or _one_colour_of(data, file)
    if found is None:
        problem = f"contains more than one plane, but by data.per_channel only the channel {channel}"
        remedy = "Save each channel as a grey image, or remove data.per_channel"
        raise FovError(Fault("channels", file, problem, remedy))
    return found


def join_channels(planes: Sequence[Decoded], files: Sequence[str]) -> Decoded:
    """Combine the channels of a field of view from one file per channel.

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
                f"has {sizes[0]} pixels, but {files[0]}, another channel of its field of view, {sizes[1]}"
            )
            raise FovError(Fault("size", file, problem, "Save all channels in the same size"))
    return Decoded(
        np.concatenate([plane.pixels for plane in planes]),
        tuple(dict.fromkeys(warning for plane in planes for warning in plane.warnings)),
        tuple(text for plane in planes for text in plane.by_position),
    )


def _decoded(stack: FovStack, *, grey: bool) -> Decoded:
    positions = tuple(notice.text for notice in stack.notices if notice.code == "channel-names")
    return Decoded(np.asarray(stack.pixels[0]), tuple(stack.warnings), positions, grey)


def _grey_of(data: bytes, file: str) -> Decoded | None:
    """Decode the plane [1, H, W] of a file; return None if there are several."""
    found = _plane_as(data, file, "grey")
    if found is None:
        return None
    # The plane is used for all channels, so the name of its channel does not matter.
    kept = tuple(warning for warning in found.warnings if warning not in found.by_position)
    return replace(found, warnings=kept, by_position=())


def _named_plane(data: bytes, file: str, channel: str, channels: Sequence[str]) -> Decoded | None:
    """Decode the plane [1, H, W] of a file, which must not be named like another channel in the file."""
    found = _plane_as(data, file, channel)
    if found is None or not found.by_position:
        return found
    for other in channels:
        as_other = None if other == channel else _plane_as(data, file, other)
        if as_other is not None and not as_other.by_position:
            problem = f"names its channel {other}, but by data.per_channel it is {channel}"
            remedy = "Correct the order of data.per_channel, or the name of the channel in the file"
            raise FovError(Fault("channels", file, problem, remedy))
    return found


def _plane_as(data: bytes, file: str, channel: str) -> Decoded | None:
    """Decode the plane [1, H, W] of a file as the given channel; return None if there are several."""
    try:
        stack = read_fovs(io.BytesIO(data), FovSpec((channel,), 1, 1, any_size=True), name=file)
    except (AmbiguousAxes, WrongChannelCount):
        return None
    except SenoscopeError as error:
        raise _fov_error(error, file) from error
    return _decoded(stack, grey=True) if len(stack.pixels) == 1 else None


def _one_colour_of(data: bytes, file: str) -> Decoded | None:
    """Decode the plane [1, H, W] of an RGB image in a single colour; return None for other images."""
    try:
        stack = read_fovs(io.BytesIO(data), FovSpec(_COLOURS, 1, 1, any_size=True), name=file)
    except SenoscopeError:
        return None
    return _without_colour(stack) if len(stack.pixels) == 1 else None


def _without_colour(stack: FovStack) -> Decoded | None:
    """Return the plane of a stack that is an RGB image in a single colour; otherwise None."""
    samples = {notice.text for notice in stack.notices if _SAMPLES in notice.text}
    plane = png.one_colour(stack.pixels[0]) if samples else None
    if plane is None:
        return None
    kept = (notice.text for notice in stack.notices if notice.text not in samples)
    return Decoded(plane, (*kept, png.ONE_COLOUR), grey=True)


def _fov_error(error: SenoscopeError, file: str) -> FovError:
    kind, remedy = next((kind, remedy) for cls, kind, remedy in _KINDS if isinstance(error, cls))
    # The reader's errors end with advice for clients of the service, which does not apply here.
    problem = error.detail.removeprefix(file).strip()
    problem = _ADVICE.split(problem, maxsplit=1)[0]
    return FovError(Fault(kind, file, problem.replace("the ensemble takes", "data.channels has"), remedy))


def _channels_of(planes: npt.NDArray[Any], file: str, config: DataConfig) -> npt.NDArray[Any]:
    """Assign the planes of an image without channel names to the channels of the data set."""
    wanted = len(config.channels)
    if len(planes) == wanted:
        return planes
    wants = f"but data.channels has {wanted}: {', '.join(config.channels)}"
    if len(planes) != 1:
        raise FovError(Fault("channels", file, f"has {len(planes)} channels, {wants}", _CHANNELS_REMEDY))
    if config.grey == "refuse":
        raise FovError(Fault("grey", file, f"has one channel, {wants}", GREY_REMEDY))
    return np.repeat(planes, wanted, axis=0)


def fit(pixels: npt.NDArray[Any], how: str, size: InputConfig) -> npt.NDArray[Any]:
    """Pad, crop (both around the centre) or resize a field of view [C, H, W] to a size, as `DataConfig.fit`.

    Raises
    ------
    ValueError
        If the size differs and ``how`` is ``refuse``.
    """
    height, width = pixels.shape[1:]
    if (height, width) == (size.height, size.width):
        return pixels
    if how == "refuse":
        raise ValueError(f"{height}x{width} pixels, not {size.height}x{size.width}")
    if how == "resize":
        shrinks = size.height <= height and size.width <= width
        # Plane by plane, because OpenCV drops the axis of a single channel.
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        return np.stack([cv2.resize(one, (size.width, size.height), interpolation=method) for one in pixels])
    fitted = np.zeros((len(pixels), size.height, size.width), pixels.dtype)
    rows, from_rows = _overlap(height, size.height)
    columns, from_columns = _overlap(width, size.width)
    fitted[:, rows, columns] = pixels[:, from_rows, from_columns]
    return fitted


def _overlap(have: int, want: int) -> tuple[slice, slice]:
    """Return the slices of the new and of the old axis that coincide if both are centred."""
    length = min(have, want)
    to, start = (want - length) // 2, (have - length) // 2
    return slice(to, to + length), slice(start, start + length)


def size_fault(file: str, height: int, width: int, size: InputConfig) -> Fault:
    """Return the fault of a field of view with another size than the input."""
    problem = f"has {height}x{width} pixels, but input is {size.height}x{size.width}"
    return Fault("size", file, problem, SIZE_REMEDY)
