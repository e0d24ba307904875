"""Frames of a pymmcore-plus acquisition: combines the images of all channels and publishes them."""

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
# Metadata key of events that identifies their field of view if index and position do not.
FOV_KEY: Final = "senoscope_fov"
# Maximum number of events that are read to find the channels of a plan, which may be infinite.
_MAX_CHECKED_EVENTS: Final = 100_000


def channel_name(event: MDAEvent, meta: Mapping[str, Any]) -> str:
    """Return the preset of the event's channel or, without one, the camera that took the image."""
    return event.channel.config if event.channel is not None else str(meta.get("camera_device") or "")


def fov_key(event: MDAEvent) -> Hashable:
    """Return what all events of a field of view have in common: position, and index without channel."""
    tag: Hashable = event.metadata.get(FOV_KEY)
    index = tuple(sorted((str(axis), n) for axis, n in event.index.items() if axis != "c"))
    return tag if tag is not None else (index, event.x_pos, event.y_pos)


class MdaFrames:
    """Publishes each field of view of an acquisition as soon as the images of all channels are received.

    An acquisition is a series. Handles the signals ``sequenceStarted``, ``frameReady`` and
    ``sequenceFinished`` of pymmcore-plus' acquisition engine. A field of view that cannot be published is
    logged and counted; the acquisition continues.

    Parameters
    ----------
    publisher : FramePublisher
        Images of its ``channels`` are combined, in any order of arrival. The first image of any other
        channel is logged as an error; such images are counted in ``foreign`` and not published.
    series_id : str
        The operator's name for the series.
    channel_of : callable
        Returns the channel's name for event and metadata. Default: the preset of the event's channel, else
        the label of the camera, for detectors that are read out together.
    on_published : callable, optional
        Called with series, frame number and the event of the last channel, before any decision on the frame
        is carried out.
    max_incomplete : int
        Maximum number of fields of view with missing channels; beyond it the oldest is discarded.

    Attributes
    ----------
    planned_frames : int or None
        Sent with the start of the next series.
    end_reason : str or None
        Sent with the end of the series, instead of the engine's reason.
    series_uid : UUID or None
        Of the last series.
    published, incomplete, failed : int
        Fields of view of this series: published; discarded because a channel is missing; rejected by the
        publisher.
    foreign : dict of str to int
        Images of this series whose channel is not one of the publisher's, by channel name.
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
        """The channels of a field of view: those of the publisher."""
        return tuple(self._publisher.channels)

    def require_channels(self, plan: Iterable[MDAEvent]) -> None:
        """Reject a plan of which no field of view can be published.

        Plans that can be read only once, and plans whose channels are named by ``channel_of`` or by the
        camera, are not checked: their channels are known only when the images are received.

        Raises
        ------
        SenoscopeError
            If the presets of the plan's channels do not include all channels of the publisher.
        """
        if self._channel_of is not channel_name or iter(plan) is plan:
            return
        missing, presets = set(self.channels), dict[str, None]()
        for event in islice(plan, _MAX_CHECKED_EVENTS):
            if event.channel is None:
                return
            presets[event.channel.config] = None
            missing.discard(event.channel.config)
            if not missing:
                return
        if presets and len(presets) < _MAX_CHECKED_EVENTS:
            absent = _quote_names(name for name in self.channels if name in missing)
            raise SenoscopeError(
                f"no field of view of this plan can be published: it has no channel {absent}. "
                f"Its presets are {_quote_names(presets)}, the publisher's channels are "
                f"{_quote_names(self.channels)}. Name the presets like the ensemble's channels, or pass "
                "channel_of= to MdaFrames."
            )

    def connect(self, runner: MDARunner) -> None:
        """Connect to the signals of an engine, such as ``CMMCorePlus.instance().mda``."""
        self._runner = runner
        runner.events.sequenceStarted.connect(self.sequenceStarted)
        runner.events.frameReady.connect(self.frameReady)
        runner.events.sequenceFinished.connect(self.sequenceFinished)

    def disconnect(self) -> None:
        """Disconnect from the signals of the engine."""
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
        """Store a copy of a channel's image, and publish the field of view if it is now complete."""
        name = self._channel_of(event, meta)
        if name not in self._publisher.channels:
            self._count_foreign_image(name)
            return
        key = fov_key(event)
        with self.lock:
            images = self._outstanding.setdefault(key, {})
            if name in images:  # the same field of view is acquired again before it was complete
                self._discard(key)
                images = self._outstanding.setdefault(key, {})
            images[name] = image.copy()
            if len(images) == len(self._publisher.channels):
                del self._outstanding[key]
                self._publish(images, event, meta)
            elif len(self._outstanding) > self._max_incomplete:
                self._discard(next(iter(self._outstanding)))

    def sequenceFinished(self, sequence: object = None) -> None:  # noqa: N802
        """End the series."""
        del sequence
        with self.lock:
            for key in list(self._outstanding):
                self._discard(key)
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
                # Micro-Manager reports zero if the pixel size is not calibrated.
                pixel_size_um=meta.get("pixel_size_um") or None,
            )
        except (ValueError, RuntimeError) as error:
            self.failed += 1
            _log.error("a field of view cannot be published: %s (index %s)", error, dict(event.index))
            return
        self.published += 1
        if self.on_published is not None and self.series_uid is not None:
            self.on_published(self.series_uid, frame, event)

    def _count_foreign_image(self, name: str) -> None:
        with self.lock:
            first = name not in self.foreign
            self.foreign[name] = self.foreign.get(name, 0) + 1
        if first:
            _log.error(
                "channel %r is not one of the publisher's channels (%s): its images are not published. "
                "Name the preset like one of them, or pass channel_of= to MdaFrames",
                name,
                _quote_names(self.channels),
            )

    def _discard(self, key: Hashable) -> None:
        images = self._outstanding.pop(key)
        self.incomplete += 1
        missing = ", ".join(name for name in self._publisher.channels if name not in images)
        _log.warning("a field of view is not published, because %s is missing (%s)", missing, key)


def _quote_names(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)


def _position(event: MDAEvent, meta: Mapping[str, Any]) -> Position | None:
    """Return the measured position of the stage or, if the engine does not measure it, the planned one."""
    measured = meta.get("position") or {}
    planned = {"x": event.x_pos, "y": event.y_pos, "z": event.z_pos}
    x, y, z = (measured.get(axis) if measured.get(axis) is not None else planned[axis] for axis in "xyz")
    return None if x is None or y is None else Position(x=x, y=y, z=0.0 if z is None else z)


def _index(event: MDAEvent) -> Index:
    return Index(**{axis: event.index.get(axis, 0) for axis in ("p", "t", "z")})
