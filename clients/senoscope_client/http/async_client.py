"""The asynchronous HTTP client, for programs with an event loop."""

from __future__ import annotations

import asyncio
import itertools
import os
import warnings
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, Unpack
from uuid import UUID

import httpx
import numpy.typing as npt

from senoscope_client.errors import Unreachable
from senoscope_client.http import operations
from senoscope_client.http.auth import authorization_header
from senoscope_client.http.client import CONNECT_S
from senoscope_client.http.live_async import AsyncLiveDecisions, AsyncLiveResults
from senoscope_client.http.operations import Filters, Operation, Progress, Stack
from senoscope_client.http.retries import Retries
from senoscope_client.models.responses import (
    ClassifyResponse,
    DecisionsPage,
    ReadyResponse,
    ResultsPage,
    SeriesSummary,
)
from senoscope_client.models.result import CamMode, Result
from senoscope_client.models.status import ModelInfo, StreamStatus

_T = TypeVar("_T")


class AsyncClient:
    """A client for the service at one address, for one event loop; an asynchronous context manager.

    Its methods are those of `senoscope_client.Client`, where their parameters, results and errors are
    documented; any number of them may run at once.

    Parameters
    ----------
    base_url, timeout, api_key, retries
        See `Client`.
    """

    def __init__(
        self,
        base_url: str,
        timeout: float = 300.0,
        api_key: str | None = None,
        *,
        retries: Retries = Retries(),  # noqa: B008 - it is frozen
    ) -> None:
        self.base_url = operations.validate_base_url(base_url)
        self._api_key = api_key
        self._retries = retries
        self._http = httpx.AsyncClient(
            base_url=self.base_url,
            timeout=httpx.Timeout(timeout, connect=CONNECT_S),
            headers=authorization_header(api_key),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def classify(
        self,
        stack: Stack,
        cam: CamMode = "none",
        axes: str | None = None,
        channels: Sequence[str] | None = None,
        progress: Progress | None = None,
    ) -> list[Result]:
        """See `Client.classify`."""
        response = await self.classify_stack(stack, cam, axes, channels, progress)
        for text in response.warnings:
            warnings.warn(text, stacklevel=2)
        return list(response.results)

    async def classify_stack(
        self,
        stack: Stack,
        cam: CamMode = "none",
        axes: str | None = None,
        channels: Sequence[str] | None = None,
        progress: Progress | None = None,
    ) -> ClassifyResponse:
        """See `Client.classify_stack`."""
        return await self._execute(operations.classify(stack, cam, axes, channels, progress))

    async def results(
        self, *, limit: int = 100, cursor: int | None = None, **filters: Unpack[Filters]
    ) -> ResultsPage:
        """See `Client.results`."""
        return await self._execute(operations.results(limit, cursor, filters))

    async def all_results(self, **filters: Unpack[Filters]) -> AsyncIterator[Result]:
        """See `Client.all_results`."""
        cursor: int | None = None
        while True:
            page = await self.results(limit=1000, cursor=cursor, **filters)
            for result in page.results:
                yield result
            cursor = page.next
            if cursor is None:
                return

    async def result(self, identifier: UUID | str, cam: CamMode = "none") -> Result:
        """See `Client.result`."""
        return await self._execute(operations.result(identifier, cam))

    async def pixels(self, identifier: UUID | str) -> npt.NDArray[Any]:
        """See `Client.pixels`."""
        return await self._execute(operations.pixels(identifier))

    async def export(
        self,
        path: str | os.PathLike[str],
        form: Literal["csv", "parquet"] = "csv",
        **filters: Unpack[Filters],
    ) -> None:
        """See `Client.export`."""
        query = {**operations.filter_query(filters), "format": form}
        try:
            async with self._http.stream("GET", "/v1/results/export", params=query) as response:
                if not response.is_success:
                    await response.aread()
                operations.require_success(response)
                with Path(path).open("wb") as file:
                    async for piece in response.aiter_bytes():
                        file.write(piece)
        except httpx.TransportError as error:
            raise Unreachable(f"the connection to {self.base_url} was lost: {error}") from error

    async def series(self, limit: int = 100) -> list[SeriesSummary]:
        """See `Client.series`."""
        return await self._execute(operations.series(limit))

    async def one_series(self, series_uid: UUID | str) -> SeriesSummary:
        """See `Client.one_series`."""
        return await self._execute(operations.one_series(series_uid))

    async def decisions(
        self, series: UUID | str | None = None, *, limit: int = 100, cursor: int | None = None
    ) -> DecisionsPage:
        """See `Client.decisions`."""
        return await self._execute(operations.decisions(series, limit, cursor))

    async def model(self) -> dict[str, Any]:
        """See `Client.model`."""
        return await self._execute(operations.json_object("/v1/model"))

    async def model_info(self) -> ModelInfo:
        """See `Client.model_info`."""
        return await self._execute(operations.get("/v1/model", ModelInfo))

    async def change_model(self, name: str, precision: str | None = None) -> ModelInfo:
        """See `Client.change_model`."""
        return await self._execute(operations.change_model(name, precision))

    async def stream(self) -> dict[str, Any]:
        """See `Client.stream`."""
        return await self._execute(operations.json_object("/v1/stream"))

    async def stream_status(self) -> StreamStatus:
        """See `Client.stream_status`."""
        return await self._execute(operations.get("/v1/stream", StreamStatus))

    async def ready(self) -> ReadyResponse:
        """See `Client.ready`."""
        return await self._execute(operations.ready())

    def live(self, cam: CamMode = "none", *, reconnect: bool = True) -> AsyncLiveResults:
        """Return a subscription to results, which begins with ``async with``; see `AsyncLiveResults`."""
        return AsyncLiveResults(self.base_url, cam, self._api_key, reconnect=reconnect)

    def live_decisions(self, judged: bool = False, *, reconnect: bool = True) -> AsyncLiveDecisions:
        """Return a subscription to decisions, which begins with ``async with``; see `AsyncLiveDecisions`."""
        return AsyncLiveDecisions(self.base_url, judged, self._api_key, reconnect=reconnect)

    async def _execute(self, operation: Operation[_T]) -> _T:
        for attempts in itertools.count(1):
            outcome: operations.Outcome
            with operation.open_body() as body:
                try:
                    outcome = await self._http.request(
                        operation.method, operation.path, params=operation.params, **body
                    )
                except httpx.TransportError as error:
                    outcome = error
            pause_s = self._retries.pause_s(attempts, operation.method, outcome)
            if pause_s is None:
                break
            await asyncio.sleep(pause_s)
        if isinstance(outcome, httpx.TransportError):
            raise operations.unreachable_error(self.base_url, outcome) from outcome
        return operation.read_response(outcome)
