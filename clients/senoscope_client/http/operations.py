"""The operations of the service's HTTP API: the request of each, and how its response is read.

The synchronous and the asynchronous client differ only in how they send these requests.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Generic, Literal, TypedDict, TypeVar
from uuid import UUID

import httpx
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, TypeAdapter, ValidationError

from senoscope_client.errors import Busy, Problem, SenoscopeError, Unreachable, error_from_problem
from senoscope_client.images import npy
from senoscope_client.images.image_files import NPY_MAGIC, NPY_SUFFIX, TIFF_MAGIC, TIFF_SUFFIXES
from senoscope_client.models.responses import (
    ClassifyResponse,
    DecisionsPage,
    ReadyResponse,
    ResultsPage,
    SeriesResponse,
    SeriesSummary,
)
from senoscope_client.models.result import CamMode, Result, SourceKind
from senoscope_client.models.status import ModelInfo

_TIFF, _NPY, _UNKNOWN = "image/tiff", "application/x-npy", "application/octet-stream"
_SUFFIXES = dict.fromkeys(TIFF_SUFFIXES, _TIFF) | {NPY_SUFFIX: _NPY}

Stack = str | os.PathLike[str] | bytes | npt.NDArray[Any]
Progress = Callable[[int, int], None]
"""Called with the number of bytes of a file that were sent, and its size."""
_T = TypeVar("_T")
_M = TypeVar("_M", bound=BaseModel)
Outcome = httpx.Response | httpx.TransportError


class Filters(TypedDict, total=False):
    """Selects results of the run log; a filter that is left out selects all.

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


@dataclass(frozen=True)
class Operation(Generic[_T]):
    """A request, and how its response is read.

    Attributes
    ----------
    read_response : callable
        Returns the content of a response; raises SenoscopeError if the response is an error or invalid.
    open_body : callable
        Returns a context manager with the body as arguments of httpx; called for each attempt to send it.
    """

    method: Literal["GET", "POST"]
    path: str
    read_response: Callable[[httpx.Response], _T]
    params: Mapping[str, Any] = field(default_factory=dict)
    open_body: Callable[[], AbstractContextManager[dict[str, Any]]] = lambda: nullcontext({})


def classify(
    stack: Stack, cam: CamMode, axes: str | None, channels: Sequence[str] | None, progress: Progress | None
) -> Operation[ClassifyResponse]:
    """Classify a stack."""
    wanted = {"cam": cam, "axes": axes, "channels": ",".join(channels) if channels else None}

    @contextmanager
    def form() -> Iterator[dict[str, Any]]:
        path = Path(stack)  # type: ignore[arg-type]
        with path.open("rb") as file:
            # Sent as a form, because a raw body cannot carry the file's name.
            sent = file if progress is None else _ProgressFile(file, progress)
            yield {"files": {"file": (path.name, sent, _SUFFIXES.get(path.suffix.lower(), _UNKNOWN))}}

    def raw() -> AbstractContextManager[dict[str, Any]]:
        body = stack if isinstance(stack, bytes) else _npy_bytes(stack)  # type: ignore[arg-type]
        kind = _NPY if body.startswith(NPY_MAGIC) else _TIFF if body.startswith(TIFF_MAGIC) else _UNKNOWN
        return nullcontext({"content": body, "headers": {"Content-Type": kind}})

    return Operation(
        "POST",
        "/v1/classify",
        partial(_parse, ClassifyResponse.model_validate_json),
        _without_none(wanted),
        form if isinstance(stack, str | os.PathLike) else raw,
    )


def get(path: str, model: type[_M], **params: Any) -> Operation[_M]:
    """Get a document; parameters that are None are left out."""
    return Operation("GET", path, partial(_parse, model.model_validate_json), _without_none(params))


def results(limit: int, cursor: int | None, filters: Filters) -> Operation[ResultsPage]:
    """Get a page of the run log."""
    return get("/v1/results", ResultsPage, limit=limit, cursor=cursor, **filter_query(filters))


def result(identifier: UUID | str, cam: CamMode) -> Operation[Result]:
    """Get one result."""
    return get(f"/v1/results/{UUID(str(identifier))}", Result, cam=cam)


