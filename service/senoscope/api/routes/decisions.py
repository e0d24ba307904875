"""``GET /v1/decisions`` and ``WS /v1/decisions``: what the rules decided, before and from now on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response, WebSocket
from pydantic import BaseModel, ConfigDict, Field

from senoscope.api.lookup import require_log
from senoscope.api.openapi import problems
from senoscope.api.reading import read
from senoscope.api.routes.live import LiveHub, serve_live
from senoscope_client.errors import LogUnavailable
from senoscope_client.models.decision import Decision, Judged
from senoscope_client.models.responses import DecisionsPage
from senoscope_client.models.result import CamMode, Result

router = APIRouter(responses=problems(LogUnavailable))


@dataclass(frozen=True)
class _Message:
    """A decision, or that there are no more on a field of view, as JSON."""

    text: bytes

    def json(self, _: CamMode) -> bytes:
        return self.text


class DecisionHub:
    """The sink that fans decisions out to two kinds of WebSocket clients.

    Parameters
    ----------
    backlog, max_clients : int
        As of `LiveHub`, for each kind.

    Attributes
    ----------
    decided, judged : LiveHub
        Clients that are told decisions; and those that are told of every judged field of view, too.
    """

    def __init__(self, backlog: int, max_clients: int) -> None:
        self.decided = LiveHub(backlog, max_clients)
        self.judged = LiveHub(backlog, max_clients)

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Name the event loop that the WebSockets live on."""
        self.decided.attach(loop)
        self.judged.attach(loop)

    def tell_judged(self, _: Result, decisions: Sequence[Decision], judged: Judged) -> None:
        """Hand messages to the event loop; called from the decider's thread."""
        for decision in decisions:
            message = _Message(decision.model_dump_json(exclude_none=True).encode())
            self.decided.tell(message)
            self.judged.tell(message)
        self.judged.tell(_Message(judged.model_dump_json().encode()))

    def close(self) -> None:
        """Let every client drain, then close."""
        self.decided.close()
        self.judged.close()


class DecisionParameters(BaseModel):
    """Which decisions, how many, and after which page."""

    model_config = ConfigDict(extra="forbid")

    series: UUID | None = Field(None, description="Of this series alone, by its uid.")
    limit: int = Field(100, ge=1, le=1000, description="Most decisions of one page.")
    cursor: int | None = Field(None, ge=1, le=2**63 - 1, description="``next`` of the page before.")


@router.get("/v1/decisions", response_model=DecisionsPage)
async def decisions(request: Request, parameters: Annotated[DecisionParameters, Query()]) -> Response:
    """What the rules decided, newest first; ``next`` leads to the page after it."""
    log = require_log(request)
    found, cursor = await read(request, log.decisions, parameters.series, parameters.limit, parameters.cursor)
    answer = DecisionsPage(decisions=found, next=cursor)
    return Response(answer.model_dump_json(exclude_none=True), media_type="application/json")


@router.websocket("/v1/decisions")
async def live_decisions(websocket: WebSocket) -> None:
    """Send each decision as it is made; with ``?judged=true`` also when a field of view is through."""
    wanted = {"": False, "false": False, "true": True}
    value = wanted.get(websocket.query_params.get("judged", ""))
    if value is None or set(websocket.query_params) - {"judged"}:
        await websocket.accept()
        await websocket.close(1008, "bad parameter; take ?judged=true or nothing")
        return
    hub: DecisionHub = websocket.app.state.decision_hub
    await serve_live(websocket, hub.judged if value else hub.decided, "none")
