"""Status of the stream, and whether the service is alive and ready."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from senoscope.api.openapi import JSON_OBJECT, problems
from senoscope.service import Service
from senoscope_client.models.status import LiveClientsStatus, StreamStatus

router = APIRouter(responses=problems())


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


@router.head("/livez", include_in_schema=False)
@router.get("/livez")
async def livez() -> dict[str, str]:
    """Report that the process responds."""
    return {"status": "alive"}


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", responses={503: {"description": "Not ready", "content": JSON_OBJECT}})
async def readyz(request: Request) -> JSONResponse:
    """Report whether FOVs can be classified: 200 after warm-up and test vectors; 503 with the reason if not.

    A service that is ``degraded`` is ready too: FOVs are classified, but another part does not work, such as
    a run log whose disk is full; ``problems`` lists the reasons.
    """
    service = _service(request)
    reason = service.not_ready_reason()
    if reason is not None:
        return JSONResponse({"status": "not_ready", "reason": reason}, 503)
    degraded = service.degraded_reasons()
    if degraded:
        return JSONResponse({"status": "degraded", "problems": degraded})
    return JSONResponse({"status": "ready"})


@router.get("/v1/stream")
async def stream(request: Request) -> StreamStatus:
    """Return state and counters of the receiver, its series, the lanes and all outputs."""
    service = _service(request)
    service.require_ready()
    hub = request.app.state.hub
    return StreamStatus(
        **dict(service.status()),
        live_clients=LiveClientsStatus(connected=hub.clients, lost=hub.lost, refused=hub.refused),
        requests_refused=dict(request.app.state.refusals.counts),
    )
