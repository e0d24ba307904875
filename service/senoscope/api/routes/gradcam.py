"""``GET /v1/results/{id}/gradcam.png``: the Grad-CAM map of a result as a picture."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from senoscope.api.lookup import Found, find
from senoscope.api.openapi import BINARY, problems
from senoscope.engine.gradcam import network_map
from senoscope.results.pictures import Style, intensity_png, map_png, overlay_png, scale_channel
from senoscope_client.errors import InvalidRequest, LogUnavailable, NotFound
from senoscope_client.models.base import StrictModel

router = APIRouter()


class GradcamParameters(StrictModel):
    """Query parameters of the picture."""

    network: str | None = Field(None, description="Draw this network's map instead of the ensemble's.")
    channel: str | None = Field(None, description="The channel to draw; the first by default.")
    style: Style = Field(
        "map", description="The map alone, over a channel, or weighted with the channel's intensity."
    )


@router.get(
    "/v1/results/{identifier}/gradcam.png",
    response_class=Response,
    responses=problems(LogUnavailable, NotFound) | {200: {"content": {"image/png": BINARY}}},
)
async def gradcam_png(
    request: Request, identifier: UUID, parameters: Annotated[GradcamParameters, Query()]
) -> Response:
    """Draw the Grad-CAM map: alone, over a channel, or weighted with a channel's intensity.

    ``network`` selects that network's map instead of the ensemble's; ``channel`` defaults to the first. A
    channel can be drawn only while the pixels of the result are in memory.
    """
    png = await run_in_threadpool(_draw, await find(request, identifier), parameters)
    # A result never changes, and neither does its picture.
    return Response(
        png, media_type="image/png", headers={"Cache-Control": "private, max-age=86400, immutable"}
    )


def _draw(found: Found, parameters: GradcamParameters) -> bytes:
    maps, channels = found.maps, found.channels
    if parameters.network is None:
        gradcam = maps.map()
    elif parameters.network in maps.networks:
        k = maps.networks.index(parameters.network)
        gradcam = network_map(maps.gradcams[k], *maps.shape)
    else:
        raise InvalidRequest(
            f"network {parameters.network!r} is not in the ensemble: {', '.join(maps.networks)}"
        )
    name = parameters.channel or channels[0]
    if name not in channels:
        raise InvalidRequest(f"channel {name!r} is not one of {', '.join(channels)}")
    if parameters.style == "map":
        return map_png(gradcam)
    if found.pixels is None:
        raise NotFound(
            f"style={parameters.style} needs the pixels of {found.result.id}, which are no longer in memory "
            "(--remember-mib limits how many are kept); style=map is drawn from the run log"
        )
    c = channels.index(name)
    bounds = found.result.normalization
    channel = scale_channel(found.pixels[c], bounds.low[c], bounds.high[c])
    draw = overlay_png if parameters.style == "overlay" else intensity_png
    return draw(gradcam, channel)
