"""Read pickled NumPy arrays with an unpickler that accepts the names in such files and no others.

A pickle may call any function that it names. Here every accepted name stands for a function of this module
that checks its arguments, and any other name is an error: no code that the file chooses is executed, and
no memory is allocated for data that the file does not contain.
"""

from __future__ import annotations

import pickle
import pickletools
import re
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from senoscope_training.dataset.model import DataSetError

_DTYPE = re.compile(r"[|<>=]?(b1|[iu][1248]|f[248]|[SU]\d{1,3})")
_BYTE_ORDERS = ("<", ">", "=", "|")
_MAX_ITEMS = 200_000  # in lists, tuples and dictionaries together
_MAX_DEPTH = 10
_NOT_EXECUTED = "nothing in the file was executed"


class UnsafePickle(DataSetError):
    """A pickle that contains, or refers to, anything but plain arrays; nothing in it was executed."""


class _Refused(Exception):
    """The reason for refusing a pickle, as it continues the name of the file."""


def read_pickle(path: Path) -> Any:
    """Read arrays, and lists, tuples and dictionaries of arrays, from a pickle.

    Returns
    -------
    array, dict, list, tuple, str, bytes, number or None
        Arrays are of booleans, integers, floats or text.

    Raises
    ------
    UnsafePickle
        If the file refers to anything else, or declares more data than it contains.
    DataSetError
        If the file cannot be opened, is damaged, or is not a pickle.
    """
    try:
        with path.open("rb") as file:
            stream = _BoundedFile(file, path.stat().st_size)
            _check_memo(stream)
            file.seek(0)
            return _contents(_ArrayUnpickler(stream, encoding="latin1").load(), [_MAX_ITEMS])
    except _Refused as refused:
        raise UnsafePickle(
            f"{path.name} {refused}; {_NOT_EXECUTED}. Only pickles of plain NumPy arrays are accepted"
        ) from None
    except OSError as error:
        raise DataSetError(f"{path.name} cannot be opened ({error.strerror})") from error
    except Exception as error:  # a damaged pickle can raise almost any
        raise DataSetError(
            f"{path.name} is damaged, or is not a pickle of arrays ({error}); {_NOT_EXECUTED}"
        ) from error


class _BoundedFile:
    """A file from which no more bytes can be requested than it has left."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        self.readline, self.tell = file.readline, file.tell

    def read(self, count: int) -> bytes:
        if count > self._size - self._file.tell():
            raise ValueError("it ends too early")
        return self._file.read(count)


def _check_memo(stream: _BoundedFile) -> None:
    """Refuse numbers of memo entries that exceed the entries: the unpickler allocates a list that long."""
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):  # type: ignore[arg-type]
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > count:
            raise _Refused(f"declares {argument} memo entries, but contains at most {count}")


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = _ACCEPTED.get((module, name))
        if found is None:
            raise _Refused(f"refers to {ascii(f'{module}.{name}'[:100])[1:-1]}")
        return found


class _Function:
    """A function that a pickle may call; the pickle can set no attribute of it."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise _Refused("sets attributes of a function")


class _Dtype:
    """The data type of an array; its byte order follows as the state."""

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or not _DTYPE.fullmatch(code):
            shown = f"type {code[:20]!a}" if isinstance(code, str) else "an unknown type"
            objects = " (Python objects)" if shown.startswith("type 'O") else ""
            raise _Refused(f"contains an array of {shown}{objects}, not of numbers or text")
        self.value = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        # Version, byte order, subarray, field names, fields, size, alignment, flags.
        if state[1] not in _BYTE_ORDERS or any(part is not None for part in state[2:5]):
            raise _Refused("contains an array of records, not of numbers or text")
        self.value = self.value.newbyteorder(state[1])


class _Array:
    """An array; its contents follow as the state."""

    value: npt.NDArray[Any] | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, is_fortran, data = state
        self.value = _array(data, dtype, shape, "F" if is_fortran else "C")


def _array(data: Any, dtype: Any, shape: Any, order: Any) -> npt.NDArray[Any]:
    if isinstance(data, str):  # as Python 2 wrote bytes
        data = data.encode("latin1")
    if not isinstance(data, (bytes, bytearray)) or not isinstance(dtype, _Dtype):
        raise _Refused("contains an array of Python objects, not of numbers or text")
    if not all(type(extent) is int and extent >= 0 for extent in shape):
        raise _Refused("contains an array with an invalid shape")
    size = prod(shape) * dtype.value.itemsize
    if size != len(data):
        raise _Refused(f"declares an array of {size:.4g} bytes, but contains {len(data)} bytes of it")
    return np.ndarray(shape, dtype.value, data, order=order)


def _reconstruct(kind: Any, *_: Any) -> _Array:
    if kind is not _NDARRAY:
        raise _Refused("contains an array of another class than numpy.ndarray")
    return _Array()


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    made = _Array()
    made.value = _array(data, dtype, shape, order)
    return made


def _scalar(dtype: Any, data: Any) -> Any:
    return _array(data, dtype, (), "C")[()]


def _encode(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise _Refused("contains text in another encoding than Latin-1")
    return text.encode("latin1")


_NDARRAY = _Function(lambda *_: _reconstruct(None))  # an argument of _reconstruct, and not to be called
_ACCEPTED = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Function(_Dtype),
    ("_codecs", "encode"): _Function(_encode),
}
for _core in ("numpy.core", "numpy._core"):  # of NumPy 1 and 2
    _ACCEPTED[f"{_core}.multiarray", "_reconstruct"] = _Function(_reconstruct)
    _ACCEPTED[f"{_core}.multiarray", "scalar"] = _Function(_scalar)
    _ACCEPTED[f"{_core}.numeric", "_frombuffer"] = _Function(_from_buffer)


def _contents(value: Any, items_left: list[int], depth: int = 0) -> Any:
    """Replace `_Array` by the array, and refuse anything but arrays, numbers, text and containers of them."""
    items_left[0] -= 1
    if items_left[0] < 0 or depth > _MAX_DEPTH:
        raise _Refused(f"nests lists deeper than {_MAX_DEPTH}, or has more than {_MAX_ITEMS} items in them")
    if isinstance(value, _Array) and value.value is not None:
        return value.value
    if isinstance(value, dict):
        return {key: _contents(item, items_left, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_contents(item, items_left, depth + 1) for item in value)
    if not isinstance(value, (int, float, str, bytes, np.generic, type(None))):
        raise _Refused("contains something other than arrays, numbers and text")
    return value
