"""Bodies of requests: limited in size and time; raw or multipart, and in memory while they are small."""

from __future__ import annotations

import asyncio
import contextlib
import io
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import BinaryIO, TypeVar, cast

import structlog
from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from senoscope.api.compression import Decompressor, content_coding
from senoscope.api.problems import describe_validation_errors
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
_MAX_IN_MEMORY_BYTES = 16 * _MIB
_LINGER_S = 1.0
_PROGRESS_BYTES = 64 * 1024
_MAX_JSON_BYTES = 64 * 1024
_NPY = b"\x93NUMPY"

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class BodyLimit:
    """ASGI middleware that refuses bodies that are too large or arrive too slowly.

    A body that declares a size over the limit is refused before it is read. Time counts only while the
    application waits for the client. The rest of a body that the application did not read to its end is read
    and discarded for a short time.

    Attributes
    ----------
    timeout_s : float
        That each 64 KiB may take, so that a client cannot avoid the limit by sending single bytes.
    """

    app: ASGIApp
    max_bytes: int
    timeout_s: float

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        declared = headers.get(b"content-length", b"0")
        unread = b"transfer-encoding" in headers or declared != b"0"
        received = marked = 0
        left_s = self.timeout_s

        async def limited_receive() -> Message:
            nonlocal received, marked, unread, left_s
            if not unread:  # the only message that can follow is that the client disconnected
                return await receive()
            if declared.isdigit() and int(declared) > self.max_bytes:
                raise self._error(f"{int(declared) / _MIB:.0f} MiB")
            began_s = time.monotonic()
            try:
                async with asyncio.timeout(left_s):
                    message = await receive()
            except TimeoutError:
                raise RequestTimeout(
                    f"the body arrives too slowly: {_PROGRESS_BYTES // 1024} KiB may take "
                    f"{self.timeout_s:g} s (--body-timeout-s)"
                ) from None
            left_s -= time.monotonic() - began_s
            unread = message.get("more_body", False)
            received += len(message.get("body", b""))
            if received > self.max_bytes:
                raise self._error("larger")
            if received - marked >= _PROGRESS_BYTES:
                marked, left_s = received, self.timeout_s
            return message

        async def lingering_send(message: Message) -> None:
            if unread and message["type"] == "http.response.body" and not message.get("more_body"):
                await send({**message, "more_body": True})
                await _discard_rest(receive)
                message = {"type": "http.response.body"}
            await send(message)

        await self.app(scope, limited_receive, lingering_send)

    def _error(self, size: str) -> PayloadTooLarge:
        return PayloadTooLarge(
            f"the body is {size}; the limit is {self.max_bytes // _MIB} MiB (--max-upload-mib). Split the "
            "stack into several requests"
        )


async def _discard_rest(receive: Receive) -> None:
    """Read the rest of a body for a short time.

    Closing the connection while the client still sends would reset it, and the client would lose the answer.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_S):
            while (await receive()).get("more_body", False):
                pass


async def read_json_body(request: Request, model: type[M]) -> M:
    """Read and validate a small JSON document that is a request's body.

    Raises
    ------
    InvalidRequest
        If the body is not JSON, or does not fit the model.
    PayloadTooLarge
        If it is longer than any valid document: parsed, it would take many times its length of memory.
    UnsupportedMediaType
        If it is not declared as JSON, which forms of other sites' pages cannot do.
    """
    if media_type_of(request) != "application/json":
        raise UnsupportedMediaType("send the body as JSON, with Content-Type: application/json")
    text = bytearray()
    async for chunk in request.stream():
        text += chunk
        if len(text) > _MAX_JSON_BYTES:
            raise PayloadTooLarge(f"the body is longer than {_MAX_JSON_BYTES // 1024} KiB of JSON")
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise InvalidRequest(describe_validation_errors(error.errors(), "the body")) from None


def media_type_of(request: Request) -> str | None:
    """Return the media type that a body is declared with, without parameters, or None."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() or None


@dataclass(frozen=True)
class Upload:
    """A posted file.

    Attributes
    ----------
    file : BinaryIO
        At its start.
    name : str or None
        The name that the client gave; shown, never opened.
    media_type : str or None
        The media type that the client declared.
    as_form : bool
        Whether the body is declared as a URL-encoded form, as ``curl -d`` does, which removes line ends.
    quick : bool
        Whether reading it takes less time than calling a thread.
    """

    file: BinaryIO
    name: str | None
    media_type: str | None
    as_form: bool = False
    quick: bool = False

    def explain(self, error: SenoscopeError) -> SenoscopeError:
        """Return an error of reading the file, with a likely cause added."""
        self.file.seek(0)
        pieces = iter(lambda: self.file.read(_MIB), b"")
        if (
            not self.as_form
            or "--data-binary" in error.detail
            or any(b"\n" in piece or b"\r" in piece for piece in pieces)
        ):
            return error
        return type(error)(
            f"{error.detail}. `curl -d` removes line ends, which damages files: send it with "
            "`curl --data-binary @FILE`"
        )


