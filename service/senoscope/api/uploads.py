"""Posted stacks: read, classified, and cancelled where the client disconnects."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy.typing as npt
from fastapi import Request
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from senoscope.api.dependencies import service_of
from senoscope.api.middleware.body_limit import Upload, open_upload
from senoscope.api.middleware.observer import request_ref_of
from senoscope.api.openapi import BINARY
from senoscope.api.problems import ClientDisconnected
from senoscope.fov import Fov
from senoscope.results.record import Record
from senoscope.scheduling.active_ensemble import ActiveEnsemble
from senoscope.scheduling.memory_budget import MemoryShare
from senoscope_client.errors import UnreadableImage, UnsupportedMediaType
from senoscope_client.images.reader import FovSpec, FovStack, read_fovs
from senoscope_client.models.base import StrictModel
from senoscope_client.models.result import Source

# The body of a request, for OpenAPI.
IMAGE_CONTENT: Final = dict.fromkeys(("image/tiff", "application/x-npy", "application/octet-stream"), BINARY)


class ImageParameters(StrictModel):
    """Query parameters that describe a posted file where it does not describe itself."""

    axes: str | None = Field(None, description="Axes of the file, such as PCYX, if the file has none.")
    channels: str | None = Field(
        None, description="Channels of the file in their order, such as TPEF,SRS,Transmission."
    )


@dataclass(frozen=True)
class PostedStack:
    """The fields of view of a request.

    Attributes
    ----------
    fovs : FovStack
        Channels in the order of ``active.spec``.
    name : str or None
        Of the file.
    active : ActiveEnsemble
        The ensemble that the file was read for; another one may have taken over since.
    """

    fovs: FovStack
    name: str | None
    active: ActiveEnsemble


async def posted_stack(request: Request, parameters: ImageParameters, share: MemoryShare) -> PostedStack:
    """Read the fields of view in a request.

    Parameters
    ----------
    share : MemoryShare
        Of the request, to be held for as long as the pixels are.

    Raises
    ------
    SenoscopeError
        If there is no file, or it cannot be read or does not fit the ensemble.
    """
    service = service_of(request)
    limits, max_bytes = service.settings.image_limits, service.settings.max_upload_bytes
    active = service.active

    def read(upload: Upload) -> FovStack:
        try:
            return read_fovs(
                upload.file,
                active.spec,
                media_type=upload.media_type,
                axes=parameters.axes,
                channels=parameters.channels.split(",") if parameters.channels else None,
                limits=replace(limits, admit=share.reserve),
                name=upload.name or "the body",
            )
        except (UnreadableImage, UnsupportedMediaType) as error:
            raise upload.explain(error) from error

    async with open_upload(
        request, share, lambda size: min(max_bytes, limits.unpacked_bytes(size))
    ) as upload:
        fovs = read(upload) if upload.quick else await run_in_threadpool(read, upload)
    share.shrink_to(fovs.pixels.nbytes)
    return PostedStack(fovs, upload.name, active)


async def classify_stack(
    request: Request, pixels: npt.NDArray[Any], spec: FovSpec, name: str | None = None
) -> list[Record]:
    """Classify a stack, and return its records when all of it is done; the request was read to its end.

    Parameters
    ----------
    pixels : array [N, C, H, W]
        Raw detector units, channels in the order of ``spec``.
    spec : FovSpec
        That the pixels were arranged for.
    name : str, optional
        Of the file.

    Raises
    ------
    Busy
    NotReady
        Also if an ensemble of another specification is in use, or takes over before all of it is computed.
    ClientDisconnected
        If the client closed the connection; FOVs that were not begun are not computed.
    """
    service = service_of(request)
    ref = request_ref_of(request.scope)
    fovs = [
        Fov(fov, Source(kind="upload", file=name, frame=n), request=ref, spec=spec)
        for n, fov in enumerate(pixels)
    ]
    job = service.scheduler.submit_stack(fovs)
    computing = asyncio.wrap_future(job.done)
    disconnected = asyncio.create_task(_until_disconnected(request))
    try:
        await asyncio.wait((computing, disconnected), return_when=asyncio.FIRST_COMPLETED)
        if not computing.done():
            raise ClientDisconnected("the client closed the connection before its stack was classified")
        return computing.result()
    finally:
        disconnected.cancel()
        job.done.cancel()  # no effect on a stack that is done; FOVs that were not begun are not computed


async def _until_disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
