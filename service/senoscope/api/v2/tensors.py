"""Tensors of the Open Inference Protocol: conversion between arrays and bytes or JSON, independent of HTTP.

Everything that a tensor declares is checked against the bytes that were received.
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
# Numbers in JSON are read and written in steps, so that other threads can run in between.
_VALUES_PER_STEP = 4096
_NAME = f"input {INPUT!r}"

Values = npt.NDArray[Any] | list[str]
"""The values of an output: [N, ...] float32, or N strings."""


def padding(json_length: int | None) -> int:
    """Return the bytes to leave free before a body, so that the tensor after its JSON part is aligned."""
    return 0 if json_length is None else -json_length % _ALIGNMENT


def check_pixels(shape: Sequence[int], datatype: str, signature: Signature, limits: Limits) -> np.dtype[Any]:
    """Check what an input declares against what the ensemble takes, and return the element type.

    Raises
    ------
    InvalidRequest, WrongChannelCount, WrongFrameSize, PayloadTooLarge, TooManyFields
    """
    dtype = DATATYPES.get(datatype)
    if dtype is None:
        raise InvalidRequest(
            f"{_NAME} has datatype {datatype[:20]!r}; it must be one of {', '.join(DATATYPES)}"
        )
    channels, height, width = signature.shape
    expected = f"{_NAME} has shape {_short(shape)}; it must be [N, {channels}, {height}, {width}]"
    if len(shape) != 4 or min(shape) < 0:
        raise InvalidRequest(expected)
    if shape[1] != channels:
        raise WrongChannelCount(f"{expected}, channels {', '.join(signature.spec.channels)}")
    if tuple(shape[2:]) != (height, width):
        raise WrongFrameSize(expected)
    if not shape[0]:
        raise InvalidRequest(f"{expected}, and N at least 1")
    if shape[0] > limits.max_fovs:
        raise TooManyFields(f"{expected}, and N at most {limits.max_fovs}: split it")
    size = prod(shape) * dtype.itemsize
    if size > limits.max_decoded_bytes:
        raise PayloadTooLarge(
            f"{_NAME} has {size / _MIB:.0f} MiB of pixels, the limit is "
            f"{limits.max_decoded_bytes / _MIB:.0f} MiB; split it"
        )
    return dtype


def pixels_from_bytes(
    tensor: memoryview, size: object, shape: Sequence[int], dtype: np.dtype[Any], signature: Signature
) -> npt.NDArray[Any]:
    """Return the pixels of a binary tensor, as a view of its bytes.

    Parameters
    ----------
    tensor : memoryview
        Everything that follows the JSON part.
    size : object
        The value of ``binary_data_size``; valid if it is an integer.
    shape, dtype
        As checked by `check_pixels`.

    Raises
    ------
    InvalidRequest, NonFinitePixels
    """
    expected = prod(shape) * dtype.itemsize
    if type(size) is not int or size != expected:
        raise InvalidRequest(
            f"{_NAME} has {expected} bytes by its shape and datatype, but another binary_data_size"
        )
    if len(tensor) != expected:
        raise InvalidRequest(
            f"{_NAME} has {expected} bytes, but {len(tensor)} bytes follow the JSON; check that "
            "Inference-Header-Content-Length is the length of the JSON"
        )
    return as_supported(np.frombuffer(tensor, dtype).reshape(shape), signature.spec, _NAME)


def pixels_from_json(
    data: object, shape: Sequence[int], dtype: np.dtype[Any], signature: Signature
) -> npt.NDArray[Any]:
    """Return the pixels of a tensor in JSON, which is flat or nested according to its shape.

    Raises
    ------
    InvalidRequest, NonFinitePixels
    """
    if not isinstance(data, list):
        raise InvalidRequest(f"{_NAME} has neither data nor binary_data_size")
    pixels = np.empty(shape, dtype)
    if data and type(data[0]) is list:
        _move_nested(data, pixels)
    elif len(data) != pixels.size:
        raise InvalidRequest(f"data of {_NAME} has {len(data)} values, but its shape has {pixels.size}")
    else:
        _move_numbers(data, pixels.reshape(-1))
    return as_supported(pixels, signature.spec, _NAME)


def tensor_bytes(values: Values) -> memoryview:
    """Encode an output as a binary tensor: little-endian, each string after its length in 4 bytes."""
    if isinstance(values, list):
        encoded = (value.encode() for value in values)
        return memoryview(b"".join(len(text).to_bytes(4, "little") + text for text in encoded))
    return values.reshape(-1).view(np.uint8).data


def tensor_json(values: Values) -> str:
    """Encode an output as one flat list in JSON."""
    if isinstance(values, list):
        return json.dumps(values)
    flat = values.reshape(-1)
    steps = range(0, flat.size, _VALUES_PER_STEP)
    return f"[{', '.join(json.dumps(flat[k : k + _VALUES_PER_STEP].tolist())[1:-1] for k in steps)}]"


def _as_array(data: list[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
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
            raise InvalidRequest(
                f"data of {_NAME} holds a number that is not a valid {dtype.name}; FP32 takes any number"
            )
    with np.errstate(over="ignore"):  # a number that is too large becomes infinite, and is refused as such
        return values.astype(dtype)


# Both remove the numbers from the lists step by step: freeing millions of them at once would delay other
# threads.
def _move_nested(data: list[Any], pixels: npt.NDArray[Any]) -> None:
    if len(data) != len(pixels):
        raise InvalidRequest(f"the nesting of data of {_NAME} does not fit its shape")
    if pixels.ndim == 1:
        _move_numbers(data, pixels)
        return
    for k in reversed(range(len(pixels))):
        part = data.pop()
        if type(part) is not list:
            raise InvalidRequest(f"the nesting of data of {_NAME} does not fit its shape")
        _move_nested(part, pixels[k])


def _move_numbers(data: list[Any], pixels: npt.NDArray[Any]) -> None:
    while data:
        start = max(0, len(data) - _VALUES_PER_STEP)
        pixels[start : len(data)] = _as_array(data[start:], pixels.dtype)
        del data[start:]


def _short(shape: Sequence[int]) -> str:
    return f"[{', '.join(str(n) if abs(n) < 10**12 else '...' for n in shape)}]"
