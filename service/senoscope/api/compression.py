"""Compressed bodies: unpacked within a limit, packed as the client asks."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from typing import Literal

from senoscope_client.errors import InvalidRequest, PayloadTooLarge

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
