"""What the service answers to HTTP requests, beside results."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from pydantic import Field

from senoscope_client.models.base import OpenModel
from senoscope_client.models.decision import Decision
from senoscope_client.models.result import Result


class ClassifyResponse(OpenModel):
    """The answer to a posted stack.

    Attributes
    ----------
    results : tuple of Result
        One per field of view, in the order of the stack.
    warnings : tuple of str
        What the service assumed about the file.
    count : int
        How many fields of view the stack held.
    """

    results: tuple[Result, ...]
    warnings: tuple[str, ...] = ()
    count: int


class ReadyResponse(OpenModel):
    """Whether the service takes work, and if not, why.

    Attributes
    ----------
    status : {"ready", "degraded", "not_ready"}
        Degraded: it takes work, but something else fails.
    reason : str or None
        Why it is not ready.
    problems : tuple of str
        What else fails.
    """

    status: str
    reason: str | None = None
    problems: tuple[str, ...] = ()

    @property
    def ready(self) -> bool:
        """Whether it does."""
        return self.status in {"ready", "degraded"}


class ResultsPage(OpenModel):
    """Results out of the run log, newest first.

    Attributes
    ----------
    results : tuple of Result
        Without inline maps.
    next : int or None
        ``cursor`` of the next page; None where nothing older matches.
    """

    results: tuple[Result, ...]
    next: int | None = None


class DecisionsPage(OpenModel):
    """Decisions out of the run log, newest first.

    Attributes
    ----------
    decisions : tuple of Decision
    next : int or None
        ``cursor`` of the next page; None where there are no older ones.
    """

    decisions: tuple[Decision, ...]
    next: int | None = None


class SeriesSummary(OpenModel):
    """One series of frames, as the service saw it.

    Attributes
    ----------
    state : str
        ``open``, ``ended`` or ``interrupted``.
    live : bool
        Whether the service's receiver still counts it; if not, this is out of the run log.
    planned_frames, first_frame, last_frame, received, missing, repeated, restarts, end_reason
        As in ``GET /v1/stream``; None where the service ended before it noted them.
    labels : dict of str to int
        How many logged results carry each label.
    updated_at : datetime or None
        When the run log last noted the series.
    """

    series_uid: UUID
    series_id: str | None = None
    instrument: str | None = None
    state: str
    live: bool
    planned_frames: int | None = None
    first_frame: int | None = None
    last_frame: int | None = None
    received: int | None = None
    missing: int | None = None
    repeated: int | None = None
    restarts: int | None = None
    end_reason: str | None = None
    labels: dict[str, int] = Field(default_factory=dict)
    updated_at: datetime | None = None


class SeriesResponse(OpenModel):
    """The series that the service knows, newest first."""

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
        Frames for each reason; more than the ranges hold where the oldest ranges are no longer remembered.
    ranges : tuple of FrameRange
    next : int or None
        ``cursor`` of the next page; None at the end.
    """

    series_uid: UUID
    counts: dict[str, int]
    ranges: tuple[FrameRange, ...]
    next: int | None = None
