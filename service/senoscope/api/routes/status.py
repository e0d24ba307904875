"""How the stream is, and whether the service lives and is ready."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from senoscope.api.openapi import JSON_OBJECT, problems
from senoscope.service import Service

router = APIRouter(responses=problems())


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


@router.head("/livez", include_in_schema=False)
@router.get("/livez")
async def livez() -> dict[str, str]:
    """Whether the process answers at all."""
    return {"status": "alive"}


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", responses={503: {"description": "Not ready", "content": JSON_OBJECT}})
async def readyz(request: Request) -> JSONResponse:
    """200 after warm-up and test vectors, while FOVs can be classified; otherwise 503 with the reason.

    ``degraded`` is ready too: FOVs are classified, but something around that fails, and ``problems`` tells
    what, such as a run log whose disk is full.
    """
    service = _service(request)
    problem = service.problem()
    if problem is not None:
        return JSONResponse({"status": "not_ready", "reason": problem}, 503)
    problems = service.impairments()
    if problems:
        return JSONResponse({"status": "degraded", "problems": problems})
    return JSONResponse({"status": "ready"})


@router.get("/v1/stream")
async def stream(request: Request) -> dict[str, Any]:
    """The receiver's state and counters, the series it has seen, and the lanes behind it."""
    service = _service(request)
    service.require_ready()
    hub = request.app.state.hub
    return {
        **service.describe_stream(),
        "live_clients": {"connected": hub.clients, "lost": hub.lost, "refused": hub.refused},
        "requests_refused": dict(request.app.state.refusals.counts),
    }
