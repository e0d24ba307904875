"""What a source of frames is to the rest of the service."""

from __future__ import annotations

from typing import Literal, Protocol

from senoscope.runlog.entries import SeriesSnapshot
from senoscope.watched_thread import WatchedThread
from senoscope_client.models.base import OpenModel


class FrameSource(Protocol):
    """A source of fields of view, which submits each to the scheduler from its own thread."""

    @property
    def part(self) -> Literal["receiver", "watch"]:
        """The field of `PipelineStatus` that holds its status."""

    @property
    def saves_series(self) -> bool:
        """Whether it saves its series in the run log itself."""

    @property
    def thread(self) -> WatchedThread:
        """Its thread; the service is not ready while it has failed."""

    @property
    def problem(self) -> str | None:
        """Why fields of view may be missing, or None."""

    def close(self) -> None:
        """Submit nothing more, and release what the source holds; may be called again."""

    def status(self) -> OpenModel:
        """Return state and counters."""

    def snapshots(self) -> list[SeriesSnapshot]:
        """Return snapshots of its current series, newest first."""
