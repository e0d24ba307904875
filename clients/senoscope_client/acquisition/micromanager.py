"""The frames of a pymmcore-plus acquisition as fields of view: channels collected, places told."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import numpy as np
import numpy.typing as npt

from senoscope_client.errors import SenoscopeError
from senoscope_client.wire.messages import Index, Position
from senoscope_client.zeromq.frame_publisher import FramePublisher

if TYPE_CHECKING:
    from pymmcore_plus.mda import MDARunner
    from useq import MDAEvent

_log = logging.getLogger(__name__)
# Key of an event's metadata that tells which field of view it belongs to, where its index does not.
FOV_KEY: Final = "senoscope_fov"
# Events that are read to find the channels of a plan, which may have no end.
_MOST_CHECKED: Final = 100_000


def channel_name(event: MDAEvent, meta: Mapping[str, Any]) -> str:
    """The preset of the event's channel or, without one, the camera that took the image."""
    return event.channel.config if event.channel is not None else str(meta.get("camera_device") or "")


def fov_key(event: MDAEvent) -> Hashable:
    """What all events of one field of view have in common: place, and index but for the channel."""
    tag: Hashable = event.metadata.get(FOV_KEY)
    index = tuple(sorted((str(axis), n) for axis, n in event.index.items() if axis != "c"))
    return tag if tag is not None else (index, event.x_pos, event.y_pos)


