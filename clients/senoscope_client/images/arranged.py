"""Assignment of the axes and channels of an image, from metadata of its file and options of the user."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from senoscope_client.errors import AmbiguousAxes, InvalidRequest, UnreadableImage, WrongChannelCount
from senoscope_client.images.axes import FovSpec, Layout, ReadOptions, find_layout
from senoscope_client.images.channel_names import clean_label, name_planes, normalize_name, uncertain_labels
from senoscope_client.images.notices import Notice
from senoscope_client.images.sanitize import sanitize_for_display
from senoscope_client.images.stored import Labels, StoredImage

_RGB_SAMPLES: Final = 3
_MAX_GREY_CHECKS: Final = 16  # fields of view that are checked for equal colours


class ArrangedImage:
    """An image whose axes are assigned; `assign_channels` sets its channels.

    Attributes
    ----------
    plane_names : tuple of str or None
        The channel of each plane, if the file names it.
    select : list of int or None
        The channels to read, in order; None: all.
    """

    def __init__(self, stored: StoredImage, layout: Layout, plane_names: tuple[str, ...] | None) -> None:
        self.stored = stored
        self.layout = layout
        self.plane_names = plane_names
        self.notices: tuple[Notice, ...] = ()
        self.select: list[int] | None = None
        outer = len(layout.shape)
        rest = prod(stored.shape[len(stored.shape) - stored.inner :])
        while outer and rest > 1:
            outer -= 1
            rest //= layout.shape[outer]
        self._outer = outer
        numbers = np.arange(prod(layout.shape[:outer])).reshape(
            *layout.shape[:outer], *(1,) * (len(layout.shape) - outer)
        )
        # For each field of view its planes: one for each channel, or one with all channels.
        self._planes = numbers.transpose(layout.order).reshape(layout.fovs, -1) if self._separable else None
        self._whole: npt.NDArray[Any] | None = None

    @property
    def _separable(self) -> bool:
        """Whether each plane belongs to one field of view only."""
        layout = self.layout
        return all(axis < self._outer or layout.shape[axis] == 1 for axis in layout.order[:-3])

    @property
    def planes(self) -> npt.NDArray[Any] | None:
        """Number of each channel's plane, by field of view; None if planes have several channels."""
        if self._planes is None or self._planes.shape[1] != self.layout.channels:
            return None
        return self._planes

    @property
    def bytes_at_once(self) -> int:
        """Bytes that reading the first field of view decodes in addition to it: 0, or the whole image."""
        return 0 if self._separable else self.stored.nbytes

    def first_plane(self, n: int) -> int:
        """Return the number of the first plane of a field of view."""
        return 0 if self._planes is None else int(self._planes[n, 0])

    def read(self, n: int) -> npt.NDArray[Any]:
        """Read a field of view, [C, H, W], with the selected channels."""
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
            if self.planes is not None and self.select is not None:
                numbers = numbers[self.select]
            shape = layout.shape[self._outer :]
            parts = [self.stored.read_plane(int(k)).reshape(shape).transpose(inner) for k in numbers]
            fov = (np.stack(parts) if len(parts) > 1 else parts[0]).reshape(-1, layout.height, layout.width)
            if self.planes is not None:
                return fov
        return fov if self.select is None else np.asarray(fov[self.select])


def arrange_image(image: StoredImage, options: ReadOptions) -> ArrangedImage:
    """Assign the axes of an image."""
    name, labels = options.name, image.labels
    if image.dtype.kind not in "uif":
        raise UnreadableImage(f"{name} holds values of type {image.dtype}; pixels must be integers or floats")
    if not prod(image.shape):
        raise UnreadableImage(f"{name} holds an image without pixels, of shape {image.shape}")
    planes = name_planes(labels.planes, options.spec.channels) if labels and labels.planes else None
    shape, axes = image.shape, image.axes
    if (
        "C" in axes
        and shape[axes.index("C")] == 1
        and (options.axes is not None or not _name_one_channel(labels, planes))
    ):
        # Programs also declare one channel if they have no information; axes= and labels have priority.
        at = axes.index("C")
        shape, axes = (*shape[:at], *shape[at + 1 :]), axes.replace("C", "")
    return ArrangedImage(image, find_layout(shape, axes, planes, options), planes)


def _name_one_channel(labels: Labels | None, planes: Sequence[str] | None) -> bool:
    """Return whether all planes, or their samples, have the same name."""
    names = planes if planes is not None else (() if labels is None else labels.samples)
    return len({normalize_name(name) for name in names}) == 1 and all(names)


