"""The stage map: every FOV of a series at its place on the stage, as results come."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Literal
from uuid import UUID

import cv2
import numpy as np
import numpy.typing as npt

from senoscope.results.record import Record
from senoscope_client.models.result import Result

Layer = Literal["probability", "uncertainty"]

_MAX_SERIES = 32
MAX_FOVS = 50_000  # of all series, half a kilobyte each
_MARGIN_PX = 12
_BAR_PX = 46
_BACKGROUND = (32, 32, 32)
_INK = (225, 225, 225)
# Where a stream tells of no pixel size or the stage of no place, tiles are laid out in a row of their own.
_UNPLACED = 1.0
# A metre, and a picometre.
_LARGEST_UM = 1e6
_SMALLEST_UM = 1e-6


@dataclass(frozen=True, slots=True)
class Tile:
    """One FOV on the map.

    Attributes
    ----------
    id : UUID
        Of its result.
    frame : int or None
    x_um, y_um : float or None
        Of its centre; None where the stream told of no position.
    width_um, height_um : float or None
    probability : float
    entropy : float
        Of the ensemble's mean, in bits: 0 is certain, 1 is a coin.
    label : str
    """

    id: UUID
    frame: int | None
    x_um: float | None
    y_um: float | None
    width_um: float | None
    height_um: float | None
    probability: float
    entropy: float
    label: str

    @property
    def place(self) -> tuple[float, float] | UUID:
        """Where on the map it lies: one tile at each place."""
        return self.id if self.x_um is None or self.y_um is None else (self.x_um, self.y_um)

    @classmethod
    def of(cls, result: Result, height: int, width: int) -> Tile:
        """The tile of a result of FOVs of so many rows and columns."""
        source = result.source
        place, pixel_um = source.position_um, source.pixel_size_um
        return cls(
            id=result.id,
            frame=source.frame,
            x_um=place.x if place else None,
            y_um=place.y if place else None,
            width_um=_size(width, pixel_um),
            height_um=_size(height, pixel_um),
            probability=result.probability,
            entropy=result.uncertainty.entropy,
            label=result.label,
        )


def _size(pixels: int, pixel_um: float | None) -> float | None:
    size_um = pixels * pixel_um if pixel_um else None
    return size_um if size_um is not None and isfinite(size_um) else None


@dataclass
class _Map:
    tiles: OrderedDict[tuple[float, float] | UUID, Tile] = field(default_factory=OrderedDict)
    version: int = 0
    complete: bool = False
    pictures: dict[Layer, tuple[int, bytes]] = field(default_factory=dict)


class StageMaps:
    """The sink that keeps the maps of the most recent series."""

    def __init__(self) -> None:
        self._maps: OrderedDict[UUID, _Map] = OrderedDict()
        self._lock = threading.Lock()

    def tell(self, record: Record) -> None:
        """Put a FOV of the stream on its series' map; a place that is scanned again shows the newest."""
        uid = record.result.source.series_uid
        if uid is not None:
            self.put(uid, Tile.of(record.result, *record.prediction.shape))

    def put(self, uid: UUID, tile: Tile) -> None:
        """Put a tile on a map."""
        with self._lock:
            known = self._maps.setdefault(uid, _Map())
            self._maps.move_to_end(uid)
            known.tiles.pop(tile.place, None)
            known.tiles[tile.place] = tile
            self._changed(known)

    def fill(self, uid: UUID, earlier: Iterable[Tile]) -> None:
        """Complete a map with what an earlier process saw; oldest first."""
        before = OrderedDict((tile.place, tile) for tile in earlier)
        with self._lock:
            known = self._maps.get(uid)
            if known is None:
                if not before:
                    return
                known = self._maps[uid] = _Map()
            self._maps.move_to_end(uid)
            known.tiles = before | known.tiles
            known.complete = True
            self._changed(known)

    def complete(self, uid: UUID) -> bool:
        """Whether a map holds what was seen before this process started too."""
        with self._lock:
            known = self._maps.get(uid)
            return known is not None and known.complete

    def _changed(self, known: _Map) -> None:
        known.version += 1
        while len(known.tiles) > MAX_FOVS:
            known.tiles.popitem(last=False)
        # Maps that are let go are made again from the run log for whoever asks for them.
        while len(self._maps) > _MAX_SERIES or sum(len(one.tiles) for one in self._maps.values()) > MAX_FOVS:
            self._maps.popitem(last=False)

    def close(self) -> None:
        """Nothing to let go of."""

    def tiles(self, uid: UUID) -> list[Tile] | None:
        """All tiles of a series, in the order of their results; None if none is remembered."""
        with self._lock:
            known = self._maps.get(uid)
            return None if known is None else list(known.tiles.values())

    def png(self, uid: UUID, layer: Layer) -> bytes | None:
        """The map as a picture; drawn anew only after it changed."""
        with self._lock:
            known = self._maps.get(uid)
            if known is None:
                return None
            version, tiles = known.version, list(known.tiles.values())
            drawn = known.pictures.get(layer)
        if drawn is not None and drawn[0] == version:
            return drawn[1]
        png = draw_map(tiles, layer)
        with self._lock:
            known.pictures[layer] = version, png
        return png


