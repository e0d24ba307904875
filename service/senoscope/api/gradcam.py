"""``GET /v1/results/{id}/gradcam.png``: the map of a recent result as a picture."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict
from starlette.concurrency import run_in_threadpool

from senoscope.engine.gradcam import network_map
from senoscope.records import Record
from senoscope.render import Style, intensity_png, map_png, overlay_png, scale_channel
from senoscope.service import Service
from senoscope_client.errors import InvalidRequest

router = APIRouter()


class GradcamParameters(BaseModel):
    """Query parameters of the picture."""

    model_config = ConfigDict(extra="forbid")

    network: str | None = None
    channel: str | None = None
    style: Style = "map"


@router.get("/v1/results/{identifier}/gradcam.png", response_class=Response)
async def gradcam_png(
    request: Request, identifier: UUID, parameters: Annotated[GradcamParameters, Query()]
) -> Response:
    """The Grad-CAM map: alone, over a channel, or weighted with a channel's intensity.

    ``network`` shows that network's map instead of the ensemble's; ``channel`` defaults to the first.
    """
    service: Service = request.app.state.service
    service.require_ready()
    record = service.recent.get(identifier)
    png = await run_in_threadpool(_draw, record, parameters, service.loaded.spec.channels)
    # A result never changes, so its picture never does.
    return Response(
        png, media_type="image/png", headers={"Cache-Control": "private, max-age=86400, immutable"}
    )


def _draw(record: Record, parameters: GradcamParameters, channels: tuple[str, ...]) -> bytes:
    prediction = record.prediction
    if parameters.network is None:
        gradcam = prediction.map()
    elif parameters.network in prediction.networks:
        k = prediction.networks.index(parameters.network)
        gradcam = network_map(prediction.gradcams[k], *prediction.shape)
    else:
        raise InvalidRequest(
            f"network {parameters.network!r} is not in the ensemble: {', '.join(prediction.networks)}"
        )
    name = parameters.channel or channels[0]
    if name not in channels:
        raise InvalidRequest(f"channel {name!r} is not one of {', '.join(channels)}")
    if parameters.style == "map":
        return map_png(gradcam)
    c = channels.index(name)
    bounds = record.result.normalization
    channel = scale_channel(record.fov.pixels[c], bounds.low[c], bounds.high[c])
    draw = overlay_png if parameters.style == "overlay" else intensity_png
    return draw(gradcam, channel)
