"""When requests are sent: at a fixed rate, whatever the service does, or each after the response to another.

At a fixed rate (an open loop), a service that stalls delays all requests which become due meanwhile, as it
delays independent clients. With a fixed number of clients that wait for their response (a closed loop), it
delays one request per client: the stall is hardly visible in the percentiles.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import time
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from senoscope_client.http.client import CONNECT_S
from senoscope_client.http.operations import Operation
from senoscope_client.load.outcomes import NOT_SENT, TIMEOUT, UNFINISHED, LoadSummary, Outcome, summarize

_MAX_CONNECTIONS: Final = 256
_PAUSE_S: Final = 0.25  # of a client that cannot connect
_clock = time.perf_counter


@dataclass(frozen=True)
class LoadPlan:
    """How many requests are sent, and when.

    Attributes
    ----------
    rate_hz : float or None
        Requests per second; None: ``concurrency`` clients, each with one request at a time.
    concurrency : int
    requests : int or None
        Number of requests; None: as many as are due within ``seconds``.
    seconds : float
    timeout_s : float
        Time limit for each response, and for the last ones after the last request.
    """

    rate_hz: float | None
    concurrency: int
    requests: int | None
    seconds: float
    timeout_s: float


@dataclass
class _Sender:
    """Sends the same request again and again, and records what became of each."""

    http: httpx.AsyncClient
    operation: Operation[Any]
    outcomes: list[Outcome] = field(default_factory=list)
    connections: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_MAX_CONNECTIONS))

    async def send(self, due_s: float) -> Outcome:
        """Send a request that is due at a time, and record its outcome, also if it is cancelled."""
        sent_s: float | None = None
        try:
            async with self.connections:
                sent_s = _clock()
                outcome = await self._post(due_s, sent_s)
        except asyncio.CancelledError:
            code = NOT_SENT if sent_s is None else UNFINISHED
            self.outcomes.append(Outcome(due_s, sent_s, _clock(), code=code))
            raise
        self.outcomes.append(outcome)
        return outcome

    async def _post(self, due_s: float, sent_s: float) -> Outcome:
        operation = self.operation
        with operation.open_body() as body:
            try:
                response = await self.http.request(
                    operation.method, operation.path, params=operation.params, **body
                )
            except httpx.TimeoutException:
                return Outcome(due_s, sent_s, _clock(), code=TIMEOUT)
            except httpx.HTTPError:
                return Outcome(due_s, sent_s, _clock(), code="unreachable")
        ended_s = _clock()
        fovs, code = _read(response)
        return Outcome(due_s, sent_s, ended_s, fovs, response.status_code, code, _retry_after_s(response))


def _read(response: httpx.Response) -> tuple[int, str]:
    """Return the number of classified FOVs, and the code of the problem."""
    try:
        content = json.loads(response.content)
        return (int(content["count"]), "") if response.is_success else (0, str(content["code"]))
    except (ValueError, KeyError, TypeError):
        return 0, "unexpected_response"


def _retry_after_s(response: httpx.Response) -> float | None:
    text = response.headers.get("Retry-After")
    if text is None:
        return None
    return float(text) if text.isascii() and text.isdigit() else _PAUSE_S  # a date


async def apply_load(
    base_url: str, headers: dict[str, str], operation: Operation[Any], plan: LoadPlan
) -> LoadSummary:
    """Send requests as planned, and return the summary; also when it is interrupted."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=_MAX_CONNECTIONS)
    timeout = httpx.Timeout(plan.timeout_s, connect=CONNECT_S)
    async with httpx.AsyncClient(base_url=base_url, headers=headers, timeout=timeout, limits=limits) as http:
        sender = _Sender(http, operation)
        running: list[asyncio.Task[Any]] = []
        interrupted = False
        try:
            if plan.rate_hz is None:
                await _closed_loop(sender, plan, running)
            else:
                await _open_loop(sender, plan, plan.rate_hz, running)
        except asyncio.CancelledError:  # Ctrl-C
            interrupted = True
        await asyncio.sleep(0)  # a request that has not begun would not record that it was cancelled
        for task in running:
            task.cancel()
        for ended in await asyncio.gather(*running, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended
    return summarize(sender.outcomes, interrupted)


async def _open_loop(
    sender: _Sender, plan: LoadPlan, rate_hz: float, running: list[asyncio.Task[Any]]
) -> None:
    requests = plan.requests or math.ceil(plan.seconds * rate_hz)
    first_s = _clock()
    due_s = [first_s + n / rate_hz for n in range(requests)]
    begun = 0
    try:
        for begun, one in enumerate(due_s):  # noqa: B007 - used when it is interrupted
            await asyncio.sleep(max(0.0, one - _clock()))
            running.append(asyncio.create_task(sender.send(one)))
        begun = requests
        await asyncio.wait(running, timeout=plan.timeout_s)
    finally:
        now_s = _clock()
        missed = [one for one in due_s[begun:] if one <= now_s]
        sender.outcomes += [Outcome(one, None, now_s, code=NOT_SENT) for one in missed]


async def _closed_loop(sender: _Sender, plan: LoadPlan, running: list[asyncio.Task[Any]]) -> None:
    numbers = itertools.count() if plan.requests is None else iter(range(plan.requests))
    end_s = _clock() + plan.seconds if plan.requests is None else math.inf

    async def client() -> None:
        while _clock() < end_s and next(numbers, None) is not None:
            outcome = await sender.send(_clock())
            pause_s = outcome.retry_after_s or (_PAUSE_S if outcome.status is None else 0.0)
            if outcome.code and pause_s:
                await asyncio.sleep(min(pause_s, max(0.0, end_s - _clock())))

    running += [asyncio.create_task(client()) for _ in range(plan.concurrency)]
    end = None if plan.requests is not None else plan.seconds + plan.timeout_s
    await asyncio.wait(running, timeout=end)
