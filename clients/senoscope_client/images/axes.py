"""Assignment of the axes of an array; ambiguous axes are an error, never guessed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy.typing as npt

from senoscope_client.errors import AmbiguousAxes, InvalidRequest, WrongChannelCount, WrongFrameSize
from senoscope_client.images.channel_names import normalize_name
from senoscope_client.images.notices import Notice

# Letters of tifffile for axes that the file does not name.
_UNNAMED = frozenset("IQ")
# Letters that users may pass: those of OME, ImageJ and tifffile, and B and N for a batch.
_LETTERS = frozenset("ABCEHIJKLMNPQRSTVXYZ")


@dataclass(frozen=True)
class FovSpec:
    """Channels and size of the fields of view that an ensemble takes.

    Attributes
    ----------
    channels : tuple of str
        Names of the channels, in the order of the ensemble.
    height, width : int
        Rows and columns of a field of view, in pixels.
    any_size : bool
        Accept fields of view of every size, for callers that resize or reject them themselves.
    """

    channels: tuple[str, ...]
    height: int
    width: int
    any_size: bool = False


@dataclass(frozen=True)
class ReadOptions:
    """Options for reading a file.

    Attributes
    ----------
    spec : FovSpec
    axes : str or None
        The axes that the user declares, which have priority. One letter more than there are axes unfolds
        pages: ``PCYX`` if the channel changes fastest from page to page, ``CPYX`` if it changes slowest.
        With ``PCYX``, pages of an incomplete field of view are left out.
    channels : sequence of str or None
        The names of the file's channels that the user declares, in order.
    trusted : bool
        Whether the file is the user's own, so that its size is not limited.
    file_name : str
        By which the metadata may refer to the file.
    name : str
        Of the file, for messages.
    """

    spec: FovSpec
    axes: str | None
    channels: Sequence[str] | None
    trusted: bool
    file_name: str
    name: str


@dataclass(frozen=True)
class Layout:
    """Operations that convert an array to fields of view.

    Attributes
    ----------
    shape : tuple of int
        The shape to which the array is reshaped first: axes of length 1 removed, pages unfolded.
    order : tuple of int
        The order of axes to which it is transposed then: leading axes, channel, row, column.
    fovs, channels, height, width : int
        The resulting shape.
    samples : bool
        Whether the channels are the colour samples of the file.
    left_out : int
        Number of pages at the end that belong to an incomplete field of view.
    """

    shape: tuple[int, ...]
    order: tuple[int, ...]
    fovs: int
    channels: int
    height: int
    width: int
    samples: bool = False
    left_out: int = 0

    @property
    def notices(self) -> tuple[Notice, ...]:
        """Assumptions about the file, and pages that are left out."""
        notices = []
        if self.samples:
            text = "the colour samples of the file are taken as the channels, in their order"
            notices.append(Notice("axes", text))
        if self.left_out:
            text = (
                f"{self.fovs + 1} fields of view were begun, {self.fovs} are complete and taken; "
                f"{self.left_out} {'page is' if self.left_out == 1 else 'pages are'} left out"
            )
            notices.append(Notice("incomplete", text))
        return tuple(notices)

    def apply(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Convert an array to fields of view, [N, C, H, W]."""
        arranged = array.reshape(self.shape).transpose(self.order)
        return arranged.reshape(self.fovs, self.channels, self.height, self.width)