def assign_channels(image: ArrangedImage, options: ReadOptions) -> None:
    """Set the channels of an image, and its notices."""
    spec, channels, name = options.spec, options.channels, options.name
    layout, labels = image.layout, image.stored.labels
    notices = [*image.stored.notices, *layout.notices]
    if layout.samples and layout.channels == _RGB_SAMPLES and _is_grey(image):
        if len(spec.channels) == 1:
            text = "the file's three colour samples are equal: one of them is taken, as a grey picture"
            image.select, image.notices = [0], (*image.stored.notices, Notice("grey-samples", text))
            return
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
            names = _channel_names(image.plane_names, image.planes, options, labels.source)
            shown = [
                clean_label(next(filter(None, (labels.planes[k] for k in one)), "")) for one in image.planes.T
            ]
        elif len(labels.samples) == layout.channels:
            names = labels.samples
        if names is None:
            given = _list_names(list(dict.fromkeys(labels.samples or labels.planes)))
            text = f"the names in the file do not identify the channels ({labels.source}: {given})"
            notices.append(Notice("channel-names", text))
    elif channels is None and len(spec.channels) > 1 and image.stored.mentions:
        given = ", ".join(image.stored.mentions)
        text = f"the file mentions {given}, but does not identify the channels: taken by position"
        notices.append(Notice("channel-names", text))
    image.select, further = _channel_order(names, shown or names, layout, options)
    if labels is not None and names is not None and image.plane_names is not None:
        uncertain = uncertain_labels(labels.planes, image.plane_names, spec.channels)
        if uncertain and {*spec.channels} <= {*names}:
            text = f"channels are identified by one word of their labels: {_list_names(uncertain)}"
            notices.append(Notice("channel-names", text))
    image.notices = (*notices, *further)


def _is_grey(image: ArrangedImage) -> bool:
    """Return whether the channels are equal in the first fields of view, and these are not all uniform."""
    uniform = True
    for n in range(min(image.layout.fovs, _MAX_GREY_CHECKS)):
        fov = image.read(n)
        if not (fov[:1] == fov).all():
            return False
        uniform = uniform and fov.min() == fov.max()
    return not uniform


def _channel_names(
    names: Sequence[str], planes: npt.NDArray[Any], options: ReadOptions, source: str
) -> tuple[str, ...] | None:
    """Return the name of each channel; None if planes of a channel have different names.

    Raises
    ------
    AmbiguousAxes
        If planes of one channel have the names of different channels of the ensemble.
    """
    wanted = {normalize_name(channel) for channel in options.spec.channels}
    columns = [list(dict.fromkeys(names[k] for k in column if names[k])) for column in planes.T]
    mixed = next(
        (column for column in columns if len({normalize_name(one) for one in column} & wanted) > 1), None
    )
    if mixed is not None:
        raise AmbiguousAxes(
            f"{options.name} has different names for planes of one channel: {_list_names(mixed)} ({source}). "
            "Pass axes= with the order of the file (PCYX: the channel changes from each image to the next; "
            "CPYX: all images of a channel follow one another), or channels= with the names in order, if the "
            "names are wrong"
        )
    if any(len(column) > 1 for column in columns):
        return None
    return tuple(column[0] if column else "" for column in columns)


def _channel_order(
    names: Sequence[str] | None, shown: Sequence[str] | None, layout: Layout, options: ReadOptions
) -> tuple[list[int] | None, tuple[Notice, ...]]:
    """Return the file's channels to read, in the order of the ensemble (None: all, in their order).

    ``shown`` are the names as they are in the file, for messages.
    """
    spec, user_channels, name = options.spec, options.channels, options.name
    if user_channels is not None:
        if len(user_channels) != layout.channels:
            raise InvalidRequest(
                f"channels= names {len(user_channels)} channels, {name} has {layout.channels}"
            )
        names = shown = tuple(user_channels)
    shown = shown or ()
    wanted = ", ".join(spec.channels)
    if names is not None and len(names) == layout.channels:
        normalized = [normalize_name(given) for given in names]
        wanted_names = [normalize_name(channel) for channel in spec.channels]
        found = [normalized.index(one) for one in wanted_names if normalized.count(one) == 1]
        if len(found) == len(spec.channels):
            extra = [given for n, given in enumerate(shown) if n not in found]
            text = f"channels that the ensemble does not take were left out: {_list_names(extra)}"
            notices = (Notice("channels-left-out", text),) if extra else ()
            return None if found == list(range(len(names))) else found, notices
        if found and layout.channels < len(spec.channels):
            raise _wrong_count_error(name, layout, spec, shown)
        if found or user_channels is not None:
            raise AmbiguousAxes(
                f"{name} has channels named {_list_names(shown)}; the ensemble takes {wanted}. Pass "
                "channels= with the names of the file's channels in order"
            )
    if layout.channels != len(spec.channels):
        raise _wrong_count_error(name, layout, spec, shown)
    if names is not None and any(names):
        text = f"the file's channels ({_list_names(shown)}) are taken as {wanted}, by position"
        return None, (Notice("channel-names", text),)
    return None, ()


def _wrong_count_error(name: str, layout: Layout, spec: FovSpec, names: Sequence[str]) -> WrongChannelCount:
    channels = "1 channel" if layout.channels == 1 else f"{layout.channels} channels"
    listed = f": {_list_names(names)}" if any(names) else ""
    doubtful = layout.channels == 1 < layout.fovs and listed and names[0] not in spec.channels
    advice = ". If its images are of several channels, pass axes=, such as PCYX or CPYX" if doubtful else ""
    return WrongChannelCount(
        f"{name} has {channels}{listed}{';' if listed else ','} the ensemble takes {len(spec.channels)}: "
        f"{', '.join(spec.channels)}{advice}"
    )


def _list_names(names: Sequence[str]) -> str:
    return sanitize_for_display(", ".join(names), 200)
