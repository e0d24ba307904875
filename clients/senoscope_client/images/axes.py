"""Deciding which axis of an array is which, and refusing to guess."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy.typing as npt

from senoscope_client.errors import AmbiguousAxes, InvalidRequest, WrongChannelCount, WrongFrameSize
from senoscope_client.images.channel_names import plain
from senoscope_client.images.notices import Notice

# What tifffile calls an axis that the file does not name.
_UNNAMED = frozenset("IQ")
# What users may call axes: the letters of OME, ImageJ and tifffile, B and N for a batch.
_LETTERS = frozenset("ABCEHIJKLMNPQRSTVXYZ")


@dataclass(frozen=True)
class FovSpec:
    """What the ensemble takes.

    Attributes
    ----------
    channels : tuple of str
        Their names, in the order of the ensemble.
    height, width : int
        Rows and columns of a field of view, in pixels.
    any_size : bool
        Take fields of view of every size, for callers that resize or refuse them themselves.
    """

    channels: tuple[str, ...]
    height: int
    width: int
    any_size: bool = False


@dataclass(frozen=True)
class Layout:
    """How to turn an array into fields of view.

    Attributes
    ----------
    shape : tuple of int
        What to reshape the array to first: axes of length 1 dropped, pages unfolded.
    order : tuple of int
        The order to transpose it to then: leading axes, channel, row, column.
    fovs, channels, height, width : int
        The shape that results.
    samples : bool
        Whether the channels are the colour samples of the file.
    left_out : int
        Pages at the end that belong to a field of view that is not complete.
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
        """What was assumed."""
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
        """The array as fields of view, [N, C, H, W]."""
        arranged = array.reshape(self.shape).transpose(self.order)
        return arranged.reshape(self.fovs, self.channels, self.height, self.width)


def layout_of(
    shape: Sequence[int],
    axes: str,
    asked: str | None,
    spec: FovSpec,
    name: str,
    *,
    plane_names: Sequence[str] | None = None,
    channels: int | None = None,
) -> Layout:
    """The layout of an array.

    Parameters
    ----------
    shape : sequence of int
        Of the array.
    axes : str
        As the file tells them, one letter each: C, Y, X, S for samples, I or Q where it does not tell.
    asked : str or None
        As the user tells them, which counts more. One letter more than there are axes unfolds pages:
        ``PCYX`` where the channel changes fastest from page to page, ``CPYX`` where it changes slowest.
        Of the former, pages of a field of view that is not complete are left out.
    spec : FovSpec
        The channel count decides what a stack of bare pages can mean; that the counts agree is for the
        caller to check, who knows the channels' names.
    name : str
        Of the file, for messages.
    plane_names : sequence of str, optional
        The channel that each plane shows, in C order of the leading axes, where the file says.
    channels : int, optional
        How many the file has, as the user says; else as many as the names that repeat, or as ``spec`` has.

    Raises
    ------
    InvalidRequest
        If ``asked`` does not fit the array.
    AmbiguousAxes, WrongChannelCount, WrongFrameSize
    """
    shape = tuple(shape)
    period = _period(plane_names, spec) if plane_names is not None else None
    stored = shape
    if asked is not None:
        count = channels or (period or (len(spec.channels), ""))[0]
        axes, shape = _asked_axes(asked, shape, axes, count, name)
    elif channels is None and period is not None and not set(axes) & {*"CS"} and axes[-2:] == "YX":
        # The names of the planes say which are channels, though no axis does.
        count, axes = period
        planes = prod(shape[:-2])
        lead = (planes // count, count) if axes == "PCYX" else (count, planes // count)
        shape = (*lead, *shape[-2:])
    left_out = (prod(stored) - prod(shape)) // max(1, prod(stored[-2:]))
    kept = [(a, n) for a, n in zip(axes, shape, strict=True) if n != 1 or a in "CYX"]
    axes, shape = "".join(a for a, _ in kept), tuple(n for _, n in kept)
    if "Y" not in axes or "X" not in axes:
        raise AmbiguousAxes(f"{name} has axes {axes or 'none'}: rows (Y) and columns (X) are not both named")
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
            axes, shape = _channel_axis(axes, shape, spec, name)
    place = {letter: n for n, letter in enumerate(axes)}
    height, width = shape[place["Y"]], shape[place["X"]]
    if not spec.any_size and (height, width) != (spec.height, spec.width):
        swapped = "; rows and columns are swapped" if (width, height) == (spec.height, spec.width) else ""
        raise WrongFrameSize(
            f"{name} holds frames of {height}x{width} pixels, the ensemble takes {spec.height}x{spec.width}"
            f"{swapped}. Frames are never resized: acquire or crop them at that size"
        )
    leading = [n for n, letter in enumerate(axes) if letter not in "CYX"]
    return Layout(
        shape=shape,
        order=(*leading, place["C"], place["Y"], place["X"]),
        fovs=prod(shape[n] for n in leading),
        channels=shape[place["C"]],
        height=height,
        width=width,
        samples=samples,
        left_out=left_out,
    )


def _period(names: Sequence[str], spec: FovSpec) -> tuple[int, str] | None:
    """How many channels repeat along the planes and in which way, if all of the ensemble's are among them.

    Where they change from each plane to the next, the last of them may be missing.
    """
    known = [plain(name) for name in names]
    kinds = list(dict.fromkeys(known))
    count = len(kinds)
    if not known or not {plain(channel) for channel in spec.channels} <= {*kinds}:
        return None
    repeats, rest = divmod(len(known), count)
    if known == kinds * repeats + kinds[:rest]:
        return count, "PCYX"
    if not rest and known == [kind for kind in kinds for _ in range(repeats)]:
        return count, "CPYX"
    return None


def _asked_axes(
    asked: str, shape: tuple[int, ...], own: str, channels: int, name: str
) -> tuple[str, tuple[int, ...]]:
    axes = asked.strip().upper()
    letters = set(axes)
    if (
        not letters <= _LETTERS
        or len(letters) != len(axes)
        or not {"Y", "X"} <= letters
        or not letters & {*"CS"}
    ):
        raise InvalidRequest(
            f"axes={asked[:20]!r}: one letter for each axis, none twice, C, Y and X among them, as in TCYX"
        )
    if len(axes) == len(shape):
        return axes, shape
    pages, rest = divmod(shape[0], channels) if shape else (0, 0)
    stopped = pages and axes[1] == "C" and own[-2:] == "YX" and "C" not in own
    if len(shape) == 3 and len(axes) == 4 and axes.endswith("YX") and (not rest or stopped):
        lead = (pages, channels) if axes[1] == "C" else (channels, pages)
        return axes, (*lead, *shape[1:])
    raise InvalidRequest(
        f"axes={asked!r} names {len(axes)} axes, {name} has {len(shape)}, of lengths {shape}"
    )


def _channel_axis(axes: str, shape: tuple[int, ...], spec: FovSpec, name: str) -> tuple[str, tuple[int, ...]]:
    """Axes and shape with a channel axis, where the file names none."""
    channels = len(spec.channels)
    leading = [(a, n) for a, n in zip(axes, shape, strict=True) if a not in "YX"]
    planes = prod(n for _, n in leading)
    if channels == 1 or planes == 1:
        axes, shape = f"C{axes}", (1, *shape)
        return axes, shape
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
        f"{name} holds {planes} images and does not tell which are channels. Pass axes=PCYX if the channel "
        "changes from each image to the next, axes=CPYX if all images of a channel come together"
    )
