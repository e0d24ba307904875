"""``GET /v1/results/{id}/pixels.npy``: the raw pixels that a result was computed from."""

from __future__ import annotations

import io
from uuid import UUID

import numpy as np
from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from senoscope.api.lookup import find
from senoscope.api.openapi import BINARY, problems
from senoscope_client.errors import LogUnavailable, NotFound

router = APIRouter()


@router.get(
    "/v1/results/{identifier}/pixels.npy",
    response_class=Response,
    responses=problems(LogUnavailable, NotFound) | {200: {"content": {"application/x-npy": BINARY}}},
)
async def pixels_npy(request: Request, identifier: UUID) -> Response:
    """Return the field of view as an NPY array [C, H, W] of raw detector units.

    It is available only while its pixels are in memory; the run log holds no pixels.
    """
    found = await find(request, identifier)

    def encode() -> bytes:
        if found.pixels is None:
            raise NotFound(
                f"the pixels of {identifier} are no longer in memory (--remember-mib limits how many are "
                "kept)"
            )
        file = io.BytesIO()
        np.save(file, found.pixels, allow_pickle=False)
        return file.getvalue()

    # The pixels of a result never change.
    return Response(
        await run_in_threadpool(encode),
        media_type="application/x-npy",
        headers={"Cache-Control": "private, max-age=86400, immutable"},
    )
