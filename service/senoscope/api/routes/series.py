"""``GET /v1/series``: the series of the stream, current and earlier ones."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from senoscope.api.accept import wants_csv
from senoscope.api.dependencies import Current
from senoscope.api.openapi import TEXT_CSV, problems
from senoscope.api.reading import read
from senoscope.results.lost_frames import lost_ranges
from senoscope.runlog.entries import LoggedSeries, SeriesSnapshot
from senoscope_client.errors import LogUnavailable, NotFound
from senoscope_client.models.base import StrictModel
from senoscope_client.models.responses import FrameRange, FramesResponse, SeriesResponse, SeriesSummary
from senoscope_client.tables import csv_rows

router = APIRouter(responses=problems(LogUnavailable))


class SeriesParameters(StrictModel):
    """Query parameters of the list of series."""

    limit: int = Field(100, ge=1, le=1000, description="Maximum number of series.")


@router.get("/v1/series")
async def all_series(
    request: Request, service: Current, parameters: Annotated[SeriesParameters, Query()]
) -> SeriesResponse:
    """List the most recent series, newest first, with the number of results per label."""
    logged = await read(request, service.log.readable().series, parameters.limit) if service.log else []
    by_uid = {one.snapshot.series_uid: one for one in logged}
    live = service.series_snapshots()
    found = [_summary(snapshot, by_uid.pop(snapshot.series_uid, None), live=True) for snapshot in live]
    found += [_summary(one.snapshot, one, live=False) for one in by_uid.values()]
    return SeriesResponse(series=tuple(found[: parameters.limit]))


@router.get("/v1/series/{uid}", responses=problems(LogUnavailable, NotFound))
async def one_series(request: Request, service: Current, uid: UUID) -> SeriesSummary:
    """Return one series, with the number of results per label."""
    logged = await read(request, service.log.readable().one_series, uid) if service.log else None
    for snapshot in service.series_snapshots():
        if snapshot.series_uid == uid:
            return _summary(snapshot, logged, live=True)
    if logged is None:
        raise _unknown_series(uid)
    return _summary(logged.snapshot, logged, live=False)


class FramesParameters(StrictModel):
    """The page of ranges of frames."""

    limit: int = Field(1000, ge=1, le=10_000, description="Maximum number of ranges in a page.")
    cursor: int = Field(0, ge=0, le=2**31, description="``next`` of the previous page.")


@router.get(
    "/v1/series/{uid}/frames",
    response_model=FramesResponse,
    responses=problems(LogUnavailable, NotFound) | {200: {"content": TEXT_CSV}},
)
async def series_frames(
    request: Request, service: Current, uid: UUID, parameters: Annotated[FramesParameters, Query()]
) -> Response:
    """List the frames of a series that have no result, with the reason; consecutive frames are one range.

    ``dropped``: newer frames took their place in the queue; ``missing``: sent, but never received;
    ``refused``: of another size, other channels or unusable pixels; ``failed``: no result could be computed.
    """
    live = {snapshot.series_uid: snapshot for snapshot in service.series_snapshots()}
    snapshot = live.get(uid)
    if snapshot is None and service.log is not None:
        logged = await read(request, service.log.readable().one_series, uid)
        snapshot = logged.snapshot if logged else None
    if snapshot is None:
        raise _unknown_series(uid)
    ranges, counts = lost_ranges(snapshot)
    if wants_csv(request.headers.get("accept", "")):
        heading = ("series_uid", "first", "last", "reason")
        return Response("".join(csv_rows([heading, *((uid, *one) for one in ranges)])), media_type="text/csv")
    end = parameters.cursor + parameters.limit
    answer = FramesResponse(
        series_uid=uid,
        counts=counts,
        ranges=tuple(
            FrameRange(first=first, last=last, reason=reason)
            for first, last, reason in ranges[parameters.cursor : end]
        ),
        next=end if end < len(ranges) else None,
    )
    return Response(answer.model_dump_json(exclude_none=True), media_type="application/json")


def _unknown_series(uid: UUID) -> NotFound:
    return NotFound(f"there is no series {uid}; /v1/series lists all series")


def _summary(snapshot: SeriesSnapshot, logged: LoggedSeries | None, *, live: bool) -> SeriesSummary:
    of_log: dict[str, Any] = {}
    if logged is not None:
        updated_at = datetime.fromtimestamp(logged.updated_ms / 1000, UTC)
        of_log = {"labels": logged.labels, "updated_at": updated_at}
    if not live and snapshot.state == "open":  # the service ended before the series did
        of_log["state"] = "interrupted"
    return SeriesSummary(**snapshot.model_dump() | of_log, live=live)
