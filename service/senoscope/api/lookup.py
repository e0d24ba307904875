"""Lookup of results: in memory while their pixels are kept there, else in the run log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy.typing as npt
from fastapi import Request

from senoscope.api.dependencies import service_of
from senoscope.api.reading import read
from senoscope.engine import Prediction
from senoscope.runlog.entries import Maps
from senoscope.runlog.store import RunLog
from senoscope_client.errors import LogUnavailable, NotFound
from senoscope_client.models.result import Result


@dataclass(frozen=True)
class Found:
    """A result, with the data that its pictures are drawn from.

    Attributes
    ----------
    channels : tuple of str
        Of the ensemble that computed the result.
    pixels : array [C, H, W] or None
        None if they are no longer in memory.
    """

    result: Result
    maps: Prediction | Maps
    channels: tuple[str, ...]
    pixels: npt.NDArray[Any] | None


def require_log(request: Request) -> RunLog:
    """Return the run log.

    Raises
    ------
    LogUnavailable
        If the run log is turned off, or cannot be read at present.
    """
    keeper = service_of(request).log
    if keeper is None:
        raise LogUnavailable("the run log is turned off (--database-url none); /v1/live sends new results")
    return keeper.readable()


async def find(request: Request, identifier: UUID) -> Found:
    """Find a result by its id.

    Raises
    ------
    NotFound
        If there is no such result, or it was deleted.
    LogUnavailable, Busy
        If the result may be in the run log, and the run log cannot be read.
    """
    service = service_of(request)
    record = service.recent.get(identifier)
    if record is not None:
        return Found(record.result, record.prediction, record.channels, record.fov.pixels)
    logged = await read(request, service.log.readable().result, identifier) if service.log else None
    if logged is not None:
        result, maps = logged
        return Found(result, maps, maps.channels, None)
    if service.log is not None and service.log.problem:
        raise LogUnavailable(service.log.problem)
    raise NotFound(
        f"there is no result {identifier}: the id is wrong, or "
        + ("the result was deleted (--keep-days, --keep-mib)" if service.log else "the run log is turned off")
    )
