"""``/v1/model`` and ``/v1/models``: what is in use, what there is, and changing to it."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from senoscope.api.middleware.body_limit import json_of
from senoscope.api.openapi import json_body, problems
from senoscope.service import Service
from senoscope_client.errors import (
    Conflict,
    ModelRejected,
    NotReady,
    PayloadTooLarge,
    RequestTimeout,
    UnsupportedMediaType,
)

router = APIRouter(responses=problems())
_LIST_WITHIN_S = 5.0


class ModelChange(BaseModel):
    """Body of ``POST /v1/model``."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=255)


@router.get("/v1/model")
async def model(request: Request) -> dict[str, Any]:
    """The ensemble in use, its manifest and the device that it runs on."""
    service: Service = request.app.state.service
    service.require_ready()
    return service.describe_model(service.loaded)


@router.post(
    "/v1/model",
    responses=problems(Conflict, ModelRejected, PayloadTooLarge, RequestTimeout, UnsupportedMediaType),
    openapi_extra=json_body(ModelChange),
)
async def change_model(request: Request) -> dict[str, Any]:
    """Load another ensemble of the models folder; it takes over between two frames.

    It is verified and warmed up beside the one in use. If anything is wrong with it, the one in use
    stays, and the answer tells why. A restart comes back to the ensemble of the settings.
    """
    service: Service = request.app.state.service
    service.require_ready()
    wanted = await json_of(request, ModelChange)
    changed = await run_in_threadpool(service.models.change, wanted.name)
    return service.describe_model(changed)


@router.get("/v1/models")
async def models(request: Request) -> dict[str, Any]:
    """The ensembles of the models folder, with their versions; as they were up to a second ago."""
    service: Service = request.app.state.service
    service.require_ready()
    listing = asyncio.wrap_future(service.ensembles.ask())
    await asyncio.wait([listing], timeout=_LIST_WITHIN_S)
    if not listing.done():
        raise NotReady(
            f"the models folder could not be read within {_LIST_WITHIN_S:g} s; does its disk answer?"
        )
    return {"in_use": service.loaded.ensemble.digest, "ensembles": listing.result()}
