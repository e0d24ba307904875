"""A posted stack on its way through the service, given up where its client leaves."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy.typing as npt
from fastapi import Request

from senoscope.api.problems import ClientGone
from senoscope.fov import Fov
from senoscope.records import Record
from senoscope.service import Service
from senoscope_client.result import Source


async def classify_stack(request: Request, pixels: npt.NDArray[Any], name: str | None = None) -> list[Record]:
    """Classify a stack whose request was read to its end; the records come when all of it is done.

    Parameters
    ----------
    pixels : array [N, C, H, W]
        Raw detector units, channels in the manifest's order.
    name : str, optional
        Of the file.

    Raises
    ------
    Busy, NotReady
    ClientGone
        If the client closed the connection; FOVs that were not begun are not computed.
    """
    service: Service = request.app.state.service
    fovs = [Fov(fov, Source(kind="upload", file=name, frame=n)) for n, fov in enumerate(pixels)]
    job = service.submit_stack(fovs)
    computing = asyncio.wrap_future(job.done)
    gone = asyncio.create_task(_until_gone(request))
    try:
        await asyncio.wait((computing, gone), return_when=asyncio.FIRST_COMPLETED)
        if not computing.done():
            raise ClientGone("the client closed the connection before its stack was done")
        return computing.result()
    finally:
        gone.cancel()
        job.done.cancel()  # does nothing to one that is done; FOVs not begun are not computed


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
