"""``GET /v1/series``: the series of the stream, those of now and those before."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from senoscope.api.documented import problems
from senoscope.api.logged import service_of
from senoscope.api.reading import read
from senoscope.runlog.entries import LoggedSeries
from senoscope_client.errors import LogUnavailable, NotFound
from senoscope_client.responses import SeriesResponse, SeriesSummary

router = APIRouter(responses=problems(LogUnavailable))


class SeriesParameters(BaseModel):
    """How many."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(100, ge=1, le=1000, description="Most series that are told.")


@router.get("/v1/series")
async def all_series(request: Request, parameters: Annotated[SeriesParameters, Query()]) -> SeriesResponse:
    """The series that were seen last, newest first, with how many results carry which label."""
    service = service_of(request)
    logged = await read(request, service.log.readable().series, parameters.limit) if service.log else []
    by_uid = {one.snapshot["series_uid"]: one for one in logged}
    live = service.describe_series()
    found = [_live(snapshot, by_uid.pop(snapshot["series_uid"], None)) for snapshot in live]
    found += [_past(one) for one in by_uid.values()]
    return SeriesResponse(series=tuple(found[: parameters.limit]))


@router.get("/v1/series/{uid}", responses=problems(LogUnavailable, NotFound))
async def one_series(request: Request, uid: UUID) -> SeriesSummary:
    """One series."""
    service = service_of(request)
    logged = await read(request, service.log.readable().one_series, uid) if service.log else None
    for snapshot in service.describe_series():
        if snapshot["series_uid"] == str(uid):
            return _live(snapshot, logged)
    if logged is None:
        raise NotFound(f"no series {uid} was seen; /v1/series lists those that were")
    return _past(logged)


def _live(snapshot: dict[str, Any], logged: LoggedSeries | None) -> SeriesSummary:
    return SeriesSummary(**snapshot, live=True, **_of_log(logged))


def _past(logged: LoggedSeries) -> SeriesSummary:
    snapshot = logged.snapshot
    if snapshot["state"] == "open":  # nobody counts it any more: the service ended before the series did
        snapshot = {**snapshot, "state": "interrupted"}
    return SeriesSummary(**snapshot, live=False, **_of_log(logged))


def _of_log(logged: LoggedSeries | None) -> dict[str, Any]:
    if logged is None:
        return {}
    return {"labels": logged.labels, "updated_at": datetime.fromtimestamp(logged.updated_ms / 1000, UTC)}
