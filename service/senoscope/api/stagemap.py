"""``/v1/series/{uid}/map``: the FOVs of a series at their places on the stage."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict
from starlette.concurrency import run_in_threadpool

from senoscope.service import Service
from senoscope.stagemap import Layer, describe
from senoscope_client.errors import NotFound

router = APIRouter()


class MapParameters(BaseModel):
    """Query parameters of the picture."""

    model_config = ConfigDict(extra="forbid")

    layer: Layer = "probability"


@router.get("/v1/series/{uid}/map.json")
async def map_json(request: Request, uid: UUID) -> dict[str, Any]:
    """Position, size, probability and uncertainty of every FOV, in micrometres where the stream tells."""
    service: Service = request.app.state.service
    tiles = service.maps.tiles(uid)
    if tiles is None:
        raise _unknown(uid)
    return {"series_uid": str(uid), "fovs": await run_in_threadpool(describe, tiles)}


@router.get("/v1/series/{uid}/map.png", response_class=Response)
async def map_png(request: Request, uid: UUID, parameters: Annotated[MapParameters, Query()]) -> Response:
    """The same as a picture, coloured by probability, or by uncertainty with ``?layer=uncertainty``."""
    service: Service = request.app.state.service
    png = await run_in_threadpool(service.maps.png, uid, parameters.layer)
    if png is None:
        raise _unknown(uid)
    return Response(png, media_type="image/png", headers={"Cache-Control": "no-cache"})


def _unknown(uid: UUID) -> NotFound:
    return NotFound(f"no field of view of series {uid} is known here")
