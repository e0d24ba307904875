"""Responses of the service to HTTP requests, other than results."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from pydantic import Field

from senoscope_client.models.base import OpenModel
from senoscope_client.models.decision import Decision
from senoscope_client.models.result import Result


class ClassifyResponse(OpenModel):
    """The response to a posted stack.

    Attributes
    ----------
    results : tuple of Result
        One per field of view, in the order of the stack.
    warnings : tuple of str
        Assumptions of the service about the file.
    count : int
        Number of fields of view in the stack.
    """

    results: tuple[Result, ...]
    warnings: tuple[str, ...] = ()
    count: int


class ReadyResponse(OpenModel):
    """Whether the service accepts work, and if not, why.

    Attributes
    ----------
    status : {"ready", "degraded", "not_ready"}
        Degraded: the service accepts work, but another part of it has failed.
    reason : str or None
        Why it is not ready.
    problems : tuple of str
        Why it is degraded.
    """

    status: str
    reason: str | None = None
    problems: tuple[str, ...] = ()

    @property
    def ready(self) -> bool:
        """Whether the service accepts work."""
        return self.status in {"ready", "degraded"}


class ResultsPage(OpenModel):
    """Results from the run log, newest first.

    Attributes
    ----------
    results : tuple of Result
        Without inline maps.
    next : int or None
        ``cursor`` of the next page; None if there are no older results.
    """

    results: tuple[Result, ...]
    next: int | None = None


class DecisionsPage(OpenModel):
    """Decisions from the run log, newest first.

    Attributes
    ----------
    decisions : tuple of Decision
    next : int or None
        ``cursor`` of the next page; None if there are no older decisions.
    """

    decisions: tuple[Decision, ...]
    next: int | None = None


class SeriesCounts(OpenModel):
    """One series of frames, as far as the service recorded it; see `SeriesStatus` and `SeriesSummary`."""

    series_uid: UUID
    series_id: str | None = None
    instrument: str | None = None
    state: str
    planned_frames: int | None = None
    first_frame: int | None = None
    last_frame: int | None = None
    received: int | None = None
    missing: int | None = None
    repeated: int | None = None
    restarts: int | None = None
    end_reason: str | None = None


class SeriesSummary(SeriesCounts):
    """One series of frames that the service received.

    Attributes
    ----------
    state : str
        ``open``, ``ended`` or ``interrupted``.
    live : bool
        Whether the counts are those of the service's receiver; if not, they are from the run log.
    planned_frames, first_frame, last_frame, received, missing, repeated, restarts, end_reason
        As in ``GET /v1/stream``; None if the service ended before it recorded them.
    labels : dict of str to int
        Number of logged results with each label.
    updated_at : datetime or None
        When the series was last recorded in the run log.
    """

    live: bool
    labels: dict[str, int] = Field(default_factory=dict)
    updated_at: datetime | None = None


class SeriesResponse(OpenModel):
    """The series of the service, newest first."""

    series: tuple[SeriesSummary, ...]


class FrameRange(OpenModel):
    """Consecutive frames without a result, both ends included.

    Attributes
    ----------
    reason : str
        ``dropped``, ``missing``, ``refused`` or ``failed``.
    """

    first: int
    last: int
    reason: str


class FramesResponse(OpenModel):
    """The frames of a series that have no result.

    Attributes
    ----------
    counts : dict of str to int
        Number of frames for each reason; larger than in the ranges if the oldest ranges are no longer stored.
    ranges : tuple of FrameRange
    next : int or None
        ``cursor`` of the next page; None at the end.
    """

    series_uid: UUID
    counts: dict[str, int]
    ranges: tuple[FrameRange, ...]
    next: int | None = None
