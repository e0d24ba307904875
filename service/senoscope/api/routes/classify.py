"""``POST /v1/classify``: classify a posted stack."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.routing import APIRoute
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from senoscope.api.accept import wants_csv
from senoscope.api.dependencies import Ready, service_of
from senoscope.api.openapi import BINARY, STACK_ERRORS, TEXT_CSV, problems, request_body
from senoscope.api.uploads import IMAGE_CONTENT, ImageParameters, classify_stack, posted_stack
from senoscope.results.record import Record
from senoscope_client.models.responses import ClassifyResponse
from senoscope_client.models.result import CamMode
from senoscope_client.tables import results_csv


class _DirectRoute(APIRoute):
    """A route that FastAPI's resolution of parameters is left out of where a request has none."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the function that answers a request."""
        with_parameters = super().get_route_handler()

        async def answer(request: Request) -> Response:
            if request.scope["query_string"]:
                return await with_parameters(request)
            service = service_of(request)
            service.require_ready()
            return await classify(request, service, _NO_PARAMETERS)

        return answer


router = APIRouter(route_class=_DirectRoute)
_FORM = {"type": "object", "required": ["file"], "properties": {"file": BINARY["schema"]}}


class ClassifyParameters(ImageParameters):
    """Query parameters of ``POST /v1/classify``."""

    cam: CamMode = Field("none", description="Form of the Grad-CAM maps in the results.")


_NO_PARAMETERS = ClassifyParameters()


@router.post(
    "/v1/classify",
    response_model=ClassifyResponse,
    summary="Classify the fields of view of a TIFF stack or NPY array",
    responses=problems(*STACK_ERRORS) | {200: {"content": TEXT_CSV}},
    openapi_extra=request_body(IMAGE_CONTENT | {"multipart/form-data": {"schema": _FORM}}),
)
async def classify(
    request: Request, service: Ready, parameters: Annotated[ClassifyParameters, Query()]
) -> Response:
    """Classify a posted stack; the answer is sent when all of it is done."""
    service.scheduler.require_room()  # before a body is read that could not be queued
    with service.request_memory.share() as share:
        stack = await posted_stack(request, parameters, share)
        records = await classify_stack(request, stack.fovs.pixels, stack.active.spec, stack.name)
        csv = wants_csv(request.headers.get("accept", ""))
        quick = len(records) == 1 and parameters.cam != "png" and not csv
        answer = partial(_answer, csv, records, stack.fovs.warnings, parameters.cam)
        return answer() if quick else await run_in_threadpool(answer)


def _answer(csv: bool, records: list[Record], warnings: tuple[str, ...], cam: CamMode) -> Response:
    if csv:
        text = results_csv([record.result for record in records])
        return Response(text, media_type="text/csv; charset=utf-8", headers=_warning_headers(warnings))
    # A `ClassifyResponse` that is composed of results which were encoded for the log and the sinks:
    # encoding hundreds of them again would delay the live stream.
    results = b",".join(record.json(cam) for record in records)
    rest = f'],"warnings":{json.dumps(warnings)},"count":{len(records)}}}'
    return Response(b'{"results":[' + results + rest.encode(), media_type="application/json")


def _warning_headers(warnings: tuple[str, ...]) -> dict[str, str]:
    text = "".join(letter if " " <= letter <= "~" else "?" for letter in "; ".join(warnings))
    return {"Senoscope-Warnings": text} if text else {}
