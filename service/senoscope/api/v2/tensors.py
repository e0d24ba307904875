"""Tensors of the Open Inference Protocol, between bytes or JSON and arrays; nothing of HTTP.

Nothing that a tensor declares is believed before it was compared with the bytes that are there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from senoscope.api.v2.signature import DATATYPES, INPUT, Signature
from senoscope_client.errors import (
    InvalidRequest,
    PayloadTooLarge,
    TooManyFields,
    WrongChannelCount,
    WrongFrameSize,
)
from senoscope_client.images.reader import Limits, as_supported

_MIB = 1024 * 1024
_ALIGNMENT = 16
# Numbers in JSON are read and written in steps, so that other threads get their turn in between.
_VALUES_AT_ONCE = 4096
_NAME = f"input {INPUT!r}"

Values = npt.NDArray[Any] | list[str]
"""An output's values, [N, ...] float32 or N strings."""


def padding(json_length: int | None) -> int:
    """Bytes to leave free before a body, so that the tensor behind its JSON part lies aligned in memory."""
    return 0 if json_length is None else -json_length % _ALIGNMENT


def check_pixels(shape: Sequence[int], datatype: str, signature: Signature, limits: Limits) -> np.dtype[Any]:
    """What an input declares, checked against what the ensemble takes; returns its element type.

    Raises
    ------
    InvalidRequest, WrongChannelCount, WrongFrameSize, PayloadTooLarge, TooManyFields
    """
    dtype = DATATYPES.get(datatype)
    if dtype is None:
        raise InvalidRequest(f"{_NAME} has datatype {datatype[:20]!r}; it is one of {', '.join(DATATYPES)}")
    channels, height, width = signature.shape
    told = f"{_NAME} has shape {_short(shape)}; it must be [N, {channels}, {height}, {width}]"
    if len(shape) != 4 or min(shape) < 0:
        raise InvalidRequest(told)
    if shape[1] != channels:
        raise WrongChannelCount(f"{told}, channels {', '.join(signature.spec.channels)}")
    if tuple(shape[2:]) != (height, width):
        raise WrongFrameSize(told)
    if not shape[0]:
        raise InvalidRequest(f"{told}, and N at least 1")
    if shape[0] > limits.max_fovs:
        raise TooManyFields(f"{told}, and N at most {limits.max_fovs}: split it")
    size = prod(shape) * dtype.itemsize
    if size > limits.max_decoded_bytes:
        raise PayloadTooLarge(
            f"{_NAME} has {size / _MIB:.0f} MiB of pixels, at most {limits.max_decoded_bytes / _MIB:.0f} MiB "
            "are taken; split it"
        )
    return dtype


def pixels_of_bytes(
    tensor: memoryview, size: object, shape: Sequence[int], dtype: np.dtype[Any], signature: Signature
) -> npt.NDArray[Any]:
    """The pixels of a binary tensor, as a view of its bytes.

    Parameters
    ----------
    tensor : memoryview
        All that follows the JSON part.
    size : object
        What ``binary_data_size`` says; whole numbers are right.
    shape, dtype
        As checked by `check_pixels`.

    Raises
    ------
    InvalidRequest, NonFinitePixels
    """
    expected = prod(shape) * dtype.itemsize
    if type(size) is not int or size != expected:
        raise InvalidRequest(
            f"{_NAME} has {expected} bytes by its shape and datatype; its binary_data_size says otherwise"
        )
    if len(tensor) != expected:
        raise InvalidRequest(
            f"{_NAME} has {expected} bytes, but {len(tensor)} bytes follow the JSON; does "
            "Inference-Header-Content-Length tell the length of the JSON?"
        )
    return as_supported(np.frombuffer(tensor, dtype).reshape(shape), signature.spec, _NAME)


def pixels_of_json(
    data: object, shape: Sequence[int], dtype: np.dtype[Any], signature: Signature
) -> npt.NDArray[Any]:
    """The pixels of a tensor in JSON, flat or nested as its shape says.

    Raises
    ------
    InvalidRequest, NonFinitePixels
    """
    if not isinstance(data, list):
        raise InvalidRequest(f"{_NAME} has neither data nor binary_data_size")
    pixels = np.empty(shape, dtype)
    if data and type(data[0]) is list:
        _take_nested(data, pixels)
    elif len(data) != pixels.size:
        raise InvalidRequest(f"data of {_NAME} has {len(data)} values, its shape says {pixels.size}")
    else:
        _take_numbers(data, pixels.reshape(-1))
    return as_supported(pixels, signature.spec, _NAME)


def bytes_of(values: Values) -> memoryview:
    """An output as a binary tensor: little-endian, and each string after its length in 4 bytes."""
    if isinstance(values, list):
        encoded = (value.encode() for value in values)
        return memoryview(b"".join(len(text).to_bytes(4, "little") + text for text in encoded))
    return values.reshape(-1).view(np.uint8).data


def json_of(values: Values) -> str:
    """An output as flat JSON."""
    if isinstance(values, list):
        return json.dumps(values)
    flat = values.reshape(-1)
    steps = range(0, flat.size, _VALUES_AT_ONCE)
    return f"[{', '.join(json.dumps(flat[k : k + _VALUES_AT_ONCE].tolist())[1:-1] for k in steps)}]"


def _numbers(data: list[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    if not set(map(type, data)) <= {int, float}:
        raise InvalidRequest(f"data of {_NAME} holds something that is not a number")
    try:
        values = np.array(data, np.float64)
    except OverflowError:
        raise InvalidRequest(f"data of {_NAME} holds a number that no datatype can hold") from None
    if dtype.kind == "u":
        with np.errstate(invalid="ignore"):
            whole = values == np.floor(values)
        if not (whole & (values >= 0) & (values <= np.iinfo(dtype).max)).all():
            raise InvalidRequest(f"data of {_NAME} holds a number that is no {dtype.name}; FP32 takes any")
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused as such
        return values.astype(dtype)


# Both take what they have read out of the lists: freed at once, millions of numbers would hold up others.
def _take_nested(data: list[Any], pixels: npt.NDArray[Any]) -> None:
    if len(data) != len(pixels):
        raise InvalidRequest(f"data of {_NAME} is nested in another way than its shape says")
    if pixels.ndim == 1:
        _take_numbers(data, pixels)
        return
    for k in reversed(range(len(pixels))):
        part = data.pop()
        if type(part) is not list:
            raise InvalidRequest(f"data of {_NAME} is nested in another way than its shape says")
        _take_nested(part, pixels[k])


def _take_numbers(data: list[Any], pixels: npt.NDArray[Any]) -> None:
    while data:
        start = max(0, len(data) - _VALUES_AT_ONCE)
        pixels[start : len(data)] = _numbers(data[start:], pixels.dtype)
        del data[start:]


def _short(shape: Sequence[int]) -> str:
    return f"[{', '.join(str(n) if abs(n) < 10**12 else '...' for n in shape)}]"
