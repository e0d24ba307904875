"""``/v1/model`` and ``/v1/models``: the ensemble in use, those of the models folder, and changes."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from senoscope.api.dependencies import Ready
from senoscope.api.middleware.body_limit import read_json_body
from senoscope.api.openapi import problems, request_body
from senoscope.engine.precision import PrecisionChoice
from senoscope_client.errors import (
    Conflict,
    ModelRejected,
    NotReady,
    PayloadTooLarge,
    RequestTimeout,
    UnsupportedMediaType,
)
from senoscope_client.models.base import StrictModel
from senoscope_client.models.status import ModelInfo

router = APIRouter(responses=problems())
_LIST_TIMEOUT_S = 5.0


class ModelChange(StrictModel):
    """Body of ``POST /v1/model``."""

    name: str = Field(min_length=1, max_length=255, description="Folder of the ensemble.")
    precision: PrecisionChoice | None = Field(
        None, description="Precision to load it in; default: that of the settings (--precision)."
    )


@router.get("/v1/model")
async def model(service: Ready) -> ModelInfo:
    """Return the ensemble in use, its manifest and the device that it runs on."""
    return service.model_info(service.active)


@router.post(
    "/v1/model",
    responses=problems(Conflict, ModelRejected, PayloadTooLarge, RequestTimeout, UnsupportedMediaType),
    openapi_extra=request_body({"application/json": {"schema": ModelChange.model_json_schema()}}),
)
async def change_model(request: Request, service: Ready) -> ModelInfo:
    """Load another ensemble of the models folder, or the same one in another precision.

    It takes over between two frames.

    The new ensemble is verified and warmed up while the current one stays in use. If the new one is faulty,
    the current one remains in use, and the answer has the reason. A precision that does not pass the gate on
    this machine is replaced by fp32; ``engine`` of the answer states it. A restart of the service returns to
    the ensemble and the precision of the settings.
    """
    change = await read_json_body(request, ModelChange)
    changed = await run_in_threadpool(service.models.change, change.name, change.precision)
    return service.model_info(changed)


@router.get("/v1/models")
async def models(service: Ready) -> dict[str, Any]:
    """List the ensembles of the models folder, with their versions; the list may be a second old."""
    listing = asyncio.wrap_future(service.ensembles.request())
    await asyncio.wait([listing], timeout=_LIST_TIMEOUT_S)
    if not listing.done():
        raise NotReady(f"the models folder could not be read within {_LIST_TIMEOUT_S:g} s: check its disk")
    return {"in_use": service.active.ensemble.digest, "ensembles": listing.result()}
