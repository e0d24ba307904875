"""Detection of references to other files in an ONNX file, without the ``onnx`` package.

An ONNX file is a protobuf message. Its weights may be stored in other files ("external data"), for which the
manifest has no hash.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from senoscope.engine.errors import EnsembleError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_MAX_DEPTH: Final = 100  # as in protobuf itself
# The fields of each message that contain messages with tensors (onnx.proto).
_NESTED: Final[dict[str, dict[int, str]]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_EXTERNAL_DATA, _DATA_LOCATION, _EXTERNAL = 13, 14, 1


def refuse_external_data(path: Path) -> None:
    """Check that an ONNX file contains all its weights.

    Raises
    ------
    EnsembleError
        If it refers to other files, is not an ONNX file, or cannot be read.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            external = _has_external(data, 0, len(data), "model", 0)
    except (IndexError, ValueError) as error:
        raise EnsembleError(path, "is not an ONNX file: it cannot be read as protobuf") from error
    except OSError as error:
        raise EnsembleError(path, f"cannot be read: {error.strerror}") from error
    if external:
        raise EnsembleError(
            path,
            "keeps weights in another file (external data), for which ensemble.json has no hash: save it as "
            "a single file (onnx.save with save_as_external_data=False)",
        )


def _has_external(data: mmap.mmap, start: int, stop: int, kind: str, depth: int) -> bool:
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deeply")
    if kind == "tensor":
        return any(
            field == _EXTERNAL_DATA or (field == _DATA_LOCATION and value == _EXTERNAL)
            for field, value, _ in _fields(data, start, stop)
        )
    nested = _NESTED[kind]
    return any(
        _has_external(data, begin, end, nested[field], depth + 1)
        for field, begin, end in _fields(data, start, stop)
        if field in nested and end >= 0
    )


def _fields(data: mmap.mmap, at: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Yield the number of each field and the range of its bytes; for numbers the value and -1."""
    while at < stop:
        key, at = _varint(data, at, stop)
        field, wire_type = key >> 3, key & 7
        if not field:
            raise ValueError("a field without a number")
        if wire_type == _VARINT:
            value, at = _varint(data, at, stop)
            yield field, value, -1
        elif wire_type == _BYTES:
            size, at = _varint(data, at, stop)
            if at + size > stop:
                raise ValueError("a field exceeds its message")
            yield field, at, at + size
            at += size
        elif wire_type in (_FIXED32, _FIXED64):
            at += 4 if wire_type == _FIXED32 else 8
            yield field, 0, -1
        else:
            raise ValueError("an unknown wire type")
    if at != stop:
        raise ValueError("a field exceeds its message")


def _varint(data: mmap.mmap, at: int, stop: int) -> tuple[int, int]:
    value = shift = 0
    while at < stop and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("a number has no end")
