"""Read pickled NumPy arrays with an unpickler that accepts the names in such files and no others.

A pickle may call any function that it names. Here every accepted name stands for a class of this module
that checks its arguments, not for the one of NumPy, whose states a file could forge; any other name is an
error. So no code that the file chooses is executed.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from senoscope_training.dataset.model import DataSetError

_DTYPE = re.compile(r"[|<>=]?(b1|[iu][1248]|f[248]|[SU]\d{1,3})")
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
        If the file refers to anything else.
    DataSetError
        If the file cannot be opened, is damaged, or is not a pickle.
    """
    try:
        with path.open("rb") as file:
            return _contents(_ArrayUnpickler(file, encoding="latin1").load())
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


class _ArrayUnpickler(pickle._Unpickler):
    # Written in Python: the one in C allocates as many memo entries as a damaged file declares.
    def find_class(self, module: str, name: str) -> Any:
        found = _ACCEPTED.get((module.replace("numpy.core", "numpy._core"), name))  # of NumPy 1 and 2
        if found is None:
            raise _Refused(f"refers to {ascii(f'{module}.{name}'[:100])[1:-1]}")
        return found


class _Dtype:
    """Stands for numpy.dtype; the byte order follows as the state."""

    def __init__(self, code: str, *_: Any) -> None:
        if not _DTYPE.fullmatch(code):
            objects = " (Python objects)" if code.startswith("O") else ""
            raise _Refused(f"contains an array of type {code[:20]!a}{objects}, not of numbers or text")
        self.value = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        # Version, byte order, subarray, field names, fields, size, alignment, flags.
        if any(part is not None for part in state[2:5]):
            raise _Refused("contains an array of records, not of numbers or text")
        self.value = self.value.newbyteorder(state[1])


class _Array:
    """Stands for numpy.ndarray, and for the function that makes one; its contents follow as the state."""

    value: npt.NDArray[Any] | None = None

    def __init__(self, kind: Any, *_: Any) -> None:
        if kind is not _Array:
            raise _Refused("contains an array of another class than numpy.ndarray")

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, is_fortran, data = state
        self._fill(data, dtype, shape, "F" if is_fortran else "C")

    def _fill(self, data: Any, dtype: Any, shape: Any, order: Any) -> None:
        if isinstance(data, str):  # as Python 2 wrote bytes
            data = data.encode("latin1")
        if not isinstance(data, (bytes, bytearray)) or not isinstance(dtype, _Dtype):
            raise _Refused("contains an array of Python objects, not of numbers or text")
        self.value = np.frombuffer(data, dtype.value).reshape(shape, order=order)


class _ArrayFromBuffer(_Array):
    def __init__(self, data: Any, dtype: Any, shape: Any, order: Any) -> None:
        self._fill(data, dtype, shape, order)


class _Scalar(_Array):
    def __init__(self, dtype: Any, data: Any) -> None:
        self._fill(data, dtype, (), "C")


class _Latin1:
    """Stands for codecs.encode, which pickles call to make bytes."""

    def __new__(cls, text: str, encoding: str) -> bytes:  # type: ignore[misc]
        if encoding != "latin1":
            raise _Refused("contains text in another encoding than Latin-1")
        return text.encode("latin1")

    def __setstate__(self, state: Any) -> None:
        raise _Refused("sets attributes of a function")


_ACCEPTED = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "scalar"): _Scalar,
    ("numpy._core.numeric", "_frombuffer"): _ArrayFromBuffer,
    ("_codecs", "encode"): _Latin1,
}


def _contents(value: Any) -> Any:
    """Replace `_Array` by the array, and refuse anything but arrays, numbers, text and containers of them."""
    if isinstance(value, _Scalar) and value.value is not None:
        return value.value[()]
    if isinstance(value, _Array) and value.value is not None:
        return value.value
    if isinstance(value, dict):
        return {key: _contents(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_contents(item) for item in value)
    if not isinstance(value, (int, float, str, bytes, type(None))):
        raise _Refused("contains something other than arrays, numbers and text")
    return value