def describe(tiles: list[Tile]) -> list[dict[str, Any]]:
    """The tiles for JSON."""
    return [
        {
            "id": str(tile.id),
            "frame": tile.frame,
            "position_um": None if tile.x_um is None else {"x": tile.x_um, "y": tile.y_um},
            "size_um": None if tile.width_um is None else {"x": tile.width_um, "y": tile.height_um},
            "probability": tile.probability,
            "entropy": tile.entropy,
            "label": tile.label,
        }
        for tile in tiles
    ]


def draw_map(tiles: list[Tile], layer: Layer, longest_px: int = 960) -> bytes:
    """A map as PNG: FOVs at their places, coloured by a value in 0..1, with a colour bar.

    Parameters
    ----------
    layer : {"probability", "uncertainty"}
        Uncertainty is the entropy of the ensemble's mean.
    longest_px : int
        Longer side of the map in pixels.
    """
    placed = _place(tiles)
    x0, y0 = placed[:, 0].min(), placed[:, 1].min()
    x1, y1 = (placed[:, 0] + placed[:, 2]).max(), (placed[:, 1] + placed[:, 3]).max()
    scale = (longest_px - 2 * _MARGIN_PX) / max(x1 - x0, y1 - y0, _SMALLEST_UM)
    width = max(round((x1 - x0) * scale) + 2 * _MARGIN_PX, 220)
    height = round((y1 - y0) * scale) + 2 * _MARGIN_PX
    canvas = np.full((height + _BAR_PX, width, 3), _BACKGROUND, np.uint8)
    colours = _colours(
        np.array([tile.probability if layer == "probability" else tile.entropy for tile in tiles]), layer
    )
    for (x, y, w, h), colour in zip(placed, colours, strict=True):
        left, top = round((x - x0) * scale) + _MARGIN_PX, round((y - y0) * scale) + _MARGIN_PX
        right = max(left, round((x - x0 + w) * scale) + _MARGIN_PX - 2)
        bottom = max(top, round((y - y0 + h) * scale) + _MARGIN_PX - 2)
        cv2.rectangle(canvas, (left, top), (right, bottom), tuple(int(c) for c in colour), cv2.FILLED)
    _draw_bar(canvas, height, layer)
    done, buffer = cv2.imencode(".png", canvas)
    if not done:
        raise RuntimeError("OpenCV could not encode the picture")
    return buffer.tobytes()


def _place(tiles: list[Tile]) -> npt.NDArray[np.float64]:
    """Left, top, width and height of each tile, in micrometres where they are known."""
    centres = np.array(
        [(t.x_um, t.y_um) if t.x_um is not None and t.y_um is not None else (np.nan, np.nan) for t in tiles],
        np.float64,
    )
    sizes = np.array([(t.width_um or np.nan, t.height_um or np.nan) for t in tiles], np.float64)
    # What no stage reaches and no objective has is as good as unknown: to scale, it would hide the rest.
    centres[(np.abs(centres) > _LARGEST_UM).any(axis=1)] = np.nan
    sizes[((sizes > _LARGEST_UM) | (sizes < _SMALLEST_UM)).any(axis=1)] = np.nan
    known = np.isfinite(centres[:, 0])
    # Tiles of unknown size are as large as their distance lets them be.
    unknown_size = np.isnan(sizes[:, 0])
    sizes[unknown_size] = _pitch(centres[known])
    if not known.all():
        columns = max(1, int(np.ceil(np.sqrt((~known).sum()))))
        step = np.nanmax(sizes, axis=0)
        below = centres[known, 1].max() + 1.5 * step[1] if known.any() else 0.0
        left = centres[known, 0].min() if known.any() else 0.0
        for n, k in enumerate(np.flatnonzero(~known)):
            centres[k] = left + (n % columns) * step[0], below + (n // columns) * step[1]
    return np.concatenate([centres - sizes / 2, sizes], axis=1)


def _pitch(centres: npt.NDArray[np.float64]) -> tuple[float, float]:
    pitches = []
    for axis in (0, 1):
        steps = np.diff(np.unique(centres[:, axis]))
        pitches.append(float(steps.min()) if len(steps) else _UNPLACED)
    if len(centres) > 1:
        longest = max(pitches)
        return tuple(p if p != _UNPLACED else longest for p in pitches)  # type: ignore[return-value]
    return _UNPLACED, _UNPLACED


def _colours(values: npt.NDArray[np.float64], layer: Layer) -> npt.NDArray[np.uint8]:
    """BGR colours that colour-blind people can order: viridis for probability, grey for uncertainty."""
    levels = (np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8)[:, None]
    colour_map = cv2.COLORMAP_VIRIDIS if layer == "probability" else cv2.COLORMAP_BONE
    return np.asarray(cv2.applyColorMap(levels, colour_map), np.uint8)[:, 0]


def _draw_bar(canvas: npt.NDArray[np.uint8], top: int, layer: Layer) -> None:
    words = "probability" if layer == "probability" else "uncertainty (entropy, bits)"
    left, right = _MARGIN_PX, canvas.shape[1] - _MARGIN_PX
    ramp = _colours(np.linspace(0, 1, right - left), layer)
    canvas[top + 4 : top + 16, left:right] = ramp[None]
    for text, x in (("0", left), (words, left + 24), ("1", right - 9)):
        cv2.putText(canvas, text, (x, top + 33), cv2.FONT_HERSHEY_SIMPLEX, 0.42, _INK, 1, cv2.LINE_AA)
