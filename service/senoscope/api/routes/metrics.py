"""``GET /metrics`` for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import APIRouter, Request, Response
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric

from senoscope.api.dependencies import Current
from senoscope.api.middleware.guard import REASONS, Refusals
from senoscope.api.routes.live import LiveHub
from senoscope.metrics import catalogue
from senoscope.service import Service

router = APIRouter()


class ClientMetrics:
    """The collector of clients of the service: connected, refused and too slow ones.

    Parameters
    ----------
    service : Service
    hub : LiveHub
    refusals : Refusals
    """

    def __init__(self, service: Service, hub: LiveHub, refusals: Refusals) -> None:
        self._service = service
        self._hub = hub
        self._refusals = refusals

    def describe(self) -> list[Metric]:
        """Return no families before they are collected, as `ServiceMetrics`."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Collect all families."""
        hub, publisher = self._hub, self._service.publisher
        connected: dict[str, float | None] = {"websocket": hub.clients}
        refused: dict[tuple[str, ...], float | None] = {("websocket", "too_many"): hub.refused}
        if publisher is not None:
            connected["zeromq"] = publisher.subscribers
            reasons = publisher.gate.refused if publisher.gate else {}
            refused |= {("zeromq", reason): count for reason, count in dict(reasons).items()}
        yield catalogue.SUBSCRIBERS.gather(connected)
        yield catalogue.SUBSCRIBERS_REFUSED.gather(refused)
        yield catalogue.SUBSCRIBERS_LOST.gather({"websocket": hub.lost})
        yield catalogue.REQUESTS_REFUSED.gather(dict.fromkeys(REASONS, 0) | self._refusals.counts)


@router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
def metrics(request: Request, service: Current) -> Response:
    """Return all metrics, as OpenMetrics if the client accepts it, else in the text format of Prometheus.

    Metrics are available before the service is ready; one of them reports whether it is.
    """
    encode, media_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(service.registry), media_type=media_type)
