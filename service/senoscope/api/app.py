"""The application: one flat table of routes over a service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.routing import APIRoute

from senoscope import __version__
from senoscope.api import (
    classify,
    gradcam,
    live,
    models,
    normalization,
    problems,
    results,
    series,
    stagemap,
    status,
)
from senoscope.api.body import BodyLimit
from senoscope.service import Service

_ROUTERS = tuple(
    part.router
    for part in (classify, gradcam, live, models, normalization, results, series, stagemap, status)
)


def _operation_id(route: APIRoute) -> str:
    return route.name


def create_app(service: Service) -> FastAPI:
    """The HTTP side of a service; the service starts and stops with the application."""
    hub = live.LiveHub(service.settings.live_backlog)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        hub.attach(asyncio.get_running_loop())
        service.add_sink(hub)
        service.start()
        try:
            yield
        finally:
            await asyncio.to_thread(service.close)

    app = FastAPI(
        title="Senoscope",
        version=__version__,
        summary="Senescent or control, per field of view, while the microscope scans",
        lifespan=lifespan,
        # FastAPI's pages load scripts from hosts outside, which a microscope's network may not reach;
        # /openapi.json serves any viewer.
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=_operation_id,
    )
    app.state.service = service
    app.state.hub = hub
    app.add_middleware(BodyLimit, max_bytes=service.settings.max_upload_bytes)
    problems.install(app)
    for router in _ROUTERS:
        app.include_router(router)
    return app
