"""Creation of an ONNX file from a recipe: its graph, followed by the drawn kernels.

An ONNX file is a protobuf message. The fields of a message may have any order, so the kernels are appended to
the graph, each as an ``initializer``; the ``onnx`` package is not needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from senoscope.starter.recipe import DrawnKernel, NetworkRecipe

_FLOAT = 1  # TensorProto.DataType
_VARINT, _BYTES = 0, 2  # wire types
# Field numbers of onnx.proto.
_MODEL_GRAPH = 7
_GRAPH_INITIALIZER = 5
_TENSOR_DIMS, _TENSOR_DATA_TYPE, _TENSOR_NAME, _TENSOR_RAW_DATA = 1, 2, 8, 9


def write_network(
    recipe: NetworkRecipe, path: Path, on_written: Callable[[int], object] = lambda _: None
) -> str:
    """Rebuild a network's file.

    Parameters
    ----------
    on_written : callable
        Called with the number of bytes just written, some megabytes at a time.

    Returns
    -------
    str
        SHA-256 of the file.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    digest = hashlib.sha256()
    heads = [_initializer_head(kernel) for kernel in recipe.kernels]
    graph_size = len(recipe.graph) + sum(
        len(head) + kernel.nbytes for head, kernel in zip(heads, recipe.kernels, strict=True)
    )
    with path.open("wb") as file:

        def write(*parts: bytes | memoryview) -> None:
            for part in parts:
                file.write(part)
                digest.update(part)
            on_written(sum(len(part) for part in parts))

        write(recipe.model, _tag(_MODEL_GRAPH, _BYTES), _varint(graph_size), recipe.graph)
        for head, (_, values) in zip(heads, recipe.values(), strict=True):
            write(head, values.astype("<f4", copy=False).data.cast("B"))
    return digest.hexdigest()


def network_size(recipe: NetworkRecipe) -> int:
    """Return the size of the values that :func:`write_network` draws, in bytes; the rest is small."""
    return sum(kernel.nbytes for kernel in recipe.kernels)


def _initializer_head(kernel: DrawnKernel) -> bytes:
    """Return the bytes of a kernel's ``initializer`` field that precede its values."""
    dims = b"".join(_tag(_TENSOR_DIMS, _VARINT) + _varint(size) for size in kernel.shape)
    name = kernel.name.encode()
    tensor = (
        dims
        + _tag(_TENSOR_DATA_TYPE, _VARINT)
        + _varint(_FLOAT)
        + _tag(_TENSOR_NAME, _BYTES)
        + _varint(len(name))
        + name
        + _tag(_TENSOR_RAW_DATA, _BYTES)
        + _varint(kernel.nbytes)
    )
    return _tag(_GRAPH_INITIALIZER, _BYTES) + _varint(len(tensor) + kernel.nbytes) + tensor


def _tag(field: int, wire_type: int) -> bytes:
    return _varint(field << 3 | wire_type)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
