"""Bodies of requests: bounded in size, kept off the disk while small, raw or multipart."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import IO, BinaryIO, TypeVar, cast

import structlog
from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from senoscope.api.compression import Unpacker, file_coding
from senoscope.api.problems import problem_response, told_faults
from senoscope.scheduling.memory_budget import MemoryShare
from senoscope_client.errors import (
    InsufficientStorage,
    InvalidRequest,
    PayloadTooLarge,
    RequestTimeout,
    SenoscopeError,
    UnsupportedMediaType,
)
from senoscope_client.images.sanitize import sanitize_for_display

_log = structlog.get_logger(__name__)
_MIB = 1024 * 1024
_IN_MEMORY = 16 * _MIB
_LINGER_S = 1.0
_PROGRESS = 64 * 1024
_MAX_JSON = 64 * 1024

M = TypeVar("M", bound=BaseModel)


class Linger:
    """ASGI middleware that lets clients get an answer given before their body was read to its end.

    It reads on for a short time and throws away: closing on a client that still sends would reset the
    connection, and the client would lose the answer.

    Parameters
    ----------
    app : ASGI application
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        unread = _has_body(scope)

        async def noting_receive() -> Message:
            nonlocal unread
            message = await receive()
            unread = unread and message.get("more_body", False)
            return message

        async def lingering_send(message: Message) -> None:
            nonlocal unread
            if not (unread and message["type"] == "http.response.body" and not message.get("more_body")):
                await send(message)
                return
            await send({**message, "more_body": True})
            unread = False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LINGER_S):
                    while (await receive()).get("more_body", False):
                        pass
            await send({"type": "http.response.body", "body": b""})

        await self._app(scope, noting_receive, lingering_send)


class BodyLimit:
    """ASGI middleware that refuses bodies that are too large or come too slowly.

    A body over the limit is refused before it is read where it declares its size. Time counts only while
    the application waits for the client.

    Parameters
    ----------
    app : ASGI application
    max_bytes : int
    timeout_s : float
        That each 64 KiB may take, so that trickling byte by byte is no way around it.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, timeout_s: float) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        unread = _has_body(scope)
        received = marked = 0
        left_s = self._timeout_s

        async def limited_receive() -> Message:
            nonlocal received, marked, unread, left_s
            if not unread:  # what comes now is only that the client leaves
                return await receive()
            began_s = time.monotonic()
            try:
                async with asyncio.timeout(left_s):
                    message = await receive()
            except TimeoutError:
                raise RequestTimeout(
                    f"the body comes too slowly: {_PROGRESS // 1024} KiB may take {self._timeout_s:g} s "
                    "(--body-timeout-s)"
                ) from None
            left_s -= time.monotonic() - began_s
            unread = message.get("more_body", False)
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise self._error("larger")
            if received - marked >= _PROGRESS:
                marked, left_s = received, self._timeout_s
            return message

        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._max_bytes:
            answer = problem_response(self._error(f"{int(declared) / _MIB:.0f} MiB"), scope["path"])
            await answer(scope, receive, send)
        else:
            await self._app(scope, limited_receive, send)

    def _error(self, size: str) -> PayloadTooLarge:
        return PayloadTooLarge(
            f"the body is {size}; at most {self._max_bytes // _MIB} MiB are taken (--max-upload-mib). "
            "Split the stack into several requests"
        )


def _has_body(scope: Scope) -> bool:
    headers = dict(scope["headers"])
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"


async def json_of(request: Request, model: type[M]) -> M:
    """The small JSON document that is a request's body.

    Raises
    ------
    InvalidRequest
        If it is no JSON, or not of that model.
    PayloadTooLarge
        If it is longer than any that could be meant: parsed, it would take many times its length.
    UnsupportedMediaType
        If it is not declared as JSON, as no form of a foreign page can be.
    """
    if media_type_of(request) != "application/json":
        raise UnsupportedMediaType("send the body as JSON, with Content-Type: application/json")
    text = bytearray()
    async for chunk in request.stream():
        text += chunk
        if len(text) > _MAX_JSON:
            raise PayloadTooLarge(f"the body is longer than {_MAX_JSON // 1024} KiB of JSON")
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise InvalidRequest(told_faults(error.errors(), "the body")) from None


def media_type_of(request: Request) -> str | None:
    """What a body is declared as, without parameters; None if nothing is declared."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() or None


