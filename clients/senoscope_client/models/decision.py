"""Decisions of the service's rules: the same record over WebSocket, ZeroMQ and in the run log."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from senoscope_client.models.base import OpenModel
from senoscope_client.models.coordinates import Index, Position

Action = Literal["revisit", "skip", "stop"]
"""Scan this position again; skip what is still planned at this position; end the series."""


class Decision(OpenModel):
    """A request of a rule to the software that controls the microscope; the service itself moves nothing.

    Attributes
    ----------
    id : UUID
        Version 7, so that ids sort by time.
    series_uid, series_id, instrument, frame, index, position_um
        Of the field of view that the decision is about, as in the source of its result.
    result_id : UUID
        Of that result.
    action : {"revisit", "skip", "stop"}
    rule : str
        Name of the rule.
    dry_run : bool
        True: the decision is published for information only, and must not be carried out.
    reason : str
        Reason of the decision, as a sentence.
    logged : bool
        Whether the decision was in the run log when it was published.
    """

    id: UUID
    series_uid: UUID
    series_id: str | None = None
    instrument: str | None = None
    frame: int
    index: Index | None = None
    position_um: Position | None = None
    result_id: UUID
    action: Action
    rule: str
    dry_run: bool
    reason: str
    logged: bool = True


class Judged(OpenModel):
    """All rules have judged a field of view; published after the decisions on it, and not logged.

    It informs programs that wait for decisions that there will be no more on this field of view.

    Attributes
    ----------
    result_id : UUID
    decisions : int
        Number of decisions on the field of view; 0 if nothing is to be done.
    """

    series_uid: UUID
    frame: int
    result_id: UUID
    decisions: int
