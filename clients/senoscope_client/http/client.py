"""The service over HTTP: post stacks, ask for results and for its state."""

from __future__ import annotations

import itertools
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, Unpack
from uuid import UUID

import httpx
import numpy.typing as npt

from senoscope_client.http import operations as asks
from senoscope_client.http.auth import authorization
from senoscope_client.http.live import LiveDecisions, LiveResults
from senoscope_client.http.operations import Ask, Filters, Progress, Stack
from senoscope_client.http.retries import Retries
from senoscope_client.models.responses import (
    ClassifyResponse,
    DecisionsPage,
    ReadyResponse,
    ResultsPage,
    SeriesSummary,
)
from senoscope_client.models.result import CamMode, Result
from senoscope_client.unreachable import Unreachable

__all__ = ["Client", "Filters", "Stack"]

# Where nothing listens, that is known at once; only the answer may take its time.
CONNECT_S = 10.0
_T = TypeVar("_T")


class Client:
    """The service at one address; a context manager, and one per thread.

    Parameters
    ----------
    base_url : str
        Such as ``http://127.0.0.1:8750``.
    timeout : float
        In seconds, for each answer. A posted stack is answered when all of it is done.
    api_key : str, optional
        Sent with each request; needed where the service asks for one.
    retries : Retries
        How often what failed is sent again, where that is safe.

    Raises
    ------
    ValueError
        If the address is not one of HTTP, or the key cannot be one.
    """

    def __init__(
        self,
        base_url: str,
        timeout: float = 300.0,
        api_key: str | None = None,
        *,
        retries: Retries = Retries(),  # noqa: B008 - it is frozen
    ) -> None:
        self.base_url = asks.checked_url(base_url)
        self._api_key = api_key
        self._retries = retries
        self._http = httpx.Client(
            base_url=self.base_url,
            timeout=httpx.Timeout(timeout, connect=CONNECT_S),
            headers=authorization(api_key),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def classify(
        self,
        stack: Stack,
        cam: CamMode = "none",
        axes: str | None = None,
        channels: Sequence[str] | None = None,
        progress: Progress | None = None,
    ) -> list[Result]:
        """Classify fields of view; what the service assumed about the file is told as `UserWarning`.

        Parameters
        ----------
        stack : path, bytes or ndarray
            A TIFF or NPY file, its content, or an array of shape (C, Y, X) or (N, C, Y, X) in raw
            detector units.
        cam : {"none", "grid", "png"}
            How much of the Grad-CAM map comes along.
        axes : str, optional
            The order of the stack's axes, such as ``PCYX``, where the file does not tell.
        channels : sequence of str, optional
            The names of its channels, in order, where the file does not tell.
        progress : callable, optional
            Told how many bytes of a file were sent, of how many.

        Raises
        ------
        SenoscopeError
            As the service answers, see `senoscope_client.errors`; `Unreachable` if it does not.
        OSError
            If the file cannot be read.
        """
        response = self.classify_stack(stack, cam, axes, channels, progress)
        for text in response.warnings:
            warnings.warn(text, stacklevel=2)
        return list(response.results)

    def classify_stack(
        self,
        stack: Stack,
        cam: CamMode = "none",
        axes: str | None = None,
        channels: Sequence[str] | None = None,
        progress: Progress | None = None,
    ) -> ClassifyResponse:
        """As `classify`, with the service's warnings in the answer."""
        return self._do(asks.classify(stack, cam, axes, channels, progress))

    def results(
        self, *, limit: int = 100, cursor: int | None = None, **filters: Unpack[Filters]
    ) -> ResultsPage:
        """A page of the run log, newest first; `all_results` turns the pages by itself.

        Parameters
        ----------
        limit : int
            How many, 1000 at most.
        cursor : int, optional
            ``next`` of the page before.
        **filters
            See `Filters`.
        """
        return self._do(asks.results(limit, cursor, filters))

    def all_results(self, **filters: Unpack[Filters]) -> Iterator[Result]:
        """Every result in the run log that matches, newest first."""
        page = self.results(limit=1000, **filters)
        yield from page.results
        while page.next is not None:
            page = self.results(limit=1000, cursor=page.next, **filters)
            yield from page.results

    def result(self, identifier: UUID | str, cam: CamMode = "none") -> Result:
        """One result, with as much of its Grad-CAM map as asked for."""
        return self._do(asks.result(identifier, cam))

    def pixels(self, identifier: UUID | str) -> npt.NDArray[Any]:
        """The field of view that a result was made from.

        Returns
        -------
        ndarray, shape (C, H, W)
            In raw detector units.

        Raises
        ------
        SenoscopeError
            As the service answers: `NotFound` once it no longer remembers the pixels.
        """
        return self._do(asks.pixels(identifier))

    def export(
        self,
        path: str | os.PathLike[str],
        form: Literal["csv", "parquet"] = "csv",
        **filters: Unpack[Filters],
    ) -> None:
        """Write every result in the run log that matches to a file.

        Raises
        ------
        SenoscopeError
            As the service answers; a file that was begun is then left unfinished.
        OSError
            If the file cannot be written.
        """
        query = {**asks.filter_query(filters), "format": form}
        try:
            with self._http.stream("GET", "/v1/results/export", params=query) as response:
                if not response.is_success:
                    response.read()
                asks.checked(response)
                with Path(path).open("wb") as file:
                    for piece in response.iter_bytes():
                        file.write(piece)
        except httpx.TransportError as error:
            raise Unreachable(f"{self.base_url} broke off: {error}") from error

    def series(self, limit: int = 100) -> list[SeriesSummary]:
        """The series that the service saw last, newest first."""
        return self._do(asks.series(limit))

    def one_series(self, series_uid: UUID | str) -> SeriesSummary:
        """One series."""
        return self._do(asks.one_series(series_uid))

    def decisions(
        self, series: UUID | str | None = None, *, limit: int = 100, cursor: int | None = None
    ) -> DecisionsPage:
        """A page of what the rules decided, newest first; the arguments are as of `results`."""
        return self._do(asks.decisions(series, limit, cursor))

    def model(self) -> dict[str, Any]:
        """The ensemble that is loaded, and the device that it runs on."""
        return self._do(asks.an_object("/v1/model"))

    def stream(self) -> dict[str, Any]:
        """The state and the counters of the service's receiver."""
        return self._do(asks.an_object("/v1/stream"))

    def ready(self) -> ReadyResponse:
        """Whether the service takes work, and if not, why; raises only if it cannot be asked."""
        return self._do(asks.ready())

    def live(self, cam: CamMode = "none", timeout_s: float | None = None) -> LiveResults:
        """Every result as it is made, from this call on; see `LiveResults`."""
        return LiveResults(self.base_url, cam, timeout_s, self._api_key)

    def live_decisions(self, judged: bool = False, timeout_s: float | None = None) -> LiveDecisions:
        """Every decision as it is made, from this call on; see `LiveDecisions`."""
        return LiveDecisions(self.base_url, judged, timeout_s, self._api_key)

    def _do(self, ask: Ask[_T]) -> _T:
        for sent in itertools.count(1):
            outcome: asks.Outcome
            with ask.body() as body:
                try:
                    outcome = self._http.request(ask.method, ask.path, params=ask.params, **body)
                except httpx.TransportError as error:
                    outcome = error
            pause_s = self._retries.pause_s(sent, ask.method, outcome)
            if pause_s is None:
                break
            time.sleep(pause_s)
        if isinstance(outcome, httpx.TransportError):
            raise asks.unreachable(self.base_url, outcome) from outcome
        return ask.read(outcome)
