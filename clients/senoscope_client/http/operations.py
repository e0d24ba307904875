"""What can be asked of the service: each question with its request and the meaning of its answer.

The clients, synchronous and asynchronous, differ only in how they send these.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Generic, Literal, TypedDict, TypeVar
from uuid import UUID

import httpx
import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from senoscope_client.errors import Busy, Problem, SenoscopeError, error_of
from senoscope_client.images import npy
from senoscope_client.images.image_files import NPY_SUFFIX, TIFF_SUFFIXES
from senoscope_client.models.responses import (
    ClassifyResponse,
    DecisionsPage,
    ReadyResponse,
    ResultsPage,
    SeriesResponse,
    SeriesSummary,
)
from senoscope_client.models.result import CamMode, Result, SourceKind
from senoscope_client.unreachable import Unreachable

_TIFF, _NPY, _UNKNOWN = "image/tiff", "application/x-npy", "application/octet-stream"
_SUFFIXES = dict.fromkeys(TIFF_SUFFIXES, _TIFF) | {NPY_SUFFIX: _NPY}
# How files begin: NPY, then TIFF and BigTIFF in either byte order.
_MAGIC = {b"\x93NUM": _NPY, b"II*\0": _TIFF, b"MM\0*": _TIFF, b"II+\0": _TIFF, b"MM\0+": _TIFF}

Stack = str | os.PathLike[str] | bytes | npt.NDArray[Any]
Progress = Callable[[int, int], None]
"""Told how many bytes of a file were sent, of how many."""
_T = TypeVar("_T")
Outcome = httpx.Response | httpx.TransportError


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


def _no_body() -> AbstractContextManager[dict[str, Any]]:
    return nullcontext({})


@dataclass(frozen=True)
class Ask(Generic[_T]):
    """A request, and how to read its answer.

    Attributes
    ----------
    read : callable
        Takes the answer; raises SenoscopeError where it is none.
    body : callable
        Opens what is sent, as arguments of httpx; anew each time that it is sent.
    """

    method: Literal["GET", "POST"]
    path: str
    read: Callable[[httpx.Response], _T]
    params: Mapping[str, Any] = field(default_factory=dict)
    body: Callable[[], AbstractContextManager[dict[str, Any]]] = _no_body


def classify(
    stack: Stack, cam: CamMode, axes: str | None, channels: Sequence[str] | None, progress: Progress | None
) -> Ask[ClassifyResponse]:
    """Have a stack classified."""
    wanted = {"cam": cam, "axes": axes, "channels": ",".join(channels) if channels else None}

    @contextmanager
    def form() -> Iterator[dict[str, Any]]:
        path = Path(stack)  # type: ignore[arg-type]
        with path.open("rb") as file:
            # As a form, because a raw body has no place for the file's name.
            sent = file if progress is None else _Told(file, progress)
            yield {"files": {"file": (path.name, sent, _SUFFIXES.get(path.suffix.lower(), _UNKNOWN))}}

    def raw() -> AbstractContextManager[dict[str, Any]]:
        body = stack if isinstance(stack, bytes) else _npy(stack)  # type: ignore[arg-type]
        kind = {"Content-Type": _MAGIC.get(body[:4], _UNKNOWN)}
        return nullcontext({"content": body, "headers": kind})

    return Ask(
        "POST",
        "/v1/classify",
        lambda response: ClassifyResponse.model_validate_json(checked(response).content),
        {name: value for name, value in wanted.items() if value is not None},
        form if isinstance(stack, str | os.PathLike) else raw,
    )


def results(limit: int, cursor: int | None, filters: Filters) -> Ask[ResultsPage]:
    """A page of the run log."""
    query = {**filter_query(filters), "limit": limit}
    if cursor is not None:
        query["cursor"] = cursor
    return Ask(
        "GET", "/v1/results", lambda r: ResultsPage.model_validate_json(checked(r).content), params=query
    )


def result(identifier: UUID | str, cam: CamMode) -> Ask[Result]:
    """One result."""
    path = f"/v1/results/{UUID(str(identifier))}"
    return Ask("GET", path, lambda r: Result.model_validate_json(checked(r).content), {"cam": cam})


def pixels(identifier: UUID | str) -> Ask[npt.NDArray[Any]]:
    """What one result was made from."""
    path = f"/v1/results/{UUID(str(identifier))}/pixels.npy"

    def read(response: httpx.Response) -> npt.NDArray[Any]:
        content = checked(response).content
        return npy.read_array(io.BytesIO(content), len(content), str(response.url)).copy()

    return Ask("GET", path, read)


def series(limit: int) -> Ask[list[SeriesSummary]]:
    """The series seen last."""
    return Ask(
        "GET",
        "/v1/series",
        lambda r: list(SeriesResponse.model_validate_json(checked(r).content).series),
        {"limit": limit},
    )


def one_series(series_uid: UUID | str) -> Ask[SeriesSummary]:
    """One series."""
    path = f"/v1/series/{UUID(str(series_uid))}"
    return Ask("GET", path, lambda r: SeriesSummary.model_validate_json(checked(r).content))


def decisions(series_uid: UUID | str | None, limit: int, cursor: int | None) -> Ask[DecisionsPage]:
    """A page of what the rules decided."""
    wanted = {"series": series_uid, "limit": limit, "cursor": cursor}
    query = {name: str(value) for name, value in wanted.items() if value is not None}
    return Ask("GET", "/v1/decisions", lambda r: DecisionsPage.model_validate_json(checked(r).content), query)


def ready() -> Ask[ReadyResponse]:
    """Whether the service takes work."""

    def read(response: httpx.Response) -> ReadyResponse:
        try:
            return ReadyResponse.model_validate_json(response.content)
        except ValidationError:
            checked(response)
            raise SenoscopeError(f"{response.url} is no Senoscope service") from None

    return Ask("GET", "/readyz", read)


def an_object(path: str) -> Ask[dict[str, Any]]:
    """Whatever JSON object the service has there."""

    def read(response: httpx.Response) -> dict[str, Any]:
        try:
            answer = checked(response).json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise SenoscopeError(f"{response.url} answered something else than a JSON object")
        return answer

    return Ask("GET", path, read)


def checked(response: httpx.Response) -> httpx.Response:
    """The response, if it is a good one.

    Raises
    ------
    SenoscopeError
        As the service's problem document tells.
    """
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


def unreachable(base_url: str, error: httpx.TransportError) -> Unreachable:
    """What it means that there is no response."""
    if isinstance(error, httpx.TimeoutException):
        return Unreachable(f"{base_url} did not answer in time")
    return Unreachable(f"{base_url} cannot be reached: {error}. Is the service running?")


def checked_url(base_url: str) -> str:
    """The address without a slash at its end.

    Raises
    ------
    ValueError
        If it is not one of HTTP.
    """
    if not re.match(r"https?://[^/]", base_url):
        raise ValueError(f"{base_url!r} is not an http:// or https:// address")
    return base_url.rstrip("/")


def filter_query(filters: Filters) -> dict[str, Any]:
    """Filters as the service takes them."""
    names = {"since": "from", "until": "to"}
    return {
        names.get(name, name): value.isoformat() if isinstance(value, datetime) else str(value)
        for name, value in filters.items()
    }


class _Told:
    """A file that tells how much of it was read."""

    def __init__(self, file: BinaryIO, progress: Progress) -> None:
        self._file = file
        self._progress = progress
        self._size = os.fstat(file.fileno()).st_size

    def read(self, size: int = -1) -> bytes:
        """Read, and tell where that led to."""
        data = self._file.read(size)
        self._progress(self._file.tell(), self._size)
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _npy(array: npt.NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()
