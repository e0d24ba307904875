"""``/v1/normalization``: the intensity range in force, and its calibration."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from senoscope.api.openapi import STACK_ERRORS, problems
from senoscope.api.uploads import IMAGE_CONTENT, ImageParameters, posted_stack
from senoscope.service import Service
from senoscope_client.errors import Conflict

router = APIRouter(responses=problems())


class CalibrationParameters(ImageParameters):
    """Query parameters of ``POST /v1/normalization/calibrate``."""

    # Half a GiB of pixels wait for the fit at most, at the size of the paper's FOVs.
    fovs: int | None = Field(
        None, ge=1, le=500, description="Without a body: frames of the stream to fit to."
    )


@router.get("/v1/normalization")
async def normalization(request: Request) -> dict[str, Any]:
    """The range in force, where it comes from, and how far a calibration is."""
    service: Service = request.app.state.service
    service.require_ready()
    return service.range.describe(service.loaded)


@router.post(
    "/v1/normalization/calibrate",
    responses=problems(*STACK_ERRORS, Conflict) | {202: {"description": "Begun"}},
    openapi_extra={"requestBody": {"required": False, "content": IMAGE_CONTENT}},
)
async def calibrate(
    request: Request, response: Response, parameters: Annotated[CalibrationParameters, Query()]
) -> dict[str, Any]:
    """Calibrate for this session: from the next ``fovs`` frames of the stream, or from a posted stack.

    With a body the answer comes when the new range is in force; without one it comes at once (202), and
    ``GET /v1/normalization`` tells how far it is.
    """
    service: Service = request.app.state.service
    service.require_ready()
    if parameters.fovs is not None:
        if request.headers.get("content-length", "0") != "0":
            raise Conflict("give either ?fovs=, to calibrate from the stream, or a stack as the body")
        if not service.settings.stream:
            raise Conflict("this service follows no stream (--stream); post a stack instead")
        service.range.begin(parameters.fovs)
        response.status_code = 202
    else:
        with service.request_memory.share() as share:
            stack = await posted_stack(request, parameters, share)
            await run_in_threadpool(service.calibrate, stack.pixels, stack.loaded)
        return {**service.range.describe(service.loaded), "warnings": list(stack.warnings)}
    return service.range.describe(service.loaded)


@router.delete("/v1/normalization")
async def back_to_model(request: Request) -> dict[str, Any]:
    """Forget the session's range: the model's own is in force again."""
    service: Service = request.app.state.service
    service.require_ready()
    await run_in_threadpool(service.range.clear)
    return service.range.describe(service.loaded)
