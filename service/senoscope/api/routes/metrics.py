"""``GET /metrics`` for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from prometheus_client.exposition import choose_encoder

from senoscope.api.dependencies import Current

router = APIRouter()


@router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
def metrics(request: Request, service: Current) -> Response:
    """Return all metrics, as OpenMetrics if the client accepts it, else in the text format of Prometheus.

    Metrics are available before the service is ready; one of them reports whether it is.
    """
    encode, media_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(service.registry), media_type=media_type)
