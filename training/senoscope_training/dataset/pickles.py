"""Reading pickled NumPy arrays without unpickling: no function that a file names is ever called.

A pickle is a program for a small stack machine, and Python's machine calls whatever the program names.
The machine here knows numbers, text, lists, tuples and dictionaries, and the few names that NumPy writes
for arrays. Each of these stands for a function of `pickled_arrays` that checks its arguments; every other
name is refused. Nothing is allocated that the file does not itself hold the bytes of.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from senoscope_training.dataset.model import DataSetError
from senoscope_training.dataset.pickled_arrays import (
    CALLS,
    Array,
    Name,
    NumberType,
    Refusal,
    build_array,
    build_type,
)

_MAX_OPCODES = 200_000
_MAX_FILE = 32 * 1024**3
_SAFE = "nothing in the file was executed"

_PUSHED = frozenset(
    {
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
        *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    }
)
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}


class HostilePickle(DataSetError):
    """A pickle that holds, or asks for, something else than plain arrays; nothing in it was executed."""


@dataclass
class _Machine:
    """The stack machine."""

    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)


class _Bounded:
    """A file that gives no more than it holds, and allocates nothing for what it does not hold."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream, self._size = stream, size

    def read(self, count: int) -> bytes:
        if count > self._size - self._stream.tell():
            raise ValueError("declares more bytes than the file has")
        return self._stream.read(count)

    def readline(self) -> bytes:
        return self._stream.readline(1024 * 1024)

    def tell(self) -> int:
        return self._stream.tell()


def read_pickle(path: Path, name: str | None = None) -> Any:
    """What a pickle holds: arrays in lists, tuples and dictionaries.

    Parameters
    ----------
    path : Path
    name : str, optional
        What to call it in messages.

    Returns
    -------
    array, dict, list, tuple, str, bytes, number or None
        Arrays are of booleans, integers, floats or texts, and read-only.

    Raises
    ------
    HostilePickle
        If it asks for anything beyond that, or declares what it does not hold.
    DataSetError
        If it cannot be opened, or is no pickle.
    """
    name = name or path.name
    try:
        with path.open("rb") as stream:
            size = path.stat().st_size
            if size > _MAX_FILE:
                raise DataSetError(f"{name} is larger than 32 GiB; split it")
            return _run(_Bounded(stream, size), name)
    except OSError as error:
        raise DataSetError(f"{name} cannot be opened ({error.strerror})") from error