def find_layout(
    shape: Sequence[int], axes: str, plane_names: Sequence[str] | None, options: ReadOptions
) -> Layout:
    """Find the layout of an array.

    Parameters
    ----------
    shape : sequence of int
        Of the array.
    axes : str
        The axes that the file declares, one letter each: C, Y, X, S for samples, I or Q for unnamed axes.
    plane_names : sequence of str or None
        The channel of each plane, in C order of the leading axes, if the file names it.
    options : ReadOptions
        Unless the user or the planes name the channels, the number of those of the ensemble is used to
        interpret pages. The caller, who knows the names, must check that the numbers of channels agree.

    Raises
    ------
    InvalidRequest
        If the user's axes do not match the array.
    AmbiguousAxes, WrongChannelCount, WrongFrameSize
    """
    shape = tuple(shape)
    spec, name = options.spec, options.name
    given = options.channels is not None
    period = _channel_period(plane_names, spec) if plane_names is not None and not given else None
    stored = shape
    if options.axes is not None:
        count = len(options.channels or ()) or (period or (len(spec.channels), ""))[0]
        axes, shape = _apply_user_axes(options.axes, shape, axes, count, name)
    elif not given and period is not None and not set(axes) & {*"CS"} and axes[-2:] == "YX":
        # No axis is declared as the channel, but the names of the planes identify the channels.
        count, axes = period
        planes = prod(shape[:-2])
        lead = (planes // count, count) if axes == "PCYX" else (count, planes // count)
        shape = (*lead, *shape[-2:])
    left_out = (prod(stored) - prod(shape)) // max(1, prod(stored[-2:]))
    kept = [(a, n) for a, n in zip(axes, shape, strict=True) if n != 1 or a in "CYX"]
    axes, shape = "".join(a for a, _ in kept), tuple(n for _, n in kept)
    if "Y" not in axes or "X" not in axes:
        raise AmbiguousAxes(f"{name} has axes {axes or 'none'}: rows (Y) and columns (X) must both be named")
    samples = False
    if "S" in axes and "C" in axes:
        at = axes.index("C")
        if shape[at] != 1:
            raise AmbiguousAxes(
                f"{name} has both channels and colour samples (axes {axes}); save each "
                "detector as one channel"
            )
        axes, shape = axes.replace("C", ""), (*shape[:at], *shape[at + 1 :])
    if "C" not in axes:
        if "S" in axes:
            axes, samples = axes.replace("S", "C"), True
        else:
            axes, shape = _add_channel_axis(axes, shape, spec, name)
    position = {letter: n for n, letter in enumerate(axes)}
    height, width = shape[position["Y"]], shape[position["X"]]
    if not spec.any_size and (height, width) != (spec.height, spec.width):
        swapped = "; rows and columns are swapped" if (width, height) == (spec.height, spec.width) else ""
        raise WrongFrameSize(
            f"{name} holds frames of {height}x{width} pixels, the ensemble takes {spec.height}x{spec.width}"
            f"{swapped}. Frames are never resized: acquire or crop them at that size"
        )
    leading = [n for n, letter in enumerate(axes) if letter not in "CYX"]
    return Layout(
        shape=shape,
        order=(*leading, position["C"], position["Y"], position["X"]),
        fovs=prod(shape[n] for n in leading),
        channels=shape[position["C"]],
        height=height,
        width=width,
        samples=samples,
        left_out=left_out,
    )


def _channel_period(names: Sequence[str], spec: FovSpec) -> tuple[int, str] | None:
    """Return how many channels repeat along the planes, and the axes, if all of the ensemble's occur.

    If the channel changes from each plane to the next, the last planes may be missing.
    """
    normalized = [normalize_name(name) for name in names]
    distinct = list(dict.fromkeys(normalized))
    count = len(distinct)
    if not normalized or not {normalize_name(channel) for channel in spec.channels} <= {*distinct}:
        return None
    repeats, rest = divmod(len(normalized), count)
    if normalized == distinct * repeats + distinct[:rest]:
        return count, "PCYX"
    if not rest and normalized == [channel for channel in distinct for _ in range(repeats)]:
        return count, "CPYX"
    return None


def _apply_user_axes(
    user_axes: str, shape: tuple[int, ...], file_axes: str, channels: int, name: str
) -> tuple[str, tuple[int, ...]]:
    axes = user_axes.strip().upper()
    letters = set(axes)
    if (
        not letters <= _LETTERS
        or len(letters) != len(axes)
        or not {"Y", "X"} <= letters
        or not letters & {*"CS"}
    ):
        raise InvalidRequest(
            f"axes={user_axes[:20]!r} is not valid: pass one letter for each axis, none twice, including "
            "C, Y and X, such as TCYX"
        )
    if len(axes) == len(shape):
        return axes, shape
    pages, rest = divmod(shape[0], channels) if shape else (0, 0)
    stopped = pages and axes[1] == "C" and file_axes[-2:] == "YX" and "C" not in file_axes
    if len(shape) == 3 and len(axes) == 4 and axes.endswith("YX") and (not rest or stopped):
        lead = (pages, channels) if axes[1] == "C" else (channels, pages)
        return axes, (*lead, *shape[1:])
    raise InvalidRequest(
        f"axes={user_axes!r} names {len(axes)} axes, {name} has {len(shape)}, of lengths {shape}"
    )


def _add_channel_axis(
    axes: str, shape: tuple[int, ...], spec: FovSpec, name: str
) -> tuple[str, tuple[int, ...]]:
    """Add a channel axis to axes and shape of a file that names none."""
    channels = len(spec.channels)
    leading = [(a, n) for a, n in zip(axes, shape, strict=True) if a not in "YX"]
    planes = prod(n for _, n in leading)
    if channels == 1 or planes == 1:
        return f"C{axes}", (1, *shape)
    if planes == channels and len(leading) == 1 and leading[0][0] in _UNNAMED:
        return axes.replace(leading[0][0], "C"), shape
    if planes % channels:
        advice = (
            ". Pass axes=PCYX if the scan was stopped and the channel changes from each image to the next"
        )
        raise WrongChannelCount(
            f"{name} holds {planes} images, the ensemble takes {channels} channels per field of view: "
            f"{', '.join(spec.channels)}{advice if planes > channels else ''}"
        )
    raise AmbiguousAxes(
        f"{name} holds {planes} images and does not define which are channels. Pass axes=PCYX if the channel "
        "changes from each image to the next, axes=CPYX if all images of a channel follow one another"
    )
