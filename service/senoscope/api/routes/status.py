"""Status of the stream, and whether the service is alive and ready."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from senoscope.api.dependencies import Current, Ready
from senoscope.api.openapi import JSON_OBJECT, problems
from senoscope_client.models.status import LiveClientsStatus, StreamStatus

router = APIRouter(responses=problems())


@router.head("/livez", include_in_schema=False)
@router.get("/livez")
async def livez() -> dict[str, str]:
    """Report that the process responds."""
    return {"status": "alive"}


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", responses={503: {"description": "Not ready", "content": JSON_OBJECT}})
async def readyz(service: Current) -> JSONResponse:
    """Report whether FOVs can be classified: 200 after warm-up and test vectors; 503 with the reason if not.

    A service that is ``degraded`` is ready too: FOVs are classified, but another part does not work, such as
    a run log whose disk is full; ``problems`` lists the reasons.
    """
    reason = service.not_ready_reason()
    if reason is not None:
        return JSONResponse({"status": "not_ready", "reason": reason}, 503)
    degraded = service.degraded_reasons()
    if degraded:
        return JSONResponse({"status": "degraded", "problems": degraded})
    return JSONResponse({"status": "ready"})


@router.get("/v1/stream")
async def stream(request: Request, service: Ready) -> StreamStatus:
    """Return state and counters of the receiver, its series, the lanes and all outputs."""
    hub = request.app.state.hub
    return StreamStatus(
        **dict(service.status()),
        live_clients=LiveClientsStatus(connected=hub.clients, lost=hub.lost, refused=hub.refused),
        requests_refused=dict(request.app.state.refusals.counts),
    )
