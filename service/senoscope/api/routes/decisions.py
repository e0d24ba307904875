"""``GET /v1/decisions`` and ``WS /v1/decisions``: the decisions of the rules, earlier and new ones."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, WebSocket
from pydantic import Field

from senoscope.api.lookup import require_log
from senoscope.api.openapi import problems
from senoscope.api.reading import read
from senoscope.api.routes.live import LiveHub, serve_live
from senoscope_client.errors import LogUnavailable
from senoscope_client.models.base import StrictModel
from senoscope_client.models.decision import Decision, Judged
from senoscope_client.models.responses import DecisionsPage
from senoscope_client.models.result import CamMode, Result

router = APIRouter(responses=problems(LogUnavailable))


class DecisionHub:
    """The sink that sends decisions to two kinds of WebSocket clients.

    Attributes
    ----------
    decided, judged : LiveHub
        Clients that get decisions only, and those that get every judged field of view, too.
    """

    def __init__(self, backlog: int, max_clients: int) -> None:
        self.decided = LiveHub(backlog, max_clients)
        self.judged = LiveHub(backlog, max_clients)

    def on_judged(self, _: Result, decisions: Sequence[Decision], judged: Judged) -> None:
        """Pass messages to the event loop; called from the decider's thread."""
        for decision in decisions:
            text = decision.model_dump_json(exclude_none=True).encode()
            for hub in (self.decided, self.judged):
                hub.send(partial(_encoded, text))
        self.judged.send(partial(_encoded, judged.model_dump_json().encode()))

    def close(self) -> None:
        """Close every client after it was sent its queue."""
        self.decided.close()
        self.judged.close()


def _encoded(text: bytes, _: CamMode) -> bytes:
    return text


class DecisionParameters(StrictModel):
    """The selection of decisions, and the page."""

    series: UUID | None = Field(None, description="Only decisions of the series with this uid.")
    limit: int = Field(100, ge=1, le=1000, description="Maximum number of decisions in a page.")
    cursor: int | None = Field(None, ge=1, le=2**63 - 1, description="``next`` of the previous page.")


@router.get("/v1/decisions", response_model_exclude_none=True)
async def decisions(request: Request, parameters: Annotated[DecisionParameters, Query()]) -> DecisionsPage:
    """Return decisions of the rules, newest first; ``next`` is the cursor of the next page."""
    log = require_log(request)
    found, cursor = await read(request, log.decisions, parameters.series, parameters.limit, parameters.cursor)
    return DecisionsPage(decisions=found, next=cursor)


@router.websocket("/v1/decisions")
async def live_decisions(websocket: WebSocket) -> None:
    """Send each decision as it is made; with ``?judged=true`` also when a field of view was judged."""
    wanted = {"": False, "false": False, "true": True}
    value = wanted.get(websocket.query_params.get("judged", ""))
    if value is None or set(websocket.query_params) - {"judged"}:
        await websocket.accept()
        await websocket.close(1008, "invalid parameter; use ?judged=true or none")
        return
    hub: DecisionHub = websocket.app.state.decision_hub
    await serve_live(websocket, hub.judged if value else hub.decided, "none")
