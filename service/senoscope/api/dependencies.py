"""What routes receive from FastAPI: the service, in any state or only when it is ready."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from senoscope.service import Service


def service_of(request: Request) -> Service:
    """Return the service that the application belongs to."""
    service: Service = request.app.state.service
    return service


# Coroutines, because FastAPI calls other functions in a thread.
async def _any_state(request: Request) -> Service:
    return service_of(request)


async def _ready(request: Request) -> Service:
    service = service_of(request)
    service.require_ready()
    return service


Current = Annotated[Service, Depends(_any_state)]
Ready = Annotated[Service, Depends(_ready)]
"""A route with a parameter of this type is answered with 503 while the service is not ready."""
