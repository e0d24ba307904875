"""The service over HTTP: post stacks, ask for results and for its state."""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypedDict, Unpack
from uuid import UUID

import httpx
import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from senoscope_client.errors import Busy, Problem, SenoscopeError, error_of
from senoscope_client.keys import authorization
from senoscope_client.live import LiveDecisions, LiveResults
from senoscope_client.responses import (
    ClassifyResponse,
    DecisionsPage,
    ReadyResponse,
    ResultsPage,
    SeriesResponse,
    SeriesSummary,
)
from senoscope_client.result import CamMode, Result, SourceKind
from senoscope_client.unreachable import Unreachable

_TIFF, _NPY, _UNKNOWN = "image/tiff", "application/x-npy", "application/octet-stream"
_SUFFIXES = {".tif": _TIFF, ".tiff": _TIFF, ".btf": _TIFF, ".npy": _NPY}
# How files begin: NPY, then TIFF and BigTIFF in either byte order.
_MAGIC = {b"\x93NUM": _NPY, b"II*\0": _TIFF, b"MM\0*": _TIFF, b"II+\0": _TIFF, b"MM\0+": _TIFF}

Stack = str | os.PathLike[str] | bytes | npt.NDArray[Any]


class Filters(TypedDict, total=False):
    """Which results of the run log; what is left out does not matter.

    Attributes
    ----------
    series : UUID or str
        Of one series.
    label, kind : str
    since, until : datetime
        Made at ``since`` or later, before ``until``; without a time zone they are UTC.
    min_probability, max_probability : float
        Both included.
    """

    series: UUID | str
    label: str
    kind: SourceKind
    since: datetime
    until: datetime
    min_probability: float
    max_probability: float


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

    Raises
    ------
    ValueError
        If the address is not one of HTTP, or the key cannot be one.
    """

    def __init__(self, base_url: str, timeout: float = 300.0, api_key: str | None = None) -> None:
        if not re.match(r"https?://[^/]", base_url):
            raise ValueError(f"{base_url!r} is not an http:// or https:// address")
        self.base_url = base_url.rstrip("/")
        # Where nothing listens, that is known at once; only the answer may take its time.
        self._api_key = api_key
        self._http = httpx.Client(
            base_url=self.base_url,
            timeout=httpx.Timeout(timeout, connect=10.0),
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

        Raises
        ------
        SenoscopeError
            As the service answers, see `senoscope_client.errors`; `Unreachable` if it does not.
        OSError
            If the file cannot be read.
        """
        response = self.classify_stack(stack, cam, axes, channels)
        for text in response.warnings:
            warnings.warn(text, stacklevel=2)
        return list(response.results)

    def classify_stack(
        self,
        stack: Stack,
        cam: CamMode = "none",
        axes: str | None = None,
        channels: Sequence[str] | None = None,
    ) -> ClassifyResponse:
        """As `classify`, with the service's warnings in the answer."""
        wanted = {"cam": cam, "axes": axes, "channels": ",".join(channels) if channels else None}
        query = {name: value for name, value in wanted.items() if value is not None}
        if isinstance(stack, str | os.PathLike):
            path = Path(stack)
            with path.open("rb") as file:
                # As a form, because a raw body has no place for the file's name.
                form = {"file": (path.name, file, _SUFFIXES.get(path.suffix.lower(), _UNKNOWN))}
                response = self._request("POST", "/v1/classify", params=query, files=form)
        else:
            body = stack if isinstance(stack, bytes) else _npy(stack)
            kind = {"Content-Type": _MAGIC.get(body[:4], _UNKNOWN)}
            response = self._request("POST", "/v1/classify", params=query, content=body, headers=kind)
        return ClassifyResponse.model_validate_json(self._checked(response).content)

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
        query = {**_query(filters), "limit": limit}
        if cursor is not None:
            query["cursor"] = cursor
        response = self._checked(self._request("GET", "/v1/results", params=query))
        return ResultsPage.model_validate_json(response.content)

    def all_results(self, **filters: Unpack[Filters]) -> Iterator[Result]:
        """Every result in the run log that matches, newest first."""
        page = self.results(limit=1000, **filters)
        yield from page.results
        while page.next is not None:
            page = self.results(limit=1000, cursor=page.next, **filters)
            yield from page.results

    def result(self, identifier: UUID | str, cam: CamMode = "none") -> Result:
        """One result, with as much of its Grad-CAM map as asked for."""
        path = f"/v1/results/{UUID(str(identifier))}"
        response = self._checked(self._request("GET", path, params={"cam": cam}))
        return Result.model_validate_json(response.content)

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
        query = {**_query(filters), "format": form}
        try:
            with self._http.stream("GET", "/v1/results/export", params=query) as response:
                if not response.is_success:
                    response.read()
                self._checked(response)
                with Path(path).open("wb") as file:
                    for piece in response.iter_bytes():
                        file.write(piece)
        except httpx.TransportError as error:
            raise Unreachable(f"{self.base_url} broke off: {error}") from error

    def series(self, limit: int = 100) -> list[SeriesSummary]:
        """The series that the service saw last, newest first."""
        response = self._checked(self._request("GET", "/v1/series", params={"limit": limit}))
        return list(SeriesResponse.model_validate_json(response.content).series)

    def one_series(self, series_uid: UUID | str) -> SeriesSummary:
        """One series."""
        response = self._checked(self._request("GET", f"/v1/series/{UUID(str(series_uid))}"))
        return SeriesSummary.model_validate_json(response.content)

    def decisions(
        self, series: UUID | str | None = None, *, limit: int = 100, cursor: int | None = None
    ) -> DecisionsPage:
        """A page of what the rules decided, newest first; the arguments are as of `results`."""
        wanted = {"series": series, "limit": limit, "cursor": cursor}
        query = {name: str(value) for name, value in wanted.items() if value is not None}
        response = self._checked(self._request("GET", "/v1/decisions", params=query))
        return DecisionsPage.model_validate_json(response.content)

    def model(self) -> dict[str, Any]:
        """The ensemble that is loaded, and the device that it runs on."""
        return self._object("/v1/model")

    def stream(self) -> dict[str, Any]:
        """The state and the counters of the service's receiver."""
        return self._object("/v1/stream")

    def ready(self) -> ReadyResponse:
        """Whether the service takes work, and if not, why; raises only if it cannot be asked."""
        response = self._request("GET", "/readyz")
        try:
            return ReadyResponse.model_validate_json(response.content)
        except ValidationError:
            self._checked(response)
            raise SenoscopeError(f"{self.base_url} is no Senoscope service") from None

    def live(self, cam: CamMode = "none", timeout_s: float | None = None) -> LiveResults:
        """Every result as it is made, from this call on; see `LiveResults`."""
        return LiveResults(self.base_url, cam, timeout_s, self._api_key)

    def live_decisions(self, judged: bool = False, timeout_s: float | None = None) -> LiveDecisions:
        """Every decision as it is made, from this call on; see `LiveDecisions`."""
        return LiveDecisions(self.base_url, judged, timeout_s, self._api_key)

    def _object(self, path: str) -> dict[str, Any]:
        response = self._checked(self._request("GET", path))
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise SenoscopeError(f"{self.base_url}{path} answered something else than a JSON object")
        return answer

    def _request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **arguments)
        except httpx.TimeoutException as error:
            raise Unreachable(f"{self.base_url} did not answer in time") from error
        except httpx.TransportError as error:
            raise Unreachable(
                f"{self.base_url} cannot be reached: {error}. Is the service running?"
            ) from error

    def _checked(self, response: httpx.Response) -> httpx.Response:
        if response.is_success:
            return response
        try:
            error = error_of(Problem.model_validate_json(response.content))
        except ValidationError:
            raise SenoscopeError(
                f"{response.url} answered {response.status_code} {response.reason_phrase}"
            ) from None
        if isinstance(error, Busy):
            after = response.headers.get("Retry-After", "")
            error.retry_after_s = float(after) if after.isascii() and after.isdigit() else error.retry_after_s
        raise error


def _query(filters: Filters) -> dict[str, Any]:
    names = {"since": "from", "until": "to"}
    return {
        names.get(name, name): value.isoformat() if isinstance(value, datetime) else str(value)
        for name, value in filters.items()
    }


def _npy(array: npt.NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()
