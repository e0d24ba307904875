"""``GET /v1/results``: the results in the run log, newest first."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import fields
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import AfterValidator, Field
from starlette.concurrency import run_in_threadpool

from senoscope.api.accept import wants_csv
from senoscope.api.lookup import find, require_log
from senoscope.api.openapi import BINARY, TEXT_CSV, problems
from senoscope.api.reading import iterate, read
from senoscope.results.record import with_maps
from senoscope.runlog.entries import Page, ResultFilter
from senoscope.runlog.export import MEDIA_TYPES, ExportFormat, export
from senoscope_client.errors import LogUnavailable, NotFound
from senoscope_client.models.base import StrictModel
from senoscope_client.models.responses import ResultsPage
from senoscope_client.models.result import CamMode, Result, SourceKind
from senoscope_client.tables import results_csv

router = APIRouter(responses=problems(LogUnavailable))


def _in_utc(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time


_Time = Annotated[datetime, AfterValidator(_in_utc)]
_Probability = Annotated[float, Field(ge=0, le=1)]


class FilterParameters(StrictModel):
    """The selection of results; ``from`` is inclusive, ``to`` exclusive, both in UTC by default."""

    series: UUID | None = Field(None, description="Only results of the series with this uid.")
    # No label has a character 0, which PostgreSQL does not accept in text.
    label: str | None = Field(
        None, max_length=255, pattern=r"^[^\x00]*$", description="One of the ensemble's classes."
    )
    kind: SourceKind | None = Field(None, description="Source of the field of view.")
    since: _Time | None = Field(None, alias="from", description="Computed at this time or later.")
    until: _Time | None = Field(None, alias="to", description="Computed before this time.")
    min_probability: _Probability | None = Field(None, description="Smallest probability.")
    max_probability: _Probability | None = Field(None, description="Largest probability.")

    @property
    def result_filter(self) -> ResultFilter:
        """The selection as the run log takes it."""
        return ResultFilter(**{field.name: getattr(self, field.name) for field in fields(ResultFilter)})


class PageParameters(FilterParameters):
    """The selection of results, and the page."""

    limit: int = Field(100, ge=1, le=1000, description="Maximum number of results in a page.")
    cursor: int | None = Field(None, ge=1, le=2**63 - 1, description="``next`` of the previous page.")


class ExportParameters(FilterParameters):
    """The selection of results, and the format of the file."""

    format: ExportFormat = Field("csv", description="Format of the file; Parquet needs the extra `parquet`.")


class ResultParameters(StrictModel):
    """Query parameters of one result."""

    cam: CamMode = Field("none", description="Form of the Grad-CAM map in the result.")


@router.get(
    "/v1/results",
    response_model=ResultsPage,
    summary="Results of the run log, newest first",
    responses={200: {"content": TEXT_CSV}},
)
async def results(request: Request, parameters: Annotated[PageParameters, Query()]) -> Response:
    """Return a page of results; ``next`` and the ``Link`` header refer to the next page."""
    log = require_log(request)

    def answer() -> Response:
        return _answer(request, log.results(parameters.result_filter, parameters.limit, parameters.cursor))

    return await read(request, answer)


@router.get(
    "/v1/results/export",
    response_class=StreamingResponse,
    responses={200: {"content": TEXT_CSV | {MEDIA_TYPES["parquet"]: BINARY}}},
)
async def export_results(
    request: Request, parameters: Annotated[ExportParameters, Query()]
) -> StreamingResponse:
    """Export all selected results as one CSV or Parquet file."""
    pieces = export(require_log(request), parameters.result_filter, parameters.format)
    # Read before the answer begins, so that a failing run log is answered with a problem document.
    first = await read(request, next, pieces, b"")
    name = f"senoscope-results.{parameters.format}"

    async def all_pieces() -> AsyncIterator[bytes]:
        yield first
        async for piece in iterate(request, pieces):
            yield piece

    return StreamingResponse(
        all_pieces(),
        media_type=MEDIA_TYPES[parameters.format],
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


@router.get(
    "/v1/results/{identifier}",
    response_model_exclude_none=True,
    responses=problems(LogUnavailable, NotFound),
)
async def result(
    request: Request, identifier: UUID, parameters: Annotated[ResultParameters, Query()]
) -> Result:
    """Return one result, with its Grad-CAM map if ``cam`` requests it."""
    found = await find(request, identifier)
    return await run_in_threadpool(with_maps, found.result, found.maps, parameters.cam)


def _answer(request: Request, page: Page) -> Response:
    headers = {}
    if page.next is not None:
        following = request.url.include_query_params(cursor=page.next)
        headers["Link"] = f'<{following.path}?{following.query}>; rel="next"'
    if wants_csv(request.headers.get("accept", "")):
        return Response(results_csv(page.results), media_type=MEDIA_TYPES["csv"], headers=headers)
    answer = ResultsPage(results=page.results, next=page.next)
    text = answer.model_dump_json(exclude_none=True)
    return Response(text, media_type="application/json", headers=headers)