def pixels(identifier: UUID | str) -> Operation[npt.NDArray[Any]]:
    """Get the pixels that one result was made from."""
    path = f"/v1/results/{UUID(str(identifier))}/pixels.npy"

    def read(response: httpx.Response) -> npt.NDArray[Any]:
        content = require_success(response).content
        return npy.read_array(io.BytesIO(content), len(content), str(response.url)).copy()

    return Operation("GET", path, read)


def series(limit: int) -> Operation[list[SeriesSummary]]:
    """Get the most recent series."""
    parse = SeriesResponse.model_validate_json
    return Operation("GET", "/v1/series", lambda r: list(_parse(parse, r).series), {"limit": limit})


def one_series(series_uid: UUID | str) -> Operation[SeriesSummary]:
    """Get one series."""
    return get(f"/v1/series/{UUID(str(series_uid))}", SeriesSummary)


def decisions(series_uid: UUID | str | None, limit: int, cursor: int | None) -> Operation[DecisionsPage]:
    """Get a page of the decisions of the rules."""
    uid = None if series_uid is None else str(series_uid)
    return get("/v1/decisions", DecisionsPage, series=uid, limit=limit, cursor=cursor)


def change_model(name: str, precision: str | None) -> Operation[ModelInfo]:
    """Change the ensemble in use."""
    body = _without_none({"name": name, "precision": precision})
    parse = partial(_parse, ModelInfo.model_validate_json)
    return Operation("POST", "/v1/model", parse, open_body=lambda: nullcontext({"json": body}))


def ready() -> Operation[ReadyResponse]:
    """Get whether the service accepts work."""

    def read(response: httpx.Response) -> ReadyResponse:
        try:
            return ReadyResponse.model_validate_json(response.content)
        except ValidationError:
            require_success(response)
            raise SenoscopeError(f"{response.url} is not a Senoscope service") from None

    return Operation("GET", "/readyz", read)


def json_object(path: str) -> Operation[dict[str, Any]]:
    """Get the JSON object at a path."""
    return Operation("GET", path, lambda r: _parse(TypeAdapter(dict[str, Any]).validate_json, r))


def _parse(parse: Callable[[bytes], _T], response: httpx.Response) -> _T:
    try:
        return parse(require_success(response).content)
    except ValidationError as error:
        raise SenoscopeError(
            f"{response.url} returned JSON of another form, or no JSON; is it a Senoscope service?"
        ) from error


def _without_none(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}


def require_success(response: httpx.Response) -> httpx.Response:
    """Return the response if its status is a success.

    Raises
    ------
    SenoscopeError
        The error that the service's problem document describes.
    """
    if response.is_success:
        return response
    try:
        error = error_from_problem(Problem.model_validate_json(response.content))
    except ValidationError:
        raise SenoscopeError(
            f"{response.url} returned status {response.status_code} {response.reason_phrase}"
        ) from None
    if isinstance(error, Busy):
        after = response.headers.get("Retry-After", "")
        error.retry_after_s = float(after) if after.isascii() and after.isdigit() else error.retry_after_s
    raise error


def unreachable_error(base_url: str, error: httpx.TransportError) -> Unreachable:
    """Return the error to raise if a request has no response."""
    if isinstance(error, httpx.TimeoutException):
        return Unreachable(f"{base_url} did not respond in time")
    return Unreachable(f"{base_url} cannot be reached: {error}. Is the service running?")


def validate_base_url(base_url: str) -> str:
    """Return the address of a service without a trailing slash.

    Raises
    ------
    ValueError
        If it is not an HTTP address.
    """
    if not re.match(r"https?://[^/]", base_url):
        raise ValueError(f"{base_url!r} is not an http:// or https:// address")
    return base_url.rstrip("/")


def filter_query(filters: Filters) -> dict[str, Any]:
    """Return filters as query parameters of the service."""
    names = {"since": "from", "until": "to"}
    return {
        names.get(name, name): value.isoformat() if isinstance(value, datetime) else str(value)
        for name, value in filters.items()
    }


class _ProgressFile:
    """A file that reports how much of it was read."""

    def __init__(self, file: BinaryIO, progress: Progress) -> None:
        self._file = file
        self._progress = progress
        self._size = os.fstat(file.fileno()).st_size

    def read(self, size: int = -1) -> bytes:
        """Read from the file, and report the new position."""
        data = self._file.read(size)
        self._progress(self._file.tell(), self._size)
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _npy_bytes(array: npt.NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()
