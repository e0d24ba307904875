"""The application: one flat table of routes over a service."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from pkgutil import iter_modules

import anyio
from fastapi import Depends, FastAPI
from starlette.requests import HTTPConnection

from senoscope import __version__
from senoscope.access.key_ring import KeyRing
from senoscope.api import problems, routes
from senoscope.api.middleware.body_limit import BodyLimit
from senoscope.api.middleware.guard import Guard, Refusals
from senoscope.api.middleware.observer import RequestMetrics
from senoscope.api.reading import MAX_READS
from senoscope.api.routes import decisions, live
from senoscope.api.service_metrics import ServiceMetrics
from senoscope.api.v2 import routes as inference
from senoscope.service import Service
from senoscope_client.errors import InvalidRequest
from senoscope_client.images.sanitize import sanitize_for_display

# Every module in `routes` has a router.
_ROUTES = [import_module(f"{routes.__name__}.{found.name}") for found in iter_modules(routes.__path__)]


def create_app(service: Service) -> FastAPI:
    """Return the HTTP application of a service, which starts and stops with it."""
    settings = service.settings
    hub = live.LiveHub(settings.live_backlog, settings.max_live_clients)
    decision_hub = decisions.DecisionHub(settings.live_backlog, settings.max_live_clients)
    keyed = settings.api_keys is not None or settings.api_key is not None
    keys = KeyRing(settings.api_keys, settings.api_key) if keyed else None

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.add_sink(hub)
        service.add_decision_sink(decision_hub)
        service.start()
        try:
            yield
        finally:
            await asyncio.to_thread(service.close)
            decision_hub.close()

    app = FastAPI(
        title="Senoscope",
        version=__version__,
        summary="Senescent or control, per field of view, while the microscope scans",
        lifespan=lifespan,
        # FastAPI's documentation pages load scripts from external hosts, which a microscope's network may
        # not reach; /openapi.json can be opened in any viewer.
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.service = service
    app.state.reads = anyio.Semaphore(MAX_READS)
    app.state.hub = hub
    app.state.decision_hub = decision_hub
    app.state.refusals = Refusals()
    app.state.request_metrics = RequestMetrics(service.registry)
    service.registry.register(ServiceMetrics(service, hub, app.state.refusals))
    # The inner one first.
    app.add_middleware(Guard, keys=keys, refusals=app.state.refusals, any_host=settings.insecure)
    app.add_middleware(BodyLimit, max_bytes=settings.max_upload_bytes, timeout_s=settings.body_timeout_s)
    problems.install(app)
    for module in (*_ROUTES, inference):
        app.include_router(module.router, dependencies=[Depends(_require_each_once)])
    return app


async def _require_each_once(connection: HTTPConnection) -> None:
    """Refuse a query parameter that is given more than once: all values but one would be ignored."""
    counts = Counter(key for key, _ in connection.query_params.multi_items())
    repeated = [key for key, count in counts.items() if count > 1]
    if repeated and connection.scope["type"] == "http":
        raise InvalidRequest(
            f"{sanitize_for_display(repeated[0], 80)} is given {counts[repeated[0]]} times; give it once"
        )