class MdaFrames:
    """Publishes each field of view of an acquisition, which is a series, when all its channels are there.

    Listens to the signals of pymmcore-plus' acquisition engine: ``sequenceStarted``, ``frameReady`` and
    ``sequenceFinished``. A frame that cannot be published is logged and counted; the acquisition goes on.

    Parameters
    ----------
    publisher : FramePublisher
        Its ``channels`` are those that are collected, whatever order they come in. The first image of any
        other channel is logged as an error; its images are counted in ``foreign`` and not published.
    series_id : str
        The operator's name for the series.
    channel_of : callable
        Tells the channel's name from event and metadata. Default: the preset of the event's channel, else
        the label of the camera, for detectors that are read out together.
    on_published : callable, optional
        Told series, frame number and the event of the last channel; before any answer to it is heeded.
    max_incomplete : int
        Fields of view whose channels may be outstanding; one more, and the oldest is given up.

    Attributes
    ----------
    planned_frames : int or None
        To be told at the start of the next series.
    end_reason : str or None
        To be told at its end, in place of the engine's own.
    series_uid : UUID or None
        Of the last series.
    published, incomplete, failed : int
        Fields of view, of this series: sent; given up because a channel never came; not such as can be sent.
    foreign : dict of str to int
        Images of this series whose channel is none of the publisher's, by the channel's name.
    """

    def __init__(
        self,
        publisher: FramePublisher,
        series_id: str = "acquisition",
        *,
        channel_of: Callable[[MDAEvent, Mapping[str, Any]], str] = channel_name,
        on_published: Callable[[UUID, int, MDAEvent], None] | None = None,
        max_incomplete: int = 64,
    ) -> None:
        self.series_id = series_id
        self.planned_frames: int | None = None
        self.end_reason: str | None = None
        self.series_uid: UUID | None = None
        self.published = self.incomplete = self.failed = 0
        self.foreign: dict[str, int] = {}
        self.lock = threading.RLock()
        self._publisher = publisher
        self._channel_of = channel_of
        self.on_published = on_published
        self._max_incomplete = max_incomplete
        self._runner: MDARunner | None = None
        self._outstanding: OrderedDict[Hashable, dict[str, npt.NDArray[Any]]] = OrderedDict()

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels that make a field of view: the publisher's."""
        return tuple(self._publisher.channels)

    def require_channels(self, plan: Iterable[MDAEvent]) -> None:
        """Reject a plan of which no field of view can be published.

        Plans that can be read only once, and those whose channels are named by ``channel_of`` or by the
        camera, are not checked: their channels are known when the images come.

        Raises
        ------
        SenoscopeError
            If the presets of the plan's channels do not include all channels of the publisher.
        """
        if self._channel_of is not channel_name or iter(plan) is plan:
            return
        missing, presets = set(self.channels), dict[str, None]()
        for event in islice(plan, _MOST_CHECKED):
            if event.channel is None:
                return
            presets[event.channel.config] = None
            missing.discard(event.channel.config)
            if not missing:
                return
        if presets and len(presets) < _MOST_CHECKED:
            absent = ", ".join(repr(name) for name in self.channels if name in missing)
            raise SenoscopeError(
                f"no field of view of this plan can be published: it has no channel {absent}. "
                f"Its presets are {_listed(presets)}, the publisher's channels {_listed(self.channels)}. "
                "Name the presets as the ensemble's channels, or pass channel_of= to MdaFrames."
            )

    def connect(self, runner: MDARunner) -> None:
        """Listen to an engine, such as ``CMMCorePlus.instance().mda``."""
        self._runner = runner
        runner.events.sequenceStarted.connect(self.sequenceStarted)
        runner.events.frameReady.connect(self.frameReady)
        runner.events.sequenceFinished.connect(self.sequenceFinished)

    def disconnect(self) -> None:
        """Listen no more."""
        if self._runner is not None:
            events, self._runner = self._runner.events, None
            events.sequenceStarted.disconnect(self.sequenceStarted)
            events.frameReady.disconnect(self.frameReady)
            events.sequenceFinished.disconnect(self.sequenceFinished)

    def sequenceStarted(self, sequence: object = None, meta: object = None) -> None:  # noqa: N802
        """Open a series."""
        del sequence, meta
        with self.lock:
            self._outstanding.clear()
            self.published = self.incomplete = self.failed = 0
            self.foreign.clear()
            self.series_uid = self._publisher.start_series(self.series_id, self.planned_frames)

    def frameReady(  # noqa: N802
        self, image: npt.NDArray[Any], event: MDAEvent, meta: Mapping[str, Any]
    ) -> None:
        """Keep a channel's image, which is copied, and publish the field of view if it was the last one."""
        name = self._channel_of(event, meta)
        if name not in self._publisher.channels:
            self._leave_out(name)
            return
        key = fov_key(event)
        with self.lock:
            images = self._outstanding.setdefault(key, {})
            if name in images:  # the same place once more, before it was complete
                self._give_up(key)
                images = self._outstanding.setdefault(key, {})
            images[name] = image.copy()
            if len(images) == len(self._publisher.channels):
                del self._outstanding[key]
                self._publish(images, event, meta)
            elif len(self._outstanding) > self._max_incomplete:
                self._give_up(next(iter(self._outstanding)))

    def sequenceFinished(self, sequence: object = None) -> None:  # noqa: N802
        """End the series."""
        del sequence
        with self.lock:
            for key in list(self._outstanding):
                self._give_up(key)
            reason = None if self._runner is None else self._runner.status.finish_reason
            self._publisher.end_series(self.end_reason or (str(reason) if reason else "completed"))
            self.end_reason = None

    def _publish(
        self, images: Mapping[str, npt.NDArray[Any]], event: MDAEvent, meta: Mapping[str, Any]
    ) -> None:
        try:
            frame = self._publisher.publish(
                np.stack([images[name] for name in self._publisher.channels]),
                _position(event, meta),
                _index(event),
                exposure_ms=meta.get("exposure_ms"),
                # Zero is what Micro-Manager says where nobody has calibrated it.
                pixel_size_um=meta.get("pixel_size_um") or None,
            )
        except (ValueError, RuntimeError) as error:
            self.failed += 1
            _log.error("a field of view cannot be published: %s (index %s)", error, dict(event.index))
            return
        self.published += 1
        if self.on_published is not None and self.series_uid is not None:
            self.on_published(self.series_uid, frame, event)

    def _leave_out(self, name: str) -> None:
        with self.lock:
            first = name not in self.foreign
            self.foreign[name] = self.foreign.get(name, 0) + 1
        if first:
            _log.error(
                "channel %r is none of the publisher's channels (%s): its images are not published. "
                "Name the preset as one of them, or pass channel_of= to MdaFrames",
                name,
                _listed(self.channels),
            )

    def _give_up(self, key: Hashable) -> None:
        images = self._outstanding.pop(key)
        self.incomplete += 1
        lacking = ", ".join(name for name in self._publisher.channels if name not in images)
        _log.warning("a field of view lacks %s and is not published (%s)", lacking, key)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)


def _position(event: MDAEvent, meta: Mapping[str, Any]) -> Position | None:
    """Where the stage was or, where the engine does not ask it, where it was sent."""
    told = meta.get("position") or {}
    planned = {"x": event.x_pos, "y": event.y_pos, "z": event.z_pos}
    x, y, z = (told.get(axis) if told.get(axis) is not None else planned[axis] for axis in "xyz")
    return None if x is None or y is None else Position(x=x, y=y, z=0.0 if z is None else z)


def _index(event: MDAEvent) -> Index:
    return Index(**{axis: event.index.get(axis, 0) for axis in ("p", "t", "z")})
