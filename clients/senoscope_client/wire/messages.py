"""Encoding and decoding the messages of the frame stream, format ``nlo-fov`` version 1.0.

The parts of a message::

    0  topic    fov/<instrument>/<type>
    1  header   one of `senoscope_client.wire.headers` as UTF-8 JSON
    2  pixels   image only: C-contiguous, little-endian, exactly prod(shape) * itemsize bytes, 64 MiB at most

This module does not use sockets, so that messages can be encoded and decoded without ZeroMQ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError
from pydantic_core import from_json

from senoscope_client.models.coordinates import Index, Mosaic, Position, Timestamp
from senoscope_client.wire.headers import EndHeader, Header, HeartbeatHeader, ImageHeader, StartHeader
from senoscope_client.wire.sizes import MAX_HEADER_BYTES, MAX_PART_BYTES, MAX_PIXEL_BYTES, MAX_TOPIC_BYTES

__all__ = [
    "MAX_HEADER_BYTES",
    "MAX_PART_BYTES",
    "MAX_PIXEL_BYTES",
    "MAX_TOPIC_BYTES",
    "EndHeader",
    "Header",
    "HeartbeatHeader",
    "ImageHeader",
    "Index",
    "Message",
    "Mosaic",
    "Part",
    "Position",
    "StartHeader",
    "Timestamp",
    "WireError",
    "WireFault",
    "decode",
    "encode",
    "topic_of",
]

WireFault = Literal[
    "part_count",
    "bad_topic",
    "unknown_type",
    "header_too_large",
    "bad_json",
    "unknown_format",
    "unknown_version",
    "topic_mismatch",
    "dtype_not_allowed",
    "bad_header",
    "pixels_too_large",
    "byte_count",
    "pixels_mismatch",
]
"""The stable names of the faults of a message, in the order in which `decode` checks for them.