def _run(stream: _Bounded, name: str) -> Any:
    machine = _Machine()
    try:
        for count, (opcode, argument, _) in enumerate(_opcodes(stream, name)):
            if count > _MAX_OPCODES:
                raise Refusal(f"has more than {_MAX_OPCODES} steps, an array takes about 20")
            if opcode == "STOP":
                if len(machine.stack) != 1:
                    break
                return _plain(machine.stack[0], [_MAX_OPCODES])
            _step(machine, opcode, argument)
    except Refusal as refusal:
        raise HostilePickle(
            f"{name} {refusal}; {_SAFE}. Only pickles of plain NumPy arrays are taken"
        ) from None
    except (IndexError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataSetError(f"{name} is a damaged pickle ({error}); {_SAFE}") from error
    raise DataSetError(f"{name} is a damaged pickle: it ends too early; {_SAFE}")


def _opcodes(stream: _Bounded, name: str) -> Iterator[tuple[str, Any, int | None]]:
    try:
        for opcode, argument, position in pickletools.genops(stream):  # type: ignore[arg-type]
            yield opcode.name, argument, position
    except (ValueError, UnicodeDecodeError, OverflowError) as error:
        if isinstance(error, DataSetError):
            raise
        raise DataSetError(f"{name} is no pickle, or a damaged one ({error}); {_SAFE}") from error


def _step(machine: _Machine, opcode: str, argument: Any) -> None:
    stack = machine.stack
    if opcode in _PUSHED:
        stack.append(argument)
    elif opcode in _CONSTANTS:
        stack.append(_CONSTANTS[opcode])
    elif opcode in {"PROTO", "FRAME"}:
        pass
    elif opcode in _STEPS:
        _STEPS[opcode](machine)
    elif opcode in {"PUT", "BINPUT", "LONG_BINPUT"}:
        machine.memo[int(argument)] = stack[-1]
    elif opcode in {"GET", "BINGET", "LONG_BINGET"}:
        stack.append(machine.memo[int(argument)])
    elif opcode == "GLOBAL":
        _push_name(machine, str(argument).replace(" ", ".", 1))
    elif opcode == "INST":
        raise Refusal(f"asks to call {_shown(str(argument).replace(' ', '.', 1))}")
    else:
        raise Refusal(f"uses the step {opcode}, which arrays do not need")


def _push_name(machine: _Machine, path: str) -> None:
    if path not in CALLS and path != "numpy.ndarray":
        raise Refusal(f"names {_shown(path)}")
    machine.stack.append(Name(path))


def _shown(path: str) -> str:
    return path if len(path) < 100 and path.isprintable() else ascii(path[:100])


def _pop_to_mark(machine: _Machine) -> list[Any]:
    at = machine.marks.pop()
    items = machine.stack[at:]
    del machine.stack[at:]
    return items


def _stack_global(machine: _Machine) -> None:
    attribute, module = machine.stack.pop(), machine.stack.pop()
    if not isinstance(attribute, str) or not isinstance(module, str):
        raise Refusal("names something by what is no text")
    _push_name(machine, f"{module}.{attribute}")


def _tuple(length: int) -> Callable[[_Machine], None]:
    def step(machine: _Machine) -> None:
        if len(machine.stack) < length:
            raise IndexError("too few values for a tuple")
        at = len(machine.stack) - length
        machine.stack[at:] = [tuple(machine.stack[at:])]

    return step


def _append(machine: _Machine, items: list[Any]) -> None:
    target = machine.stack[-1]
    if not isinstance(target, list):
        raise Refusal("appends to what is no list")
    target += items


def _set(machine: _Machine, items: list[Any]) -> None:
    target = machine.stack[-1]
    if not isinstance(target, dict) or len(items) % 2:
        raise Refusal("fills what is no dictionary")
    for key, value in zip(items[::2], items[1::2], strict=True):
        # Nested tuples as keys would take time without end to hash.
        if not isinstance(key, (str, bytes, int)):
            raise Refusal("has a dictionary whose keys are no texts")
        target[key.decode("latin1") if isinstance(key, bytes) else key] = value


def _dict(machine: _Machine) -> None:
    items = _pop_to_mark(machine)
    machine.stack.append({})
    _set(machine, items)


def _set_one(machine: _Machine) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    _set(machine, [key, value])


def _pop(machine: _Machine) -> None:
    if machine.marks and machine.marks[-1] == len(machine.stack):
        machine.marks.pop()
    else:
        machine.stack.pop()


def _append_one(machine: _Machine) -> None:
    item = machine.stack.pop()
    _append(machine, [item])


def _memoize(machine: _Machine) -> None:
    machine.memo[len(machine.memo)] = machine.stack[-1]


def _reduce(machine: _Machine) -> None:
    arguments, name = machine.stack.pop(), machine.stack.pop()
    if not isinstance(name, Name) or not isinstance(arguments, tuple) or name.path not in CALLS:
        raise Refusal("calls what is no function of NumPy's arrays")
    machine.stack.append(CALLS[name.path](arguments))


def _build(machine: _Machine) -> None:
    state, target = machine.stack.pop(), machine.stack[-1]
    if isinstance(target, NumberType) and isinstance(state, tuple):
        build_type(target, state)
    elif isinstance(target, Array) and isinstance(state, tuple):
        build_array(target, state)
    else:
        raise Refusal("sets the inside of what is no array")


_STEPS: dict[str, Callable[[_Machine], None]] = {
    "MARK": lambda machine: machine.marks.append(len(machine.stack)),
    "POP": _pop,
    "POP_MARK": lambda machine: machine.stack.__delitem__(slice(machine.marks.pop(), None)),
    "DUP": lambda machine: machine.stack.append(machine.stack[-1]),
    "EMPTY_LIST": lambda machine: machine.stack.append([]),
    "EMPTY_DICT": lambda machine: machine.stack.append({}),
    "EMPTY_TUPLE": lambda machine: machine.stack.append(()),
    "LIST": lambda machine: machine.stack.append(_pop_to_mark(machine)),
    "TUPLE": lambda machine: machine.stack.append(tuple(_pop_to_mark(machine))),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "DICT": _dict,
    "APPEND": _append_one,
    "APPENDS": lambda machine: _append(machine, _pop_to_mark(machine)),
    "SETITEM": _set_one,
    "SETITEMS": lambda machine: _set(machine, _pop_to_mark(machine)),
    "MEMOIZE": _memoize,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _reduce,
    "BUILD": _build,
}


def _plain(value: Any, left: list[int], depth: int = 0) -> Any:
    """What was made, without the machine's own marks; containers at most some levels deep."""
    left[0] -= 1
    if left[0] < 0 or depth > 3:  # real files have two levels; shared lists in lists would multiply
        raise Refusal("nests lists or dictionaries too deep, or too often")
    if isinstance(value, Array) and value.value is not None:
        return value.value
    if isinstance(value, (Name, NumberType, Array)):
        raise Refusal("holds something else than arrays")
    if isinstance(value, dict):
        return {key: _plain(item, left, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [_plain(item, left, depth + 1) for item in value]
        return items if isinstance(value, list) else tuple(items)
    return value
