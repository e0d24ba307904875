"""What NumPy's own pickles of arrays say, understood without calling anything that they name."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

_MAX_ITEM = 4096  # bytes of one text in an array of texts
_DTYPE = re.compile(r"[|<>=]?(b1|[iu][1248]|f[248]|[SU]\d{1,4}|bool|u?int(8|16|32|64)|float(16|32|64))")
_CODECS = "_codecs.encode"


class Refusal(Exception):
    """Something that plain arrays do not need."""


@dataclass(frozen=True)
class Name:
    """A function or class that the file names; never looked up."""

    path: str


@dataclass
class NumberType:
    """A type of numbers or texts, its byte order still to come."""

    dtype: np.dtype[Any]


@dataclass
class Array:
    """An array, its contents still to come."""

    value: npt.NDArray[Any] | None = None


def _bytes(value: Any) -> bytes | None:
    """Raw bytes; those that Python 2 wrote come as text of Latin-1."""
    if isinstance(value, str):
        try:
            return value.encode("latin1")
        except UnicodeEncodeError:
            return None
    return bytes(value) if isinstance(value, bytearray) else value if isinstance(value, bytes) else None


def _shape(value: Any) -> tuple[int, ...]:
    if not isinstance(value, tuple) or len(value) > 8 or any(type(n) is not int or n < 0 for n in value):
        raise Refusal("has an array whose shape is none")
    return value


def _filled(raw: Any, kind: Any, shape: tuple[int, ...], fortran: bool) -> npt.NDArray[Any]:
    if isinstance(raw, list):
        raise Refusal("holds an array of Python objects")
    data = _bytes(raw)
    if data is None or not isinstance(kind, NumberType):
        raise Refusal("has an array without numbers")
    wanted = prod(shape) * kind.dtype.itemsize
    if wanted != len(data):
        raise Refusal(f"declares an array of {min(wanted, 10**18)} bytes, of which it holds {len(data)}")
    if not data:
        return np.empty(shape, kind.dtype)
    return np.frombuffer(data, kind.dtype).reshape(shape, order="F" if fortran else "C")


def _call_reconstruct(arguments: tuple[Any, ...]) -> Array:
    if len(arguments) != 3 or arguments[0] != Name("numpy.ndarray"):
        raise Refusal("reconstructs something else than numpy.ndarray")
    # NumPy always declares an empty array here; the shape proper comes with the contents.
    if prod(_shape(arguments[1])) != 0:
        raise Refusal("declares an array before its contents")
    return Array()


def _call_dtype(arguments: tuple[Any, ...]) -> NumberType:
    code = arguments[0] if arguments else None
    code = code.decode("latin1") if isinstance(code, bytes) else code
    if not isinstance(code, str) or len(code) > 20:
        raise Refusal("has an array of a type without name")
    if code.lstrip("|<>=").startswith("O") or code == "object":
        raise Refusal("holds an array of Python objects")
    if not _DTYPE.fullmatch(code):
        raise Refusal(f"has an array of type {code!a}; numbers and texts are taken")
    dtype = np.dtype(code)
    if dtype.itemsize > _MAX_ITEM:
        raise Refusal(f"has an array of texts of {dtype.itemsize} bytes")
    return NumberType(dtype)


def _call_scalar(arguments: tuple[Any, ...]) -> Any:
    if len(arguments) != 2:
        raise Refusal("has a number without contents")
    return _filled(arguments[1], arguments[0], (1,), False)[0]


def _call_frombuffer(arguments: tuple[Any, ...]) -> Array:
    if len(arguments) != 4 or arguments[3] not in ("C", "F"):
        raise Refusal("has an array without contents")
    raw, kind, shape, order = arguments
    return Array(_filled(raw, kind, _shape(shape), order == "F"))


def _call_encode(arguments: tuple[Any, ...]) -> bytes:
    if len(arguments) != 2 or not isinstance(arguments[0], str) or arguments[1] not in ("latin1", "latin-1"):
        raise Refusal(f"calls {_CODECS} with something else than text and latin1")
    data = _bytes(arguments[0])
    if data is None:
        raise Refusal(f"calls {_CODECS} with text that is not of Latin-1")
    return data


def build_type(target: NumberType, state: tuple[Any, ...]) -> None:
    """Set the byte order of a type."""
    order = state[1] if len(state) >= 5 else None
    order = order.decode("latin1") if isinstance(order, bytes) else order
    if order not in ("<", ">", "=", "|") or any(part is not None for part in state[2:5]):
        raise Refusal("has an array of records; arrays of numbers are taken")
    target.dtype = target.dtype.newbyteorder(order)  # type: ignore[arg-type]


def build_array(target: Array, state: tuple[Any, ...]) -> None:
    """Give an array its contents."""
    if len(state) != 5:
        raise Refusal("has an array without contents")
    _, shape, kind, fortran, raw = state
    target.value = _filled(raw, kind, _shape(shape), bool(fortran))


def _call_bytes(arguments: tuple[Any, ...]) -> bytes:
    # How the older protocols write no bytes at all.
    if arguments:
        raise Refusal("makes bytes of something")
    return b""


CALLS: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    _CODECS: _call_encode,
    "numpy.dtype": _call_dtype,
    "__builtin__.bytes": _call_bytes,
    "builtins.bytes": _call_bytes,
}
"""What stands for each name that a file may call."""
for _core in ("numpy.core", "numpy._core"):
    CALLS[f"{_core}.multiarray._reconstruct"] = _call_reconstruct
    CALLS[f"{_core}.multiarray.scalar"] = _call_scalar
    CALLS[f"{_core}.numeric._frombuffer"] = _call_frombuffer
