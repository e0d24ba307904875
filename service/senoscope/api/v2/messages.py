"""Requests and answers of the Open Inference Protocol as bytes.

A body is JSON, or JSON followed by tensors in their memory layout (the binary tensor data extension); the
length of the JSON part is then given separately, in a header.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Annotated, Any

import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from senoscope.api.problems import describe_validation_errors
from senoscope.api.v2.signature import DATATYPES, INPUT, Output, Signature
from senoscope.api.v2.tensors import (
    check_pixels,
    pixels_from_bytes,
    pixels_from_json,
    tensor_bytes,
    tensor_json,
)
from senoscope.results.record import Record
from senoscope_client.errors import InvalidRequest, PayloadTooLarge
from senoscope_client.images.reader import Limits

_MIB = 1024 * 1024
# Worst cases: memory of a parsed JSON document, and the length of a float32 in JSON.
_MEMORY_PER_JSON_BYTE = 32
_JSON_BYTES_PER_VALUE = 24
# Only lists of numbers may be large in JSON without binary data; this is checked in steps.
_STEP_BYTES = 256 * 1024
_NUMBER_CHARACTERS = b"0123456789+-.eE,[] \t\r\n"
_MAX_OTHER_BYTES = 128 * 1024
_MAX_DIGITS = 1024
# Extensions of Triton that would change the answer: they are refused, not ignored.
_UNSUPPORTED_PARAMETERS = ("classification", "shared_memory_region")


class _Part(BaseModel):
    # Clients add other keys (KServe's adds model_name), which the protocol allows a server to ignore.
    model_config = ConfigDict(strict=True, frozen=True)

    parameters: dict[str, Any] | None = None

    def parameter(self, name: str) -> Any:
        return (self.parameters or {}).get(name)


# The length of lists is limited, because each invalid item takes more memory than its JSON.
class _Input(_Part):
    name: str
    datatype: str
    shape: Annotated[list[int], Field(max_length=16)]
    data: Any = None


class _RequestedOutput(_Part):
    name: str


class _Request(_Part):
    id: str | None = None
    inputs: Annotated[list[_Input], Field(max_length=16)]
    outputs: Annotated[list[_RequestedOutput], Field(max_length=1024)] | None = None


@dataclass(frozen=True)
class Inference:
    """A parsed request.

    Attributes
    ----------
    id : str or None
        Chosen by the client, and repeated in the answer.
    pixels : array [N, C, H, W]
        uint8, uint16 or float32, all finite; a view of the body if they were sent as a binary tensor.
    outputs : tuple of (Output, bool)
        The requested outputs, each with whether it is to be sent as binary data.
    """

    id: str | None
    pixels: npt.NDArray[Any]
    outputs: tuple[tuple[Output, bool], ...]


@dataclass(frozen=True)
class Answer:
    """An answer, as the parts of its body.

    Attributes
    ----------
    json_length : int or None
        Bytes of the JSON part if binary tensors follow it.
    """

    parts: tuple[bytes | memoryview, ...]
    json_length: int | None


def json_length_of(header: str | None) -> int | None:
    """Parse the value of ``Inference-Header-Content-Length``.

    Raises
    ------
    InvalidRequest
        If it is not a number of bytes.
    """
    if header is None:
        return None
    if not (header.isascii() and header.isdigit() and len(header) < 16):
        raise InvalidRequest(
            f"Inference-Header-Content-Length is {header[:40]!r}; it must be the number of bytes of the JSON "
            "part"
        )
    return int(header)


def decode(body: memoryview, json_length: int | None, signature: Signature, limits: Limits) -> Inference:
    """Parse a request.

    Parameters
    ----------
    json_length : int or None
        Bytes of the JSON part. None: the whole body is JSON. 0: the body is the input as FP32, without JSON.

    Raises
    ------
    InvalidRequest, WrongChannelCount, WrongFrameSize, NonFinitePixels, PayloadTooLarge, TooManyFields
    """
    if json_length is None:
        json_length = len(body)
    elif json_length > len(body):
        raise InvalidRequest(
            f"Inference-Header-Content-Length is {json_length}, but the body has only {len(body)} bytes"
        )
    tensor = body[json_length:]
    if json_length or not body:
        request = _parse_json(body[:json_length], signature, limits)
    else:
        request = _request_without_json(tensor, signature)
    image = _only_input(request)
    outputs = _requested_outputs(request, signature.outputs)
    dtype = check_pixels(image.shape, image.datatype, signature, limits)
    _check_answer_size(image.shape[0], outputs, limits)
    size = image.parameter("binary_data_size")
    if size is None:
        if len(tensor):
            raise InvalidRequest(f"{len(tensor)} bytes follow the JSON, but no input has binary_data_size")
        pixels = pixels_from_json(image.data, image.shape, dtype, signature)
    elif image.data is not None:
        raise InvalidRequest(f"input {INPUT!r} has both data and binary_data_size; give one of them")
    else:
        pixels = pixels_from_bytes(tensor, size, image.shape, dtype, signature)
    return Inference(request.id, pixels, outputs)


def encode(signature: Signature, request: Inference, records: Sequence[Record]) -> Answer:
    """Encode the answer to a request; only the requested outputs are computed."""
    head = {"model_name": signature.name, "model_version": signature.version}
    if request.id is not None:
        head["id"] = request.id
    texts: list[str] = []
    tensors: list[memoryview] = []
    for output, binary in request.outputs:
        values = output.values(records)
        shape = [len(records), *output.shape]
        described: dict[str, Any] = {"name": output.name, "datatype": output.datatype, "shape": shape}
        if binary:
            tensors.append(tensor_bytes(values))
            described["parameters"] = {"binary_data_size": len(tensors[-1])}
            texts.append(json.dumps(described))
        else:
            texts.append(f'{json.dumps(described)[:-1]}, "data": {tensor_json(values)}}}')
    text = f'{json.dumps(head)[:-1]}, "outputs": [{", ".join(texts)}]}}'.encode()
    return Answer((text, *tensors), len(text) if tensors else None)


def _request_without_json(tensor: memoryview, signature: Signature) -> _Request:
    """Return the request that a body without JSON stands for, with as many FOVs as its length gives."""
    datatype, dtype = next(iter(DATATYPES.items()))
    one = prod(signature.shape) * dtype.itemsize
    fovs, rest = divmod(len(tensor), one)
    if rest:
        raise InvalidRequest(
            f"the body has {len(tensor)} bytes; without JSON (Inference-Header-Content-Length: 0) it must be "
            f"{datatype} fields of view of {one} bytes each"
        )
    parameters = {"binary_data_size": len(tensor)}
    shape = [fovs, *signature.shape]
    return _Request(inputs=[_Input(name=INPUT, datatype=datatype, shape=shape, parameters=parameters)])


def _parse_json(text: memoryview, signature: Signature, limits: Limits) -> _Request:
    max_bytes = limits.max_decoded_bytes // _MEMORY_PER_JSON_BYTE
    if len(text) > max_bytes:
        raise PayloadTooLarge(
            f"the request has {len(text) / _MIB:.1f} MiB of JSON, the limit is {max_bytes / _MIB:.1f} MiB: "
            "send pixels as binary data"
        )
    _check_large_parts(text, signature)
    if limits.admit is not None:
        limits.admit(_MEMORY_PER_JSON_BYTE * len(text))
    try:
        # Functions in Python, because other threads can run between two calls of them: megabytes of numbers
        # would otherwise delay the live stream until the last one is parsed.
        document = json.loads(
            str(text, "utf-8"),
            parse_int=lambda digits: int(_check_digits(digits)),
            parse_float=lambda digits: float(_check_digits(digits)),
        )
        return _Request.model_validate(document)
    except ValidationError as error:
        described = describe_validation_errors(error.errors(), "the document")
        raise InvalidRequest(f"the JSON is not a valid inference request: {described}") from None
    except RecursionError:
        raise InvalidRequest("the JSON is nested too deeply for an inference request") from None
    except ValueError as error:
        raise InvalidRequest(
            f"the request is not JSON: {error}; where binary tensors follow the JSON, "
            "Inference-Header-Content-Length must give its length"
        ) from None


def _check_large_parts(text: memoryview, signature: Signature) -> None:
    """Refuse JSON that is large because of anything but numbers, before it is parsed.

    Python's JSON parser lets other threads run between two numbers (see `_parse_json`), but not between two
    brackets or strings: megabytes of them would delay the live stream.
    """
    others = lists = 0
    for start in range(0, len(text), _STEP_BYTES):
        step = bytes(text[start : start + _STEP_BYTES])
        others += len(step.translate(None, _NUMBER_CHARACTERS))
        lists += step.count(b"[")
    if others > _MAX_OTHER_BYTES:
        raise InvalidRequest(
            f"the request is not JSON, or holds {others // 1024} KiB that are not numbers (strings, keys, "
            f"null, NaN, true); the limit is {_MAX_OTHER_BYTES // 1024} KiB. Where binary tensors follow the "
            "JSON, Inference-Header-Content-Length must give its length"
        )
    # A row of numbers has at least as many characters as columns.
    if lists > 1024 + len(text) // max(64, signature.spec.width):
        raise InvalidRequest(
            f"the JSON is nested too deeply, or holds more lists ({lists}) than an image of its size needs; "
            "send the data as one flat list, or as binary data"
        )


def _check_digits(digits: str) -> str:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"a number has {len(digits)} digits")
    return digits


def _only_input(request: _Request) -> _Input:
    for one in request.inputs:
        if one.name != INPUT:
            raise InvalidRequest(f"input {one.name[:40]!r} is unknown; the only one is {INPUT!r}")
        _check_supported(one)
    if len(request.inputs) != 1:
        raise InvalidRequest(f"input {INPUT!r} is given {len(request.inputs)} times; give it once")
    return request.inputs[0]


def _requested_outputs(request: _Request, outputs: Mapping[str, Output]) -> tuple[tuple[Output, bool], ...]:
    default = _flag(request, "binary_data_output", False)
    if not request.outputs:
        return tuple((output, default) for output in outputs.values() if output.default)
    requested: dict[str, tuple[Output, bool]] = {}
    for one in request.outputs:
        if one.name not in outputs:
            raise InvalidRequest(f"output {one.name[:40]!r} is unknown; the outputs are {', '.join(outputs)}")
        if one.name in requested:
            raise InvalidRequest(f"output {one.name!r} is requested twice")
        _check_supported(one)
        requested[one.name] = outputs[one.name], _flag(one, "binary_data", default)
    return tuple(requested.values())


def _flag(part: _Part, name: str, default: bool) -> bool:
    value = part.parameter(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise InvalidRequest(f"parameter {name!r} must be true or false")
    return value


def _check_supported(part: _Input | _RequestedOutput) -> None:
    for name in _UNSUPPORTED_PARAMETERS:
        if part.parameter(name) is not None:
            raise InvalidRequest(f"parameter {name!r} of {part.name!r}: this extension is not supported")


def _check_answer_size(fovs: int, outputs: Sequence[tuple[Output, bool]], limits: Limits) -> None:
    size = sum(
        fovs * prod(output.shape) * (4 if binary else _JSON_BYTES_PER_VALUE) for output, binary in outputs
    )
    if size > limits.max_decoded_bytes:
        raise PayloadTooLarge(
            f"the answer would have about {size / _MIB:.0f} MiB, more than "
            f"{limits.max_decoded_bytes / _MIB:.0f} MiB; request binary data, fewer outputs or fewer fields "
            "of view"
        )