async def receive_body(
    request: Request, decompressor: Decompressor | None, keep: Callable[[bytes], None]
) -> None:
    """Pass a body, decompressed, piece by piece to a function, which is called in a thread.

    Raises
    ------
    PayloadTooLarge
        If the limit of the decompressor is exceeded.
    InvalidRequest
        If the body cannot be decompressed.
    """

    def receive(received: bytes) -> None:
        for piece in decompressor.feed(received) if decompressor is not None else (received,):
            keep(piece)

    waiting = bytearray()
    async for chunk in request.stream():
        waiting += chunk
        if len(waiting) >= _MIB:
            await run_in_threadpool(receive, bytes(waiting))
            waiting.clear()
    await run_in_threadpool(receive, bytes(waiting))
    if decompressor is not None:
        decompressor.finish()


@contextlib.contextmanager
def _translate_disk_errors() -> Iterator[None]:
    """Translate the error of a disk that cannot hold a body; small bodies are not written to disk."""
    try:
        yield
    except OSError as error:
        _log.error("a body cannot be stored", folder=tempfile.gettempdir(), reason=str(error))
        raise InsufficientStorage(
            f"the service cannot store bodies of more than {_MAX_IN_MEMORY_BYTES // _MIB} MiB at present "
            f"({error.strerror or type(error).__name__}); send smaller ones, and check its folder for "
            "temporary files"
        ) from error


@asynccontextmanager
async def open_upload(
    request: Request, share: MemoryShare, max_decompressed: Callable[[int], int]
) -> AsyncIterator[Upload]:
    """Open the file in a request, either the raw body or the one ``file`` field of a multipart form.

    Parameters
    ----------
    share : MemoryShare
        Of the request, for the part of the body that is kept in memory.
    max_decompressed : callable
        Returns the limit on decompressed bytes for a number of compressed bytes.

    Raises
    ------
    InvalidRequest
        If a form is malformed, or does not hold exactly one file.
    PayloadTooLarge
        If the body exceeds the limit, compressed or not.
    InsufficientStorage
        If it cannot be stored.
    UnsupportedMediaType
        If the compression of the body is not supported, or a form is compressed.
    """
    media_type = media_type_of(request)
    coding = content_coding(request.headers.get("content-encoding"))
    if media_type == "multipart/form-data":
        if coding is not None:
            raise UnsupportedMediaType(
                "a form cannot be compressed; send the compressed file as the body of the request"
            )
        try:
            with _translate_disk_errors():
                form = await request.form(max_files=1, max_fields=8)
        except HTTPException as error:
            raise InvalidRequest(f"the form cannot be read: {error.detail}") from error
        try:
            yield _only_file(form)
        finally:
            await form.close()
        return
    # curl's default media type, which does not describe the file.
    as_form = media_type == "application/x-www-form-urlencoded"
    declared = request.headers.get("content-length", "")
    if coding is None and declared.isdecimal() and int(declared) <= _MIB:
        share.reserve(int(declared))
        body = b"".join([chunk async for chunk in request.stream() if chunk])
        quick = body.startswith(_NPY)  # a TIFF file of this size can take long
        yield Upload(io.BytesIO(body), None, None if as_form else media_type, as_form, quick)
        return
    with tempfile.SpooledTemporaryFile(max_size=_MAX_IN_MEMORY_BYTES) as file:

        def store(piece: bytes) -> None:
            if file.tell() < _MAX_IN_MEMORY_BYTES:
                share.reserve(len(piece))
            file.write(piece)

        decompressor = None if coding is None else Decompressor(coding, max_decompressed)
        with _translate_disk_errors():
            await receive_body(request, decompressor, store)
        file.seek(0)
        yield Upload(cast(BinaryIO, file), None, None if as_form else media_type, as_form)


def _only_file(form: FormData) -> Upload:
    files = [value for value in form.values() if isinstance(value, UploadFile)]
    if len(files) != 1:
        raise InvalidRequest("the form holds no file; send exactly one, as `curl -F file=@stack.tif` does")
    extra = [key for key, value in form.multi_items() if not isinstance(value, UploadFile)]
    if extra:
        raise InvalidRequest(
            f"the form has a field {extra[0][:40]!r} in addition to the file: give parameters in the "
            f"address, as in /v1/classify?{extra[0][:40]}=..."
        )
    name = (files[0].filename or "").replace("\\", "/").rpartition("/")[2]
    return Upload(files[0].file, sanitize_for_display(name, 255) or None, files[0].content_type)
