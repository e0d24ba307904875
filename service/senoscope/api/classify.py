"""``POST /v1/classify``: a stack in, its results out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict
from starlette.concurrency import run_in_threadpool

from senoscope.api.accept import wants_csv
from senoscope.api.body import upload_of
from senoscope.api.stacks import classify_stack
from senoscope.records import Record
from senoscope.service import Service
from senoscope_client.images import read_fovs
from senoscope_client.responses import ClassifyResponse
from senoscope_client.result import CamMode
from senoscope_client.tables import results_csv

router = APIRouter()


class ClassifyParameters(BaseModel):
    """Query parameters of ``POST /v1/classify``."""

    model_config = ConfigDict(extra="forbid")

    cam: CamMode = "none"
    axes: str | None = None
    channels: str | None = None


@router.post(
    "/v1/classify",
    response_model=ClassifyResponse,
    summary="Classify the fields of view of a TIFF stack or NPY array",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                kind: {"schema": {"type": "string", "format": "binary"}}
                for kind in ("image/tiff", "application/x-npy", "application/octet-stream")
            }
            | {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["file"],
                        "properties": {"file": {"type": "string", "format": "binary"}},
                    }
                }
            },
        }
    },
)
async def classify(request: Request, parameters: Annotated[ClassifyParameters, Query()]) -> Response:
    """Classify a posted stack; the answer comes when all of it is done."""
    service: Service = request.app.state.service
    service.require_ready()
    service.require_room()  # before a body is read that could not be queued
    async with upload_of(request) as upload:
        stack = await run_in_threadpool(
            read_fovs,
            upload.file,
            service.loaded.spec,
            media_type=upload.media_type,
            axes=parameters.axes,
            channels=parameters.channels.split(",") if parameters.channels else None,
            limits=service.settings.image_limits,
            name=upload.name or "the body",
        )
    records = await classify_stack(request, stack.pixels, upload.name)
    return await run_in_threadpool(_answer, request, records, stack.warnings, parameters.cam)


def _answer(request: Request, records: list[Record], warnings: tuple[str, ...], cam: CamMode) -> Response:
    if wants_csv(request.headers.get("accept", "")):
        text = results_csv([record.result for record in records])
        return Response(text, media_type="text/csv; charset=utf-8", headers=_warning_headers(warnings))
    answer = ClassifyResponse(
        count=len(records),
        results=tuple(record.result_with(cam) for record in records),
        warnings=warnings,
    )
    return Response(answer.model_dump_json(exclude_none=True), media_type="application/json")


def _warning_headers(warnings: tuple[str, ...]) -> dict[str, str]:
    text = "; ".join(warnings).encode("ascii", "replace").decode()
    return {"Senoscope-Warnings": text} if text else {}
