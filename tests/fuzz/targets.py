"""What must hold for any bytes: they are read as what they say, or refused in words that can be sent on."""

from __future__ import annotations

import io

import numpy as np

from senoscope_client.errors import SenoscopeError
from senoscope_client.images.reader import FovSpec, Limits, read_fovs
from senoscope_client.wire.messages import WireError, decode, encode

SPEC = FovSpec(("SRS", "TPEF", "Transmission"), 6, 8)
LIMITS = Limits(max_fovs=16, max_decoded_bytes=1 << 20)
# What the sender may say beside the file; the first byte of an input chooses.
TOLD: tuple[dict, ...] = (
    {},
    {"axes": "PCYX"},
    {"axes": "TYXS"},
    {"channels": ["TPEF", "SRS", "Transmission"]},
    {"media_type": "image/tiff"},
    {"axes": "QYX", "channels": ["a", "b"]},
)


def parts_of(data: bytes) -> list[bytes]:
    """A message out of one input: how many parts, then each after its length in two bytes."""
    parts, at = [], 1
    for _ in range(data[0] % 6 if data else 0):
        length = int.from_bytes(data[at : at + 2], "little")
        parts.append(data[at + 2 : at + 2 + length])
        at += 2 + length
    return parts


def joined(parts: list[bytes]) -> bytes:
    """An input that `parts_of` takes apart into these."""
    return bytes([len(parts)]) + b"".join(len(part).to_bytes(2, "little") + part for part in parts)


def check_wire(data: bytes) -> None:
    """`decode` raises nothing but WireError, and what it takes comes back the same from `encode`."""
    try:
        message = decode(parts_of(data))
    except WireError as error:
        str(error).encode()
        return
    again = decode([bytes(part) for part in encode(message.header, message.pixels)])
    assert again.header == message.header
    if message.pixels is None:
        assert again.pixels is None
    else:
        assert again.pixels is not None
        assert (again.pixels.shape, again.pixels.dtype) == (message.pixels.shape, message.pixels.dtype)
        assert again.pixels.tobytes() == message.pixels.tobytes()


def check_image(data: bytes) -> None:
    """`read_fovs` raises nothing but what its sender can act on, and what it takes can be classified."""
    told = TOLD[data[0] % len(TOLD)] if data else {}
    try:
        stack = read_fovs(io.BytesIO(data[1:]), SPEC, limits=LIMITS, **told)
    except SenoscopeError as error:
        assert 400 <= error.status < 500  # noqa: PT017 (nothing else may be raised)
        error.detail.encode()
        return
    fovs, *shape = stack.pixels.shape
    assert 1 <= fovs <= LIMITS.max_fovs
    assert shape == [3, SPEC.height, SPEC.width]
    assert stack.pixels.dtype in (np.uint8, np.uint16, np.float32)
    assert np.isfinite(stack.pixels).all()
    assert stack.pixels.flags.c_contiguous
    "; ".join(stack.warnings).encode()
