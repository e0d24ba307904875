"""``GET /v1/results/{id}/pixels.npy``: the raw counts that a result was made from."""

from __future__ import annotations

import io
from uuid import UUID

import numpy as np
from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from senoscope.api.lookup import find
from senoscope.api.openapi import APPLICATION_NPY, problems
from senoscope_client.errors import LogUnavailable, NotFound

router = APIRouter()


@router.get(
    "/v1/results/{identifier}/pixels.npy",
    response_class=Response,
    responses=problems(LogUnavailable, NotFound) | {200: {"content": APPLICATION_NPY}},
)
async def pixels_npy(request: Request, identifier: UUID) -> Response:
    """The field of view itself, as an NPY array [C, H, W] of raw detector counts.

    It is there only while its pixels are remembered; the run log never holds any.
    """
    found = await find(request, identifier)

    def encode() -> bytes:
        if found.pixels is None:
            raise NotFound(
                f"the pixels of {identifier} are no longer remembered (--remember-mib sets how many are)"
            )
        file = io.BytesIO()
        np.save(file, found.pixels, allow_pickle=False)
        return file.getvalue()

    # What was seen never changes.
    return Response(
        await run_in_threadpool(encode),
        media_type="application/x-npy",
        headers={"Cache-Control": "private, max-age=86400, immutable"},
    )
