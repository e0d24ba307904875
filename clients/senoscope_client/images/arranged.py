"""An image whose axes and channels are known, from what its file declares and what the user says."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from senoscope_client.errors import AmbiguousAxes, InvalidRequest, UnreadableImage, WrongChannelCount
from senoscope_client.images.axes import FovSpec, Layout, layout_of
from senoscope_client.images.channel_names import clean, name_planes, named_by_word, plain
from senoscope_client.images.notices import Notice
from senoscope_client.images.sanitize import tellable
from senoscope_client.images.stored import Labels, StoredImage

_RGB_SAMPLES: Final = 3
_LOOKED_AT: Final = 16  # fields of view, for whether their colours are grey


class ArrangedImage:
    """An image whose axes are known, and in the end its channels.

    Attributes
    ----------
    plane_names : tuple of str or None
        The channel that each plane shows, where the file says.
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

    def chosen(self, select: list[int] | None, notices: tuple[Notice, ...]) -> ArrangedImage:
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


def lay_out(
    image: StoredImage, spec: FovSpec, asked: str | None, channels: Sequence[str] | None, name: str
) -> ArrangedImage:
    """Find out which axis of an image is which, from what it declares."""
    if image.dtype.kind not in "uif":
        raise UnreadableImage(f"{name} holds values of type {image.dtype}; pixels are integers or floats")
    if not prod(image.shape):
        raise UnreadableImage(f"{name} holds an image without pixels, of shape {image.shape}")
    labels = image.labels
    planes = name_planes(labels.planes, spec.channels) if labels is not None and labels.planes else None
    shape, axes = image.shape, image.axes
    if "C" in axes and shape[axes.index("C")] == 1 and (asked is not None or not _names_one(labels, planes)):
        # Programs declare one channel where they know of none; axes= and labels count more.
        at = axes.index("C")
        shape, axes = (*shape[:at], *shape[at + 1 :]), axes.replace("C", "")
    layout = layout_of(
        shape,
        axes,
        asked,
        spec,
        name,
        plane_names=planes if channels is None else None,
        channels=None if channels is None else len(channels),
    )
    return ArrangedImage(image, layout, planes)


def _names_one(labels: Labels | None, planes: Sequence[str] | None) -> bool:
    """Whether all planes, or their samples, have one name."""
    names = planes if planes is not None else (() if labels is None else labels.samples)
    return len({plain(one) for one in names}) == 1 and all(names)


def assign_channels(
    image: ArrangedImage, spec: FovSpec, channels: Sequence[str] | None, name: str
) -> ArrangedImage:
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
    names: Sequence[str] | None = None
    shown: Sequence[str] | None = None
    if channels is None and labels is not None:
        if image.plane_names is not None and image.planes is not None:
            names = _names_of_columns(image.plane_names, image.planes, spec, labels.source, name)
            shown = [clean(next(filter(None, (labels.planes[k] for k in one)), "")) for one in image.planes.T]
        elif len(labels.samples) == layout.channels:
            names = labels.samples
        if names is None:
            given = _quoted(list(dict.fromkeys(labels.samples or labels.planes)))
            text = f"names in the file do not say which channel is which ({labels.source}: {given})"
            notices.append(Notice("channel-names", text))
    elif channels is None and len(spec.channels) > 1 and image.stored.mentions:
        given = ", ".join(image.stored.mentions)
        text = f"the file mentions {given}, but not which channel is which: taken by position"
        notices.append(Notice("channel-names", text))
    select, further = _channels(names, shown or names, layout, spec, channels, name)
    if labels is not None and names is not None and image.plane_names is not None:
        by_word = named_by_word(labels.planes, image.plane_names, spec.channels)
        if by_word and {*spec.channels} <= {*names}:
            text = f"channels are known by one word of their labels: {_quoted(by_word)}"
            notices.append(Notice("channel-names", text))
    return image.chosen(select, (*notices, *further))


def _is_grey(image: ArrangedImage) -> bool:
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
    """The name of each channel, if all planes of the channel have it, or none.

    Raises
    ------
    AmbiguousAxes
        If planes of one channel show different channels of the ensemble.
    """
    wanted = {plain(channel) for channel in spec.channels}
    columns = [list(dict.fromkeys(names[k] for k in column if names[k])) for column in planes.T]
    mixed = next((column for column in columns if len({plain(one) for one in column} & wanted) > 1), None)
    if mixed is not None:
        raise AmbiguousAxes(
            f"{name} has planes that would be one channel, but are named {_quoted(mixed)} ({source}). Pass "
            "axes= as the file is (PCYX: the channel changes from image to image, CPYX: all images of "
            "a channel come together), or channels= with the names in its order, if the names are wrong"
        )
    if any(len(column) > 1 for column in columns):
        return None
    return tuple(column[0] if column else "" for column in columns)


def _channels(
    names: Sequence[str] | None,
    shown: Sequence[str] | None,
    layout: Layout,
    spec: FovSpec,
    asked: Sequence[str] | None,
    name: str,
) -> tuple[list[int] | None, tuple[Notice, ...]]:
    """Which of the file's channels to take, in which order (None: all, as they are).

    ``shown`` are the names as the file has them, for messages.
    """
    if asked is not None:
        if len(asked) != layout.channels:
            raise InvalidRequest(f"channels= names {len(asked)} channels, {name} has {layout.channels}")
        names = shown = tuple(asked)
    shown = shown or ()
    wanted = ", ".join(spec.channels)
    if names is not None and len(names) == layout.channels:
        known = [plain(given) for given in names]
        found = [known.index(plain(c)) for c in spec.channels if known.count(plain(c)) == 1]
        if len(found) == len(spec.channels):
            extra = [given for n, given in enumerate(shown) if n not in found]
            text = f"channels that the ensemble does not take were left out: {_quoted(extra)}"
            notices = (Notice("channels-left-out", text),) if extra else ()
            return None if found == list(range(len(names))) else found, notices
        if found and layout.channels < len(spec.channels):
            raise _wrong_count(name, layout, spec, shown)
        if found or asked is not None:
            raise AmbiguousAxes(
                f"{name} has channels named {_quoted(shown)}; the ensemble takes {wanted}. Pass "
                "channels= with the names of the file's channels in its order"
            )
    if layout.channels != len(spec.channels):
        raise _wrong_count(name, layout, spec, shown)
    if names is not None and any(names):
        text = f"the file's channels ({_quoted(shown)}) are taken as {wanted}, by position"
        return None, (Notice("channel-names", text),)
    return None, ()


def _wrong_count(name: str, layout: Layout, spec: FovSpec, names: Sequence[str]) -> WrongChannelCount:
    channels = "1 channel" if layout.channels == 1 else f"{layout.channels} channels"
    listed = f": {_quoted(names)}" if any(names) else ""
    doubtful = layout.channels == 1 < layout.fovs and listed and names[0] not in spec.channels
    advice = ". If its images are of several channels, pass axes=, as in PCYX or CPYX" if doubtful else ""
    return WrongChannelCount(
        f"{name} has {channels}{listed}{';' if listed else ','} the ensemble takes {len(spec.channels)}: "
        f"{', '.join(spec.channels)}{advice}"
    )


def _quoted(names: Sequence[str]) -> str:
    return tellable(", ".join(names), 200)
