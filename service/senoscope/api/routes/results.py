"""``GET /v1/results``: what was found, newest first, out of the run log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from senoscope.api.accept import wants_csv
from senoscope.api.lookup import find, require_log
from senoscope.api.openapi import BINARY, TEXT_CSV, problems
from senoscope.api.reading import read, readers_of
from senoscope.results.record import with_maps
from senoscope.runlog.entries import Page, ResultFilter
from senoscope.runlog.export import MEDIA_TYPES, ExportFormat, export
from senoscope_client.errors import LogUnavailable, NotFound
from senoscope_client.models.responses import ResultsPage
from senoscope_client.models.result import CamMode, Result, SourceKind
from senoscope_client.tables import results_csv

router = APIRouter(responses=problems(LogUnavailable))


def _in_utc(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time


_Time = Annotated[datetime, AfterValidator(_in_utc)]
_Probability = Annotated[float, Field(ge=0, le=1)]


class FilterParameters(BaseModel):
    """Which results; ``from`` is included, ``to`` is not, and both are UTC unless they say otherwise."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    series: UUID | None = Field(None, description="Of this series alone, by its uid.")
    # No label has a character 0, and PostgreSQL has no text with one.
    label: str | None = Field(
        None, max_length=255, pattern=r"^[^\x00]*$", description="One of the ensemble's classes."
    )
    kind: SourceKind | None = Field(None, description="Where the field of view came from.")
    since: _Time | None = Field(None, alias="from", description="Made at this time or later.")
    until: _Time | None = Field(None, alias="to", description="Made before this time.")
    min_probability: _Probability | None = Field(None, description="At least this.")
    max_probability: _Probability | None = Field(None, description="At most this.")

    @property
    def wanted(self) -> ResultFilter:
        """The same in the run log's terms."""
        return ResultFilter(
            self.series,
            self.label,
            self.kind,
            self.since,
            self.until,
            self.min_probability,
            self.max_probability,
        )


class PageParameters(FilterParameters):
    """Which results, how many, and after which page."""

    limit: int = Field(100, ge=1, le=1000, description="Most results of one page.")
    cursor: int | None = Field(None, ge=1, le=2**63 - 1, description="``next`` of the page before.")


class ExportParameters(FilterParameters):
    """Which results, and as what."""

    format: ExportFormat = Field("csv", description="Parquet needs the extra `parquet`.")


class ResultParameters(BaseModel):
    """How much of the Grad-CAM map comes along."""

    model_config = ConfigDict(extra="forbid")

    cam: CamMode = Field("none", description="Grad-CAM that the result carries inline.")


@router.get(
    "/v1/results",
    response_model=ResultsPage,
    summary="Results of the run log, newest first",
    responses={200: {"content": TEXT_CSV}},
)
async def results(request: Request, parameters: Annotated[PageParameters, Query()]) -> Response:
    """A page of results; ``next`` and the ``Link`` header lead to the one after it."""
    log = require_log(request)

    def answer() -> Response:
        return _answer(request, log.results(parameters.wanted, parameters.limit, parameters.cursor))

    return await read(request, answer)


@router.get(
    "/v1/results/export",
    response_class=StreamingResponse,
    responses={200: {"content": TEXT_CSV | {MEDIA_TYPES["parquet"]: BINARY}}},
)
async def export_results(
    request: Request, parameters: Annotated[ExportParameters, Query()]
) -> StreamingResponse:
    """All results that match, as one CSV or Parquet file."""
    pieces = export(require_log(request), parameters.wanted, parameters.format)
    # Asked for before anything is answered, so that a log that fails is a problem document.
    first = await read(request, next, pieces, b"")
    name = f"senoscope-results.{parameters.format}"

    async def all_pieces() -> AsyncIterator[bytes]:
        yield first
        async for piece in readers_of(request).iterate(pieces):
            yield piece

    return StreamingResponse(
        all_pieces(),
        media_type=MEDIA_TYPES[parameters.format],
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


@router.get("/v1/results/{identifier}", response_model=Result, responses=problems(LogUnavailable, NotFound))
async def result(
    request: Request, identifier: UUID, parameters: Annotated[ResultParameters, Query()]
) -> Response:
    """One result, with its Grad-CAM map where asked for."""
    found = await find(request, identifier)

    def answer() -> str:
        return with_maps(found.result, found.maps, parameters.cam).model_dump_json(exclude_none=True)

    return Response(await run_in_threadpool(answer), media_type="application/json")


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
