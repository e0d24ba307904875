"""Compressed bodies: unpacked within a limit, packed as the client asks."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from senoscope_client.errors import InvalidRequest, PayloadTooLarge, UnsupportedMediaType

_MIB = 1024 * 1024
_CHUNK = 64 * 1024

Coding = Literal["gzip", "deflate"]
"""A content coding (RFC 9110, section 8.4.1); ``deflate`` is the zlib format."""

_CODINGS: dict[str, Coding] = {"gzip": "gzip", "deflate": "deflate"}
_WINDOW: dict[Coding, int] = {"gzip": 31, "deflate": 15}


def content_coding(header: str | None) -> Coding | None:
    """How a body is packed, by its ``Content-Encoding``.

    Raises
    ------
    InvalidRequest
        If in a way that cannot be unpacked.
    """
    name = (header or "identity").strip().lower()
    if name not in {*_CODINGS, "identity"}:
        raise InvalidRequest(f"Content-Encoding {name[:40]!r} cannot be unpacked; send gzip, deflate or none")
    return _CODINGS.get(name)


def file_coding(header: str | None) -> Coding | None:
    """How a posted file is packed, by its ``Content-Encoding``.

    Raises
    ------
    UnsupportedMediaType
        If in a way that cannot be unpacked.
    """
    name = (header or "identity").strip().lower().removeprefix("x-")
    if name not in {*_CODINGS, "identity"}:
        raise UnsupportedMediaType(
            f"Content-Encoding {name[:40]!r} cannot be unpacked; send the file packed with gzip or deflate, "
            "or as it is"
        )
    return _CODINGS.get(name)


class Unpacker:
    """Unpacks a body part by part, within limits.

    Parameters
    ----------
    coding : Coding
    max_bytes : callable
        Returns how many bytes so many packed bytes may unpack to.
    """

    def __init__(self, coding: Coding, max_bytes: Callable[[int], int]) -> None:
        self._coding = coding
        self._max_bytes = max_bytes
        self._stream = zlib.decompressobj(_WINDOW[coding])
        self._packed = self._unpacked = 0

    def feed(self, packed: bytes) -> Iterator[bytes]:
        """What the next bytes of the body unpack to, in pieces of bounded size.

        Raises
        ------
        PayloadTooLarge
        InvalidRequest
            If the body is damaged, or followed by something else.
        """
        self._packed += len(packed)
        most = self._max_bytes(self._packed)
        waiting, pending = packed, False
        while waiting or pending:
            if self._stream.eof:
                if waiting:
                    raise self._no_stream()
                return
            try:
                piece = self._stream.decompress(waiting, _MIB)
            except zlib.error as error:
                raise InvalidRequest(
                    f"the body is declared as {self._coding}, but cannot be unpacked: {error}"
                ) from error
            self._unpacked += len(piece)
            if self._unpacked > most:
                raise PayloadTooLarge(
                    f"the body unpacks to more than {most / _MIB:.0f} MiB; split it, or send it as it is"
                )
            yield piece
            waiting = self._stream.unused_data or self._stream.unconsumed_tail
            pending = len(piece) == _MIB  # there may be more, of bytes that were taken already

    def finish(self) -> None:
        """Check that the body is complete.

        Raises
        ------
        InvalidRequest
        """
        if not self._stream.eof or self._stream.unused_data:
            raise self._no_stream()

    def _no_stream(self) -> InvalidRequest:
        return InvalidRequest(f"the body is no single, whole {self._coding} stream")


def wanted_coding(header: str | None) -> Coding | None:
    """How to pack an answer, by the ``Accept-Encoding`` of its request.

    Only a client that names a single coding wants it. Those that list all they know would merely bear it,
    and packing takes longer than sending: pixels and maps hardly compress.
    """
    return _CODINGS.get((header or "").strip().lower())


def unpack(
    packed: memoryview,
    coding: Coding,
    max_bytes: int,
    pad: int = 0,
    reserve: Callable[[int], None] = lambda _: None,
) -> memoryview:
    """Unpack a body; never more than ``max_bytes`` and one chunk's worth are allocated.

    Parameters
    ----------
    pad : int
        Bytes of memory to leave free before what is unpacked.
    reserve : callable
        Called with the bytes of each step, before they are kept; may raise.

    Raises
    ------
    PayloadTooLarge
    InvalidRequest
        If it is damaged, cut off, or followed by something else.
    """
    body = bytearray(pad)
    stream = zlib.decompressobj(_WINDOW[coding])
    try:
        for start in range(0, len(packed), _CHUNK):
            step = stream.decompress(packed[start : start + _CHUNK], pad + max_bytes + 1 - len(body))
            reserve(len(step))
            body += step
            if len(body) - pad > max_bytes:
                raise PayloadTooLarge(
                    f"the body unpacks to more than {max_bytes / _MIB:.0f} MiB; split it, or send it as it is"
                )
            if stream.unused_data:
                break
    except zlib.error as error:
        raise InvalidRequest(f"the body is declared as {coding}, but cannot be unpacked: {error}") from error
    if not stream.eof or stream.unused_data:
        raise InvalidRequest(f"the body is no single, whole {coding} stream")
    return memoryview(body)[pad:]


def pack(parts: Iterable[bytes | memoryview], coding: Coding | None) -> bytes:
    """Join the parts of a body, packed if so wanted."""
    if coding is None:
        return b"".join(parts)
    stream = zlib.compressobj(level=1, wbits=_WINDOW[coding])
    packed = [stream.compress(part) for part in parts]
    return b"".join((*packed, stream.flush()))
