"""Which page of a TIFF file shows what, by what Micro-Manager writes about each page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from senoscope_client.errors import UnreadableImage
from senoscope_client.images.notices import Notice
from senoscope_client.images.sanitize import tellable
from senoscope_client.images.stored import Labels
from senoscope_client.images.tiff import TiffPages
from senoscope_client.images.tiff_planes import Planes, Request, require_alike
from senoscope_client.wire.messages import Position


def micromanager_planes(pages: TiffPages, request: Request) -> Planes | None:
    """Pages that each say which channel of which field of view they are; None if they do not all say it."""
    require_alike(pages, range(len(pages)), request.name)
    fovs: dict[tuple[object, ...], dict[str, int]] = {}
    times: dict[tuple[object, ...], int] = {}
    for n in range(len(pages)):
        key, channel = _event(pages.metadata(n))
        if channel is None:
            return None
        if channel in fovs.get((key, times.get(key, 0)), {}):
            times[key] = times.get(key, 0) + 1  # the same place once more
        fovs.setdefault((key, times.get(key, 0)), {})[channel] = n
    names = list(dict.fromkeys(name for channels in fovs.values() for name in channels))
    wanted = [name for name in names if name in request.channels]
    needed = wanted if len(wanted) == len(request.channels) else names
    complete = [channels for channels in fovs.values() if all(name in channels for name in needed)]
    left_out = len(pages) - sum(len(channels) for channels in complete)
    if not complete:
        raise UnreadableImage(
            f"{request.name} holds no complete field of view: of {len(fovs)}, none has a page of each of its "
            f"channels ({tellable(', '.join(names), 200)})"
        )
    # Channels that only some fields of view have are not a channel of the stack.
    names = [name for name in names if all(name in channels for channels in complete)]
    notices: tuple[Notice, ...] = ()
    if len(complete) < len(fovs):
        text = f"{len(fovs)} fields of view were begun, {len(complete)} are complete and taken"
        text += f"; {left_out} pages of incomplete ones are left out"
        notices = (Notice("incomplete", text),)
    table = [channels[name] for channels in complete for name in names]
    labels = Labels("Micro-Manager's metadata", names * len(complete))
    size = (pages.metadata(table[0]) or {}).get("PixelSizeUm")
    return Planes(
        "PC",
        (len(complete), len(names)),
        table,
        labels,
        notices,
        pixel_size_um=float(size) if isinstance(size, int | float) and size > 0 else None,
        position_of=lambda n: _stage(pages.metadata(table[n])),
    )


def _event(metadata: Mapping[str, Any] | None) -> tuple[tuple[object, ...], str | None]:
    """Which field of view a page belongs to, and its channel; without one, None."""
    if metadata is None:
        return (), None
    axes = metadata.get("Axes")
    axes = axes if isinstance(axes, dict) else {}
    channel = next((key for key in axes if key.lower() == "channel"), "")
    name = metadata.get("Channel")
    if not isinstance(name, str) or not name:
        name = axes.get(channel)
    place: dict[str, object] = {key: str(value) for key, value in axes.items() if key != channel}
    if not axes:
        for keys in (
            ("PositionIndex", "Position", "PositionName"),
            ("FrameIndex", "Frame"),
            ("SliceIndex", "Slice"),
        ):
            place[keys[0]] = next((str(metadata[key]) for key in keys if key in metadata), "")
    return tuple(sorted(place.items())), None if name is None else str(name)


def _stage(metadata: Mapping[str, Any] | None) -> Position | None:
    told = metadata or {}
    x, y, z = (
        next((told[key] for key in (f"{axis}PositionUm", f"{axis}Position_um_Intended") if key in told), None)
        for axis in "XYZ"
    )
    try:
        return (
            Position(x=float(x), y=float(y), z=float(z or 0.0)) if x is not None and y is not None else None
        )
    except (TypeError, ValueError):
        return None


def micromanager_labels(pages: TiffPages, numbers: Sequence[int]) -> Labels | None:
    """The channel that Micro-Manager's metadata of each page name."""
    if not pages.directories.metadata[1]:
        return None
    names = [_event(pages.metadata(n))[1] or "" for n in numbers]
    return Labels("Micro-Manager's metadata", names) if any(names) else None
