"""Requests and answers of the Open Inference Protocol as bytes; nothing of HTTP.

A body is JSON, or JSON followed by tensors as they lie in memory (the binary tensor data extension); the
length of the JSON part then comes beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Annotated, Any

import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from senoscope.api.v2.signature import DATATYPES, INPUT, Output, Signature
from senoscope.api.v2.tensors import bytes_of, check_pixels, json_of, pixels_of_bytes, pixels_of_json
from senoscope.results.record import Record
from senoscope_client.errors import InvalidRequest, PayloadTooLarge
from senoscope_client.images.reader import Limits

_MIB = 1024 * 1024
# What Python takes to hold a parsed JSON document, and what a float32 takes as JSON, at worst.
_MEMORY_PER_JSON_BYTE = 32
_JSON_BYTES_PER_VALUE = 24
# What may be large in JSON without binary data is numbers, in lists; it is looked at in steps.
_STEP = 256 * 1024
_OF_NUMBERS = b"0123456789+-.eE,[] \t\r\n"
_MOST_OTHERS = 128 * 1024
_MOST_DIGITS = 1024
# Extensions of Triton that would change the answer: ignoring them would be worse than refusing them.
_NOT_OFFERED = ("classification", "shared_memory_region")


class _Part(BaseModel):
    # Clients add keys of their own (KServe's: model_name), which the protocol lets a server ignore.
    model_config = ConfigDict(strict=True, frozen=True)

    parameters: dict[str, Any] | None = None

    def parameter(self, name: str) -> Any:
        return (self.parameters or {}).get(name)


# The longest lists are bounded because each wrong item costs more memory than its JSON.
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
    """What a client asks for.

    Attributes
    ----------
    id : str or None
        The client's, to be repeated in the answer.
    pixels : array [N, C, H, W]
        uint8, uint16 or float32, all finite; where they came as a binary tensor, a view of the body.
    outputs : tuple of (Output, bool)
        Each with whether it is wanted as binary data.
    """

    id: str | None
    pixels: npt.NDArray[Any]
    outputs: tuple[tuple[Output, bool], ...]


@dataclass(frozen=True)
class Answer:
    """An answer in the parts that its body is made of.

    Attributes
    ----------
    json_length : int or None
        Bytes of the JSON part, where binary tensors follow it.
    """

    parts: tuple[bytes | memoryview, ...]
    json_length: int | None


def json_length_of(header: str | None) -> int | None:
    """The value of ``Inference-Header-Content-Length``.

    Raises
    ------
    InvalidRequest
        If it is not a number of bytes.
    """
    if header is None:
        return None
    if not (header.isascii() and header.isdigit() and len(header) < 16):
        raise InvalidRequest(
            f"Inference-Header-Content-Length is {header[:40]!r}; it is the number of bytes of the JSON part"
        )
    return int(header)


def decode(body: memoryview, json_length: int | None, signature: Signature, limits: Limits) -> Inference:
    """Read a request.

    Parameters
    ----------
    json_length : int or None
        Bytes of the JSON part; None: all. If 0 the body is the input as FP32 and nothing else.

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
        request = _parse(body[:json_length], signature, limits)
    else:
        request = _raw(tensor, signature)
    given = _only_input(request)
    outputs = _requested(request, signature.outputs)
    dtype = check_pixels(given.shape, given.datatype, signature, limits)
    _check_answer_size(given.shape[0], outputs, limits)
    size = given.parameter("binary_data_size")
    if size is None:
        if len(tensor):
            raise InvalidRequest(f"{len(tensor)} bytes follow the JSON, but no input has binary_data_size")
        pixels = pixels_of_json(given.data, given.shape, dtype, signature)
    elif given.data is not None:
        raise InvalidRequest(f"input {INPUT!r} has both data and binary_data_size; give one of them")
    else:
        pixels = pixels_of_bytes(tensor, size, given.shape, dtype, signature)
    return Inference(request.id, pixels, outputs)


def encode(
    signature: Signature,
    identifier: str | None,
    outputs: Sequence[tuple[Output, bool]],
    records: Sequence[Record],
) -> Answer:
    """Write an answer; only the outputs that were asked for are computed.

    Parameters
    ----------
    identifier : str or None
        The request's.
    outputs : sequence of (Output, bool)
        As in the request.
    records : sequence of N Record
    """
    head = {"model_name": signature.name, "model_version": signature.version}
    if identifier is not None:
        head["id"] = identifier
    texts: list[str] = []
    tensors: list[memoryview] = []
    for output, binary in outputs:
        values = output.values(records)
        shape = [len(records), *output.shape]
        described: dict[str, Any] = {"name": output.name, "datatype": output.datatype, "shape": shape}
        if binary:
            tensors.append(bytes_of(values))
            described["parameters"] = {"binary_data_size": len(tensors[-1])}
            texts.append(json.dumps(described))
        else:
            texts.append(f'{json.dumps(described)[:-1]}, "data": {json_of(values)}}}')
    text = f'{json.dumps(head)[:-1]}, "outputs": [{", ".join(texts)}]}}'.encode()
    return Answer((text, *tensors), len(text) if tensors else None)


