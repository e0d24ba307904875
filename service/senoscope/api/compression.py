"""Compression of bodies: requests are decompressed within a limit, answers compressed on request."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator

from senoscope_client.errors import InvalidRequest, PayloadTooLarge, UnsupportedMediaType

_MIB = 1024 * 1024

# zlib's window size for each content coding (RFC 9110, section 8.4.1); `deflate` is the zlib format.
_WINDOW = {"gzip": 31, "deflate": 15}


def content_coding(header: str | None) -> str | None:
    """Return the coding of a body from its ``Content-Encoding``, or None if it is not compressed.

    Raises
    ------
    UnsupportedMediaType
        If the coding is not supported.
    """
    name = (header or "identity").strip().lower().removeprefix("x-")
    if name not in {*_WINDOW, "identity"}:
        raise UnsupportedMediaType(
            f"Content-Encoding {name[:40]!r} is not supported; compress the body with gzip or deflate, or "
            "send it uncompressed"
        )
    return None if name == "identity" else name


class Decompressor:
    """Decompresses a body part by part, within a limit.

    Parameters
    ----------
    coding : {"gzip", "deflate"}
    max_bytes : callable
        Returns the limit on decompressed bytes for a number of compressed bytes.
    """

    def __init__(self, coding: str, max_bytes: Callable[[int], int]) -> None:
        self._coding = coding
        self._max_bytes = max_bytes
        self._stream = zlib.decompressobj(_WINDOW[coding])
        self._compressed_bytes = self._decompressed_bytes = 0

    def feed(self, compressed: bytes) -> Iterator[bytes]:
        """Decompress the next bytes of the body, in pieces of bounded size.

        Raises
        ------
        PayloadTooLarge
        InvalidRequest
            If the body is damaged, or other data follow it.
        """
        self._compressed_bytes += len(compressed)
        limit = self._max_bytes(self._compressed_bytes)
        waiting, pending = compressed, False
        while waiting or pending:
            if self._stream.eof:
                if waiting:
                    raise self._not_one_stream()
                return
            try:
                piece = self._stream.decompress(waiting, _MIB)
            except zlib.error as error:
                raise InvalidRequest(
                    f"the body is declared as {self._coding}, but cannot be decompressed: {error}"
                ) from error
            self._decompressed_bytes += len(piece)
            if self._decompressed_bytes > limit:
                raise PayloadTooLarge(
                    f"the decompressed body has more than {limit / _MIB:.0f} MiB; split it, or send it "
                    "uncompressed"
                )
            yield piece
            waiting = self._stream.unused_data or self._stream.unconsumed_tail
            pending = len(piece) == _MIB  # bytes that were fed earlier may decompress to more

    def finish(self) -> None:
        """Check that the body is complete.

        Raises
        ------
        InvalidRequest
        """
        if not self._stream.eof or self._stream.unused_data:
            raise self._not_one_stream()

    def _not_one_stream(self) -> InvalidRequest:
        return InvalidRequest(f"the body must be one complete {self._coding} stream")


def answer_coding(header: str | None) -> str | None:
    """Return how to compress an answer, from the ``Accept-Encoding`` of its request, or None.

    An answer is compressed only if the client names a single coding. Clients that list several merely accept
    them, and compressing takes longer than sending: pixels and maps hardly compress.
    """
    name = (header or "").strip().lower()
    return name if name in _WINDOW else None


def compress_body(parts: Iterable[bytes | memoryview], coding: str | None) -> bytes:
    """Join the parts of a body, and compress them if there is a coding."""
    if coding is None:
        return b"".join(parts)
    stream = zlib.compressobj(level=1, wbits=_WINDOW[coding])
    compressed = [stream.compress(part) for part in parts]
    return b"".join((*compressed, stream.flush()))
