"""What the service's rules ask for: the same record over WebSocket, ZeroMQ and in the run log."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from senoscope_client.models.base import OpenModel
from senoscope_client.models.coordinates import Index, Position

Action = Literal["revisit", "skip", "stop"]
"""Scan this place once more; leave out what is still planned at this place; end the series."""


class Decision(OpenModel):
    """What a rule asks whoever steers the microscope to do; the service itself moves nothing.

    Attributes
    ----------
    id : UUID
        Version 7, so that ids sort by time.
    series_uid, series_id, instrument, frame, index, position_um
        Of the field of view that it was decided on, as in its result's source.
    result_id : UUID
        Of that result.
    action : {"revisit", "skip", "stop"}
    rule : str
        Name of the rule.
    dry_run : bool
        True: only to be looked at, nobody is to act on it.
    reason : str
        Why, in words.
    logged : bool
        Whether the run log held it when it was told.
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
    """A field of view was judged by all rules; told after the decisions on it, and not logged.

    Who waits for decisions learns from it that no more will come on this field of view.

    Attributes
    ----------
    result_id : UUID
    decisions : int
        How many were told; 0 where nothing is to be done.
    """

    series_uid: UUID
    frame: int
    result_id: UUID
    decisions: int