def _raw(tensor: memoryview, signature: Signature) -> _Request:
    """What a body without JSON stands for: as many fields of view as its bytes make."""
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


def _parse(text: memoryview, signature: Signature, limits: Limits) -> _Request:
    longest = limits.max_decoded_bytes // _MEMORY_PER_JSON_BYTE
    if len(text) > longest:
        raise PayloadTooLarge(
            f"the request has {len(text) / _MIB:.1f} MiB of JSON, at most {longest / _MIB:.1f} MiB are "
            "taken: send pixels as binary data"
        )
    _check_contents(text, signature)
    if limits.admit is not None:
        limits.admit(_MEMORY_PER_JSON_BYTE * len(text))
    try:
        document = json.loads(str(text, "utf-8"), parse_int=_parse_int, parse_float=_parse_float)
        return _Request.model_validate(document)
    except ValidationError as error:
        faults = "; ".join(f"{_place(fault['loc'])}: {fault['msg']}" for fault in error.errors()[:5])
        raise InvalidRequest(f"the JSON is no inference request: {faults}") from None
    except RecursionError:
        raise InvalidRequest("the JSON is nested too deeply for an inference request") from None
    except ValueError as error:
        raise InvalidRequest(
            f"the request is not JSON: {error}; where binary tensors follow the JSON, "
            "Inference-Header-Content-Length must give its length"
        ) from None


def _check_contents(text: memoryview, signature: Signature) -> None:
    """Refuse JSON that is large by anything but numbers, before it is parsed.

    Python's parser lets other threads go on between two numbers (see `_parse_int`), but not between two
    brackets or texts: megabytes of them would hold up the live stream.
    """
    others = lists = 0
    for start in range(0, len(text), _STEP):
        step = bytes(text[start : start + _STEP])
        others += len(step.translate(None, _OF_NUMBERS))
        lists += step.count(b"[")
    if others > _MOST_OTHERS:
        raise InvalidRequest(
            f"the request is not JSON, or holds {others // 1024} KiB that are not a number (texts, keys, "
            f"null, NaN, true); at most {_MOST_OTHERS // 1024} KiB are taken. Where binary tensors follow "
            "the JSON, Inference-Header-Content-Length must give its length"
        )
    # A row of numbers has as many characters at least.
    if lists > 1024 + len(text) // max(64, signature.spec.width):
        raise InvalidRequest(
            f"the JSON is nested too deeply, or holds more lists ({lists}) than its numbers can be nested "
            "in; send data flat, or as binary data"
        )


# Functions of Python's own, because other threads get their turn between two calls of them: megabytes of
# numbers would otherwise hold up the live stream until the last one is parsed.
def _parse_int(digits: str) -> int:
    return int(_checked(digits))


def _parse_float(digits: str) -> float:
    return float(_checked(digits))


def _checked(digits: str) -> str:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a number has {len(digits)} digits")
    return digits


def _place(location: tuple[int | str, ...]) -> str:
    return ".".join(map(str, location))[:80].encode("ascii", "backslashreplace").decode() or "the document"


def _only_input(request: _Request) -> _Input:
    for given in request.inputs:
        if given.name != INPUT:
            raise InvalidRequest(f"input {given.name[:40]!r} is unknown; the only one is {INPUT!r}")
        _check_offered(given)
    if len(request.inputs) != 1:
        raise InvalidRequest(f"input {INPUT!r} is given {len(request.inputs)} times; give it once")
    return request.inputs[0]


def _requested(request: _Request, outputs: Mapping[str, Output]) -> tuple[tuple[Output, bool], ...]:
    default = _flag(request, "binary_data_output", False)
    if not request.outputs:
        return tuple((output, default) for output in outputs.values() if output.default)
    wanted: dict[str, tuple[Output, bool]] = {}
    for asked in request.outputs:
        if asked.name not in outputs:
            raise InvalidRequest(f"output {asked.name[:40]!r} is unknown; there are {', '.join(outputs)}")
        if asked.name in wanted:
            raise InvalidRequest(f"output {asked.name!r} is asked for twice")
        _check_offered(asked)
        wanted[asked.name] = outputs[asked.name], _flag(asked, "binary_data", default)
    return tuple(wanted.values())


def _flag(part: _Part, name: str, default: bool) -> bool:
    value = part.parameter(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise InvalidRequest(f"parameter {name!r} must be true or false")
    return value


def _check_offered(part: _Input | _RequestedOutput) -> None:
    for name in _NOT_OFFERED:
        if part.parameter(name) is not None:
            raise InvalidRequest(f"parameter {name!r} of {part.name!r}: that extension is not offered here")


def _check_answer_size(fovs: int, outputs: Sequence[tuple[Output, bool]], limits: Limits) -> None:
    size = sum(
        fovs * prod(output.shape) * (4 if binary else _JSON_BYTES_PER_VALUE) for output, binary in outputs
    )
    if size > limits.max_decoded_bytes:
        raise PayloadTooLarge(
            f"the answer would have about {size / _MIB:.0f} MiB, more than "
            f"{limits.max_decoded_bytes / _MIB:.0f} MiB; ask for binary data, for fewer outputs or for fewer "
            "fields of view"
        )
