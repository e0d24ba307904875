"""``/v1/normalization``: the intensity range in force, and its calibration."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from senoscope.api.dependencies import Ready
from senoscope.api.openapi import STACK_ERRORS, problems, request_body
from senoscope.api.uploads import IMAGE_CONTENT, ImageParameters, posted_stack
from senoscope_client.errors import Conflict
from senoscope_client.models.status import NormalizationStatus

router = APIRouter(responses=problems())


class CalibrationParameters(ImageParameters):
    """Query parameters of ``POST /v1/normalization/calibrate``."""

    # At most half a GiB of pixels at the size of the paper's FOVs.
    fovs: int | None = Field(
        None, ge=1, le=500, description="Without a body: number of frames of the stream to calibrate from."
    )


@router.get("/v1/normalization", response_model_exclude_unset=True)
async def normalization(service: Ready) -> NormalizationStatus:
    """Return the intensity range in force, its source, and the progress of a calibration."""
    return service.range.status(service.active)


@router.post(
    "/v1/normalization/calibrate",
    response_model_exclude_unset=True,
    responses=problems(*STACK_ERRORS, Conflict) | {202: {"description": "Begun"}},
    openapi_extra=request_body(IMAGE_CONTENT, required=False),
)
async def calibrate(
    request: Request,
    response: Response,
    service: Ready,
    parameters: Annotated[CalibrationParameters, Query()],
) -> NormalizationStatus:
    """Calibrate for this session: from the next ``fovs`` frames of the stream, or from a posted stack.

    With a body, the answer is sent when the new range is in force; without one it is sent at once (202), and
    ``GET /v1/normalization`` reports the progress.
    """
    if parameters.fovs is not None:
        if request.headers.get("content-length", "0") != "0":
            raise Conflict("give either ?fovs=, to calibrate from the stream, or a stack as the body")
        if not service.settings.stream:
            raise Conflict("this service has no stream (--stream); post a stack instead")
        service.range.begin(parameters.fovs)
        response.status_code = 202
    else:
        with service.request_memory.share() as share:
            stack = await posted_stack(request, parameters, share)
            await run_in_threadpool(service.calibrate, stack.fovs.pixels, stack.active)
        return service.range.status(service.active).model_copy(update={"warnings": stack.fovs.warnings})
    return service.range.status(service.active)


@router.delete("/v1/normalization", response_model_exclude_unset=True)
async def back_to_model(service: Ready) -> NormalizationStatus:
    """Discard the session's range; the model's range is in force again."""
    await run_in_threadpool(service.range.clear)
    return service.range.status(service.active)
