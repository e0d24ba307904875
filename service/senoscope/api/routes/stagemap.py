"""``GET /v1/series/{uid}/map.json``: the FOVs of a series at their positions on the stage."""

from __future__ import annotations

from itertools import islice
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request

from senoscope.api.dependencies import Current
from senoscope.api.openapi import problems
from senoscope.api.reading import read
from senoscope.outputs.stage_map import MAX_FOVS, StageMaps, Tile
from senoscope.runlog.entries import ResultFilter
from senoscope.runlog.store import RunLog
from senoscope_client.errors import LogUnavailable, NotFound

router = APIRouter(responses=problems(LogUnavailable, NotFound))


@router.get("/v1/series/{uid}/map.json")
async def map_json(request: Request, service: Current, uid: UUID) -> dict[str, Any]:
    """Return position, size, probability and uncertainty of every FOV.

    Positions and sizes are in micrometres, if the stream has them.
    """

    def answer() -> dict[str, Any]:
        if service.log is not None and not service.maps.complete(uid):
            try:
                _complete(service.maps, service.log.readable(), uid)
            except LogUnavailable:
                if service.maps.tiles(uid) is None:
                    raise
        tiles = service.maps.tiles(uid)
        if tiles is None:
            raise NotFound(f"no fields of view of series {uid} are known")
        return {"series_uid": str(uid), "fovs": [_fov(tile) for tile in tiles]}

    return await read(request, answer)


def _fov(tile: Tile) -> dict[str, Any]:
    return {
        "id": str(tile.id),
        "frame": tile.frame,
        "position_um": None if tile.x_um is None else {"x": tile.x_um, "y": tile.y_um},
        "size_um": None if tile.width_um is None else {"x": tile.width_um, "y": tile.height_um},
        "probability": tile.probability,
        "entropy": tile.entropy,
        "label": tile.label,
    }


def _complete(maps: StageMaps, log: RunLog, uid: UUID) -> None:
    shapes: dict[str, tuple[int, int] | None] = {}  # by ensemble, which may have changed during the series
    tiles = []
    # Newest first, as many as a map holds.
    for result in islice(log.iterate(ResultFilter(series=uid)), MAX_FOVS):
        digest = result.model.digest
        if digest not in shapes:
            found = log.result(result.id)
            shapes[digest] = None if found is None else found[1].shape
        shape = shapes[digest]
        if shape is not None:
            tiles.append(Tile.of(result, *shape))
    if tiles:
        maps.fill(uid, sorted(tiles, key=lambda tile: tile.id))  # by time: ids are UUIDv7