@dataclass(frozen=True)
class Upload:
    """A posted file.

    Attributes
    ----------
    file : BinaryIO
        At its start.
    name : str or None
        As the client calls it; shown, never opened.
    media_type : str or None
        As the client declares it.
    as_form : bool
        Whether it came as the value of a form, as curl sends what it is given with ``-d``: without line ends.
    """

    file: BinaryIO
    name: str | None
    media_type: str | None
    as_form: bool = False

    def explained(self, error: SenoscopeError) -> SenoscopeError:
        """An error of reading the file, with what its sender can have done wrong."""
        if not self.as_form or self._has_line_ends():
            return error
        return type(error)(
            f"{error.detail}. `curl -d` removes line ends, which damages files: send it with "
            "`curl --data-binary @FILE`"
        )

    def _has_line_ends(self) -> bool:
        self.file.seek(0)
        pieces = iter(lambda: self.file.read(_MIB), b"")
        return any(b"\n" in piece or b"\r" in piece for piece in pieces)


async def _fill(file: IO[bytes], request: Request, share: MemoryShare, unpacker: Unpacker | None) -> None:
    """Write the body to a file and rewind it; off the event loop, since a disk takes its time."""
    in_memory = 0

    def write(packed: bytes) -> None:
        nonlocal in_memory
        for piece in unpacker.feed(packed) if unpacker is not None else (packed,):
            if in_memory < _IN_MEMORY:
                share.reserve(len(piece))
                in_memory += len(piece)
            file.write(piece)

    waiting = bytearray()
    async for chunk in request.stream():
        waiting += chunk
        if len(waiting) >= _MIB:
            await run_in_threadpool(write, bytes(waiting))
            waiting.clear()
    await run_in_threadpool(write, bytes(waiting))
    if unpacker is not None:
        unpacker.finish()
    file.seek(0)


@contextlib.contextmanager
def _storing() -> Iterator[None]:
    """Report a disk that cannot hold a body; small bodies never get there."""
    try:
        yield
    except OSError as error:
        _log.error("a body cannot be stored", folder=tempfile.gettempdir(), reason=str(error))
        raise InsufficientStorage(
            f"the service cannot store bodies of more than {_IN_MEMORY // _MIB} MiB at present "
            f"({error.strerror or type(error).__name__}); send smaller ones, and see to its folder for "
            "temporary files"
        ) from error


@asynccontextmanager
async def _closing(form: FormData) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await form.close()


@asynccontextmanager
async def upload_of(
    request: Request, share: MemoryShare, max_unpacked: Callable[[int], int]
) -> AsyncIterator[Upload]:
    """The file in a request, either the raw body or the one ``file`` field of a multipart form.

    Parameters
    ----------
    share : MemoryShare
        Of the request, for what is kept in memory.
    max_unpacked : callable
        Returns how many bytes a body of so many packed bytes may unpack to.

    Raises
    ------
    InvalidRequest
        If a form is malformed, or holds another number of files than one.
    PayloadTooLarge
        If the body exceeds the limit, packed or not.
    InsufficientStorage
        If it cannot be stored.
    UnsupportedMediaType
        If the body is packed in a way that is not known, or a form is packed.
    """
    media_type = media_type_of(request)
    coding = file_coding(request.headers.get("content-encoding"))
    if media_type == "multipart/form-data":
        if coding is not None:
            raise UnsupportedMediaType("a form cannot be packed; send the packed file as the body")
        try:
            with _storing():
                form = await request.form(max_files=1, max_fields=8)
            async with _closing(form):
                files = [value for value in form.values() if isinstance(value, UploadFile)]
                if len(files) != 1:
                    raise InvalidRequest(
                        "the form holds no file; send exactly one, as `curl -F file=@stack.tif` does"
                    )
                extra = [key for key, value in form.multi_items() if not isinstance(value, UploadFile)]
                if extra:
                    raise InvalidRequest(
                        f"the form has a field {extra[0][:40]!r} beside the file: give parameters in the "
                        f"address, as in /v1/classify?{extra[0][:40]}=..."
                    )
                name = (files[0].filename or "").replace("\\", "/").rpartition("/")[2]
                yield Upload(files[0].file, sanitize_for_display(name, 255) or None, files[0].content_type)
        except HTTPException as error:
            raise InvalidRequest(f"the form cannot be read: {error.detail}") from error
        return
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as file:
        with _storing():
            await _fill(file, request, share, None if coding is None else Unpacker(coding, max_unpacked))
        # What curl declares where nobody told it otherwise says nothing about the file.
        as_form = media_type == "application/x-www-form-urlencoded"
        yield Upload(cast(BinaryIO, file), None, None if as_form else media_type, as_form)