Only `encode` raises ``pixels_mismatch``: the array's shape or dtype differs from that in its header.
"""

_TYPES: Final[dict[str, type[Header]]] = {
    "image": ImageHeader,
    "heartbeat": HeartbeatHeader,
    "start": StartHeader,
    "end": EndHeader,
}
_DTYPES: Final[dict[str, np.dtype[Any]]] = {
    "uint8": np.dtype("u1"),
    "uint16": np.dtype("<u2"),
    "float32": np.dtype("<f4"),
}
# The models have defaults for these keys, for writing headers; headers that are read must contain them.
_REQUIRED_KEYS: Final = frozenset({"htype", "format", "version", "type"})


class WireError(ValueError):
    """A message that does not conform to the format.

    Attributes
    ----------
    reason : WireFault
        Stable name of the fault. ``unknown_type`` is not an error of the sender: later versions may add
        types, and a receiver counts and skips them.
    detail : str
        Description of the fault.
    """

    def __init__(self, reason: WireFault, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: WireFault = reason
        self.detail = detail


class _Frame(Protocol):
    """The part of `zmq.Frame` that is used here, without an import of zmq."""

    @property
    def buffer(self) -> Any: ...


Part = bytes | bytearray | memoryview | _Frame


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """One message of the frame stream.

    Attributes
    ----------
    header : StartHeader, ImageHeader, EndHeader or HeartbeatHeader
        Its type is the type of the message.
    pixels : ndarray of shape (C, Y, X), or None
        Of an image; read-only, and a view of the received bytes, which are kept in memory with it.
    """

    header: Header
    pixels: npt.NDArray[Any] | None = None


def topic_of(header: Header) -> bytes:
    """Return the topic of a message with this header."""
    return f"fov/{header.instrument}/{header.type}".encode()


def encode(header: Header, pixels: npt.NDArray[Any] | None = None) -> list[bytes | memoryview]:
    """Encode a message, and return its parts.

    Parameters
    ----------
    header : StartHeader, ImageHeader, EndHeader or HeartbeatHeader
        Any of the four.
    pixels : ndarray of shape (C, Y, X)
        Only with an `ImageHeader`. Not copied if C-contiguous and little-endian: the last part is then a
        view of the array, which must not be changed until the message is sent.

    Raises
    ------
    WireError
        ``part_count`` if pixels are missing or superfluous, ``pixels_mismatch`` if they do not match the
        header, ``header_too_large`` or ``pixels_too_large`` if they exceed the limits of a receiver.
    """
    head = header.model_dump_json(exclude_none=True).encode()
    if len(head) > MAX_HEADER_BYTES:
        raise WireError("header_too_large", f"{len(head)} bytes; at most {MAX_HEADER_BYTES} are allowed")
    if not isinstance(header, ImageHeader):
        if pixels is not None:
            raise WireError("part_count", f"a message of type {header.type} carries no pixels")
        return [topic_of(header), head]
    if pixels is None:
        raise WireError("part_count", "an image message needs pixels")
    dtype = _DTYPES[header.dtype]
    if pixels.shape != header.shape or pixels.dtype.newbyteorder("<") != dtype:
        raise WireError(
            "pixels_mismatch",
            f"the array is {pixels.dtype} {pixels.shape}, the header declares {header.dtype} {header.shape}",
        )
    if pixels.nbytes > MAX_PIXEL_BYTES:
        raise WireError("pixels_too_large", f"{pixels.nbytes} bytes; at most {MAX_PIXEL_BYTES} are allowed")
    flat = np.ascontiguousarray(pixels, dtype).reshape(-1).view(np.uint8)
    return [topic_of(header), head, flat.data]


def decode(parts: Sequence[Part]) -> Message:
    """Decode the parts of a message.

    Parameters
    ----------
    parts : sequence of bytes, memoryview or zmq.Frame
        As returned by ``socket.recv_multipart(copy=False)``; only topic and header are copied.

    Raises
    ------
    WireError
        If the message does not conform to the format. Nothing else is raised, for any bytes.
    """
    if len(parts) < 2:
        raise WireError("part_count", f"{len(parts)} parts; a message has at least a topic and a header")
    instrument, type_ = _split_topic(_view(parts[0]))
    model = _TYPES.get(type_)
    if model is None:
        raise WireError("unknown_type", f"{type_[:64]!r}")
    wanted = 3 if model is ImageHeader else 2
    if len(parts) != wanted:
        raise WireError("part_count", f"{len(parts)} parts; a message of type {type_} has {wanted}")
    head = _view(parts[1])
    if head.nbytes > MAX_HEADER_BYTES:
        raise WireError("header_too_large", f"{head.nbytes} bytes; at most {MAX_HEADER_BYTES} are allowed")
    text = bytes(head)
    try:
        header = model.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise _header_error(text, type_, error) from None
    if not header.model_fields_set >= _REQUIRED_KEYS:
        raise _header_error(text, type_, None)
    if header.instrument != instrument:
        raise WireError("topic_mismatch", f"topic of {instrument!r}, header of {header.instrument!r}")
    if not isinstance(header, ImageHeader):
        return Message(header)
    return Message(header, _pixels(header, _view(parts[2])))


def _view(part: Part) -> memoryview:
    return memoryview(part if isinstance(part, bytes | bytearray | memoryview) else part.buffer)


def _split_topic(topic: memoryview) -> tuple[str, str]:
    if topic.nbytes > MAX_TOPIC_BYTES:
        raise WireError("bad_topic", f"{topic.nbytes} bytes; at most {MAX_TOPIC_BYTES} are allowed")
    try:
        levels = bytes(topic).decode().split("/")
    except UnicodeDecodeError:
        raise WireError("bad_topic", "not UTF-8") from None
    if len(levels) != 3 or levels[0] != "fov" or not levels[1] or not levels[2]:
        raise WireError("bad_topic", f"{'/'.join(levels)[:80]!r} is not fov/<instrument>/<type>")
    return levels[1], levels[2]


def _pixels(header: ImageHeader, data: memoryview) -> npt.NDArray[Any]:
    dtype = _DTYPES[header.dtype]
    channels, rows, columns = header.shape
    wanted = channels * rows * columns * dtype.itemsize
    if wanted > MAX_PIXEL_BYTES:
        raise WireError("pixels_too_large", f"{wanted} bytes; at most {MAX_PIXEL_BYTES} are allowed")
    if data.nbytes != wanted:
        raise WireError(
            "byte_count", f"{data.nbytes} bytes; {header.dtype} {header.shape} takes {wanted} bytes"
        )
    pixels = np.frombuffer(data, dtype).reshape(header.shape)
    pixels.flags.writeable = False
    return pixels


def _header_error(text: bytes, type_: str, error: ValidationError | None) -> WireError:
    """Return the error of a header that was rejected; not optimised, as valid messages do not need it."""
    try:
        header = from_json(text)
    except ValueError as fault:
        return WireError("bad_json", str(fault)[:200])
    if not isinstance(header, dict):
        return WireError("bad_header", "the JSON is not an object")
    constants: tuple[tuple[str, WireFault, tuple[str, ...]], ...] = (
        ("format", "unknown_format", ("nlo-fov",)),
        ("version", "unknown_version", ("1.0",)),
        ("type", "topic_mismatch", (type_,)),
        ("dtype", "dtype_not_allowed", tuple(_DTYPES)),
    )
    for key, reason, allowed in constants:
        if (key != "dtype" or key in header) and header.get(key) not in allowed:
            return WireError(reason, f"{key} is {header.get(key)!r:.80}, must be {' or '.join(allowed)}")
    if error is None:
        return WireError("bad_header", "htype: missing")
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    texts = [f"{'.'.join(str(level) for level in fault['loc'])}: {fault['msg']}" for fault in faults[:3]]
    return WireError("bad_header", "; ".join(texts)[:400])
