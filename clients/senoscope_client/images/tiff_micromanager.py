"""Planes of TIFF files by the metadata that Micro-Manager writes for each page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from senoscope_client.errors import UnreadableImage
from senoscope_client.images.axes import ReadOptions
from senoscope_client.images.notices import Notice
from senoscope_client.images.sanitize import sanitize_for_display
from senoscope_client.images.stored import Labels
from senoscope_client.images.tiff import TiffPages
from senoscope_client.images.tiff_planes import Planes, require_alike
from senoscope_client.wire.messages import Position

_INDEX_KEYS = (
    ("PositionIndex", "Position", "PositionName"),
    ("FrameIndex", "Frame"),
    ("SliceIndex", "Slice"),
)


def micromanager_planes(pages: TiffPages, options: ReadOptions) -> Planes | None:
    """Return the planes by field of view and channel of each page; None if a page does not declare them."""
    require_alike(pages, range(len(pages)))
    fovs: dict[tuple[object, ...], dict[str, int]] = {}
    times: dict[tuple[object, ...], int] = {}
    for n in range(len(pages)):
        key, channel = _fov_and_channel(pages.metadata(n))
        if channel is None:
            return None
        if channel in fovs.get((key, times.get(key, 0)), {}):
            times[key] = times.get(key, 0) + 1  # the same field of view is acquired again
        fovs.setdefault((key, times.get(key, 0)), {})[channel] = n
    names = list(dict.fromkeys(name for channels in fovs.values() for name in channels))
    wanted = [name for name in names if name in options.spec.channels]
    needed = wanted if len(wanted) == len(options.spec.channels) else names
    complete = [channels for channels in fovs.values() if all(name in channels for name in needed)]
    left_out = len(pages) - sum(len(channels) for channels in complete)
    if not complete:
        raise UnreadableImage(
            f"{options.name} holds no complete field of view: none of {len(fovs)} has a page of each channel "
            f"({sanitize_for_display(', '.join(names), 200)})"
        )
    # Channels that some fields of view lack are not channels of the stack.
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
        labels=labels,
        notices=notices,
        pixel_size_um=float(size) if isinstance(size, int | float) and size > 0 else None,
        position_of=lambda n: _stage_position(pages.metadata(table[n])),
    )


def _fov_and_channel(metadata: Mapping[str, Any] | None) -> tuple[tuple[object, ...], str | None]:
    """Return the key of a page's field of view, and its channel or None."""
    if metadata is None:
        return (), None
    axes = metadata.get("Axes")
    axes = axes if isinstance(axes, dict) else {}
    channel = next((key for key in axes if key.lower() == "channel"), "")
    name = metadata.get("Channel")
    if not isinstance(name, str) or not name:
        name = axes.get(channel)
    indices: dict[str, object] = {key: str(value) for key, value in axes.items() if key != channel}
    if not axes:
        for keys in _INDEX_KEYS:
            indices[keys[0]] = next((str(metadata[key]) for key in keys if key in metadata), "")
    return tuple(sorted(indices.items())), None if name is None else str(name)


def _stage_position(metadata: Mapping[str, Any] | None) -> Position | None:
    values = metadata or {}
    x, y, z = (values.get(f"{axis}PositionUm", values.get(f"{axis}Position_um_Intended")) for axis in "XYZ")
    try:
        return None if x is None or y is None else Position(x=float(x), y=float(y), z=float(z or 0.0))
    except (TypeError, ValueError):
        return None


def micromanager_labels(pages: TiffPages, numbers: Sequence[int]) -> Labels | None:
    """Return the channels that Micro-Manager's metadata name for pages; None if they name none."""
    if not pages.directories.metadata[1]:
        return None
    names = [_fov_and_channel(pages.metadata(n))[1] or "" for n in numbers]
    return Labels("Micro-Manager's metadata", names) if any(names) else None
