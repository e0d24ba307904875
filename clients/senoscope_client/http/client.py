"""The synchronous HTTP client: post stacks, and get results and the state of the service."""

from __future__ import annotations

import itertools
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, Unpack
from uuid import UUID

import httpx
import numpy.typing as npt

from senoscope_client.errors import Unreachable
from senoscope_client.http import operations
from senoscope_client.http.auth import authorization_header
from senoscope_client.http.live import LiveDecisions, LiveResults
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

__all__ = ["Client", "Filters", "Stack"]

# A refused connection is reported at once; only the response may take longer.
CONNECT_S = 10.0
_T = TypeVar("_T")


class Client:
    """A client for the service at one address; a context manager, to be used by one thread.

    Parameters
    ----------
    base_url : str
        Such as ``http://127.0.0.1:8750``.
    timeout : float
        In seconds, for each response. The response to a posted stack is sent when all of it is classified.
    api_key : str, optional
        Sent with each request; needed if the service requires one.
    retries : Retries
        How often failed requests are sent again, where that is safe.

    Raises
    ------
    ValueError
        If the address is not an HTTP address, or the key is not a valid key.
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
        self._http = httpx.Client(
            base_url=self.base_url,
            timeout=httpx.Timeout(timeout, connect=CONNECT_S),
            headers=authorization_header(api_key),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
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
        """Classify fields of view; assumptions of the service about the file are issued as `UserWarning`.

        Parameters
        ----------
        stack : path, bytes or ndarray
            A TIFF or NPY file, its content, or an array of shape (C, Y, X) or (N, C, Y, X) in raw
            detector units.
        cam : {"none", "grid", "png"}
            How much of the Grad-CAM map is returned.
        axes : str, optional
            The order of the stack's axes, such as ``PCYX``, if the file does not define it.
        channels : sequence of str, optional
            The names of its channels, in order, if the file does not define them.
        progress : callable, optional
            Called with the number of bytes of a file that were sent, and its size.

        Raises
        ------
        SenoscopeError
            The error that the service returns, see `senoscope_client.errors`; `Unreachable` if there is no
            response.
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
        """Classify fields of view as `classify` does, and return the warnings with the results."""
        return self._execute(operations.classify(stack, cam, axes, channels, progress))

    def results(
        self, *, limit: int = 100, cursor: int | None = None, **filters: Unpack[Filters]
    ) -> ResultsPage:
        """Get a page of the run log, newest first; `all_results` gets all pages.

        Parameters
        ----------
        limit : int
            Number of results, 1000 at most.
        cursor : int, optional
            ``next`` of the previous page.
        **filters
            See `Filters`.
        """
        return self._execute(operations.results(limit, cursor, filters))

    def all_results(self, **filters: Unpack[Filters]) -> Iterator[Result]:
        """Iterate over all results in the run log that match the filters, newest first."""
        page = self.results(limit=1000, **filters)
        yield from page.results
        while page.next is not None:
            page = self.results(limit=1000, cursor=page.next, **filters)
            yield from page.results

    def result(self, identifier: UUID | str, cam: CamMode = "none") -> Result:
        """Get one result, with the requested part of its Grad-CAM map."""
        return self._execute(operations.result(identifier, cam))

    def pixels(self, identifier: UUID | str) -> npt.NDArray[Any]:
        """Get the field of view that a result was made from.

        Returns
        -------
        ndarray, shape (C, H, W)
            In raw detector units.

        Raises
        ------
        SenoscopeError
            The error that the service returns: `NotFound` if it no longer holds the pixels.
        """
        return self._execute(operations.pixels(identifier))

    def export(
        self,
        path: str | os.PathLike[str],
        form: Literal["csv", "parquet"] = "csv",
        **filters: Unpack[Filters],
    ) -> None:
        """Write all results in the run log that match the filters to a file.

        Raises
        ------
        SenoscopeError
            The error that the service returns; the file is incomplete if the transfer had begun.
        OSError
            If the file cannot be written.
        """
        query = {**operations.filter_query(filters), "format": form}
        try:
            with self._http.stream("GET", "/v1/results/export", params=query) as response:
                if not response.is_success:
                    response.read()
                operations.require_success(response)
                with Path(path).open("wb") as file:
                    for piece in response.iter_bytes():
                        file.write(piece)
        except httpx.TransportError as error:
            raise Unreachable(f"the connection to {self.base_url} was lost: {error}") from error

    def series(self, limit: int = 100) -> list[SeriesSummary]:
        """Get the most recent series of the service, newest first."""
        return self._execute(operations.series(limit))

    def one_series(self, series_uid: UUID | str) -> SeriesSummary:
        """Get one series."""
        return self._execute(operations.one_series(series_uid))

    def decisions(
        self, series: UUID | str | None = None, *, limit: int = 100, cursor: int | None = None
    ) -> DecisionsPage:
        """Get a page of the decisions of the rules, newest first; for the parameters see `results`."""
        return self._execute(operations.decisions(series, limit, cursor))

    def model(self) -> dict[str, Any]:
        """Get the loaded ensemble, and the device that it runs on, as the JSON of the service."""
        return self._execute(operations.json_object("/v1/model"))

    def model_info(self) -> ModelInfo:
        """Get the loaded ensemble, and the device that it runs on."""
        return self._execute(operations.get("/v1/model", ModelInfo))

    def change_model(self, name: str, precision: str | None = None) -> ModelInfo:
        """Change to an ensemble of the service's models folder, and return when it is in use.

        Parameters
        ----------
        name : str
            Its folder; that of the ensemble in use, to change the precision alone.
        precision : {"auto", "fp32", "tf32", "fp16", "int8"}, optional
            Default: that of the service's settings. A precision that does not pass the gate is replaced by
            fp32: see ``engine.precision`` and ``engine.rejected`` of what is returned.

        Raises
        ------
        ModelRejected
            If the ensemble cannot be loaded; the one in use stays.
        """
        return self._execute(operations.change_model(name, precision))

    def stream(self) -> dict[str, Any]:
        """Get the state and the counters of the service's receiver, as the JSON of the service."""
        return self._execute(operations.json_object("/v1/stream"))

    def stream_status(self) -> StreamStatus:
        """Get the state and the counters of the service: its receiver, lanes, engine and outputs."""
        return self._execute(operations.get("/v1/stream", StreamStatus))

    def ready(self) -> ReadyResponse:
        """Get whether the service accepts work, and if not, why; raises only if it cannot be reached."""
        return self._execute(operations.ready())

    def live(self, cam: CamMode = "none", timeout_s: float | None = None) -> LiveResults:
        """Subscribe to all results that are made from this call on; see `LiveResults`."""
        return LiveResults(self.base_url, cam, timeout_s, self._api_key)

    def live_decisions(self, judged: bool = False, timeout_s: float | None = None) -> LiveDecisions:
        """Subscribe to all decisions that are made from this call on; see `LiveDecisions`."""
        return LiveDecisions(self.base_url, judged, timeout_s, self._api_key)

    def _execute(self, operation: Operation[_T]) -> _T:
        for attempts in itertools.count(1):
            outcome: operations.Outcome
            with operation.open_body() as body:
                try:
                    outcome = self._http.request(
                        operation.method, operation.path, params=operation.params, **body
                    )
                except httpx.TransportError as error:
                    outcome = error
            pause_s = self._retries.pause_s(attempts, operation.method, outcome)
            if pause_s is None:
                break
            time.sleep(pause_s)
        if isinstance(outcome, httpx.TransportError):
            raise operations.unreachable_error(self.base_url, outcome) from outcome
        return operation.read_response(outcome)
