"""The stage map: every FOV of a series at its position on the stage, updated with each result."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import isfinite
from uuid import UUID

from senoscope.results.delivery import DeliveryTimes, ResultSink
from senoscope.results.record import Record
from senoscope_client.models.result import Result

_MAX_SERIES = 32
MAX_FOVS = 50_000  # of all series together, half a kilobyte each


@dataclass(frozen=True, slots=True)
class Tile:
    """One FOV on the map."""

    id: UUID  # of its result
    frame: int | None
    x_um: float | None  # of its centre; None if the stream has no positions
    y_um: float | None
    width_um: float | None
    height_um: float | None
    probability: float
    entropy: float  # of the ensemble's mean, in bits: from 0 (certain) to 1
    label: str

    @property
    def place(self) -> tuple[float, float] | UUID:
        """The place on the map; one tile is kept for each."""
        return self.id if self.x_um is None or self.y_um is None else (self.x_um, self.y_um)

    @classmethod
    def of(cls, result: Result, height: int, width: int) -> Tile:
        """Return the tile of a result; height and width are those of the FOV in pixels."""
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
    complete: bool = False


class StageMaps(ResultSink):
    """The sink that keeps the maps of the most recent series."""

    def __init__(self) -> None:
        self._maps: OrderedDict[UUID, _Map] = OrderedDict()
        self._lock = threading.Lock()

    def on_result(self, record: Record, _: DeliveryTimes) -> None:
        """Add a FOV of the stream to the map of its series."""
        uid = record.result.source.series_uid
        if uid is not None:
            self.add_tile(uid, Tile.of(record.result, *record.prediction.shape))

    def add_tile(self, uid: UUID, tile: Tile) -> None:
        """Add a tile to a map; it replaces one at the same place."""
        with self._lock:
            known = self._maps.setdefault(uid, _Map())
            self._maps.move_to_end(uid)
            known.tiles.pop(tile.place, None)
            known.tiles[tile.place] = tile
            self._drop_excess(known)

    def fill(self, uid: UUID, earlier: Iterable[Tile]) -> None:
        """Complete a map with the tiles of an earlier process, oldest first."""
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
            self._drop_excess(known)

    def complete(self, uid: UUID) -> bool:
        """Return whether a map holds the tiles of earlier processes too."""
        with self._lock:
            known = self._maps.get(uid)
            return known is not None and known.complete

    def _drop_excess(self, known: _Map) -> None:
        while len(known.tiles) > MAX_FOVS:
            known.tiles.popitem(last=False)
        # Maps that are dropped are made again from the run log on request.
        while len(self._maps) > _MAX_SERIES or sum(len(one.tiles) for one in self._maps.values()) > MAX_FOVS:
            self._maps.popitem(last=False)

    def tiles(self, uid: UUID) -> list[Tile] | None:
        """Return the tiles of a series in the order of their results, or None if there is no map."""
        with self._lock:
            known = self._maps.get(uid)
            return None if known is None else list(known.tiles.values())
