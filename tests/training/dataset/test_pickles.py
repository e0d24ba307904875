"""Pickles of arrays are read as `pickle` reads them; unsafe ones are refused without executing anything."""

from __future__ import annotations

import os
import pickle
import pickletools
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from senoscope_training.dataset.model import DataSetError
from senoscope_training.dataset.pickles import UnsafePickle, read_pickle

MARKER = "executed"
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
ARRAY = np.arange(2 * 3 * 4).reshape(2, 3, 4)
ARRAYS = {
    "uint8": ARRAY.astype("u1"),
    "big-endian uint16": ARRAY.astype(">u2"),
    "float64": ARRAY.astype("f8"),
    "booleans": ARRAY > 3,
    "text": ARRAY.astype("U2"),
    "bytes": ARRAY.astype("S2"),
    "Fortran order": np.asfortranarray(ARRAY),
    "strided": ARRAY[::-1, :, ::2],
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arrays_are_read_as_pickle_reads_them(tmp_path, protocol):
    path = tmp_path / "x.pickle"
    value = {**ARRAYS, "again": ARRAYS["uint8"], "rows": [ARRAY[:1], (1, None)]}
    path.write_bytes(pickle.dumps(value, protocol))
    read = read_pickle(path)
    assert list(read) == list(value)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(read[name], array, strict=True)
    np.testing.assert_array_equal(read["again"], ARRAYS["uint8"], strict=True)
    assert read["rows"][1] == (1, None)


def test_an_empty_array(tmp_path):
    (tmp_path / "x").write_bytes(pickle.dumps(ARRAY[:0]))
    assert read_pickle(tmp_path / "x").shape == (0, 3, 4)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_numpy_scalars_and_python_values(tmp_path, protocol):
    value = {
        "train_label": [np.int64(3), np.float32(0.5), np.bool_(True), 7, -(2**70), 1.5, "ü", b"\xff", True]
    }
    path = tmp_path / "x.pickle"
    path.write_bytes(pickle.dumps(value, protocol))
    assert read_pickle(path) == value


def test_module_names_of_numpy_1(tmp_path):
    data = pickle.dumps(np.arange(5), 2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    (tmp_path / "x").write_bytes(data)
    np.testing.assert_array_equal(read_pickle(tmp_path / "x"), np.arange(5))


def test_a_pickle_of_python_2(tmp_path):
    """Text was bytes then: keys and contents are BINSTRING."""
    raw = np.arange(200, 204, dtype=np.uint8).tobytes()
    data = (
        b"\x80\x02}U\x0atrain_datacnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
    )
    data += b"(K\x01K\x04\x85cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xff"
    data += b"J\xff\xff\xff\xffK\x00tb\x89U\x04" + raw + b"tbs."
    (tmp_path / "x").write_bytes(data)
    np.testing.assert_array_equal(read_pickle(tmp_path / "x")["train_data"], [200, 201, 202, 203])


class Calls:
    """An object whose pickle calls a function."""

    def __init__(self, function, *arguments):
        self.reduced = (function, arguments)

    def __reduce__(self):
        return self.reduced


class Subtype(np.ndarray):
    pass


def touch(name: str = MARKER) -> str:
    return f"open({name!r}, 'w').close()"


def text(*lines: str) -> bytes:
    return "\n".join(lines).encode()


def short(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def stack_global(module: str, name: str) -> bytes:
    return short(module) + short(name) + b"\x93"


def array_state(shape: bytes, raw: bytes, dtype: str = "u1") -> bytes:
    """Return the pickle of an array, with opcodes for its shape and its data."""
    data = b"\x80\x04" + stack_global("numpy.core.multiarray", "_reconstruct")
    data += stack_global("numpy", "ndarray") + b"K\x00\x85C\x01b\x87R(K\x01" + shape
    return data + stack_global("numpy", "dtype") + short(dtype) + b"\x89\x88\x87R\x89" + raw + b"tb."


def reconstruct(kind: bytes, shape: bytes = b"K\x00\x85") -> bytes:
    data = b"\x80\x04" + stack_global("numpy.core.multiarray", "_reconstruct")
    return data + kind + shape + b"C\x01b\x87R."


@dataclass(frozen=True)
class Unsafe:
    name: str
    data: bytes
    reason: str


UNSAFE = [
    Unsafe("os.system", pickle.dumps(Calls(os.system, f"echo > {MARKER}")), f"refers to {os.name}.system"),
    Unsafe(
        "os.system, protocol 0",
        text("cos", "system", f"(S'echo > {MARKER}'", "tR."),
        "refers to os.system",
    ),
    Unsafe("eval", pickle.dumps(Calls(eval, touch())), "refers to builtins.eval"),
    Unsafe(
        "eval of Python 2",
        text("c__builtin__", "eval", f'(S"{touch()}"', "tR."),
        "refers to __builtin__.eval",
    ),
    Unsafe(
        "loads in loads",
        pickle.dumps(Calls(pickle.loads, pickle.dumps(Calls(eval, touch())))),
        "refers to _pickle.loads",
    ),
    Unsafe("INST", text("(S'touch executed'", "ios", "system", "."), "refers to os.system"),
    Unsafe(
        "attribute of an accepted name",
        b"\x80\x04" + stack_global("numpy", "ndarray.__class__.__base__") + b".",
        "refers to numpy.ndarray.__class__.__base__",
    ),
    Unsafe(
        "accepted name as module",
        b"\x80\x04" + stack_global("numpy.core.multiarray._reconstruct", "__globals__") + b".",
        "refers to numpy.core.multiarray._reconstruct.__globals__",
    ),
    Unsafe(
        "function of numpy that executes text",
        text("cnumpy.testing._private.utils", "runstring", f'(S"{touch()}"', "}tR."),
        "refers to numpy.testing._private.utils.runstring",
    ),
    Unsafe("control characters", text("cos\x1b[2J", "system", "."), r"refers to os\x1b[2J.system"),
    Unsafe("array of objects", pickle.dumps(np.array([{}, 1], object)), "type 'O8' (Python objects)"),
    Unsafe("objects in place of numbers", array_state(b"K\x01\x85", b"]K\x01a"), "Python objects"),
    Unsafe("record array", pickle.dumps(np.zeros(2, [("a", "i4"), ("b", "O")])), "type 'V12'"),
    Unsafe(
        "fields of a number",
        b"\x80\x02cnumpy\ndtype\nU\x02i4K\x00K\x01\x87R"
        b"(K\x03U\x01<NU\x01aU\x01bJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb.",
        "records",
    ),
    Unsafe("data type of several", array_state(b"K\x01\x85", b"C\x01a", "i4,O"), "type 'i4,O'"),
    Unsafe("data type of huge items", array_state(b"K\x01\x85", b"C\x01a", "U9999999"), "type 'U9999999'"),
    Unsafe("subclass of ndarray", pickle.dumps(np.zeros(2).view(Subtype)), "Subtype"),
    Unsafe("array of another class", reconstruct(stack_global("numpy", "dtype")), "another class"),
    Unsafe("other encoding", text("c_codecs", "encode", "(S'x'", "S'rot13'", "tR."), "another encoding"),
    Unsafe("call of the class", text("cnumpy", "ndarray", "(I5", "tR."), "another class than numpy.ndarray"),
    Unsafe("class that is not called", b"\x80\x02cnumpy\nndarray\n)\x81.", "something other than arrays"),
    Unsafe("set", pickle.dumps({1, 2}), "something other than arrays"),
    Unsafe("function as a value", text("cnumpy", "ndarray", "."), "something other than arrays"),
]


@pytest.mark.parametrize("case", UNSAFE, ids=lambda case: case.name)
def test_an_unsafe_pickle_is_refused_and_nothing_is_executed(tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.pickle"
    path.write_bytes(case.data)
    with pytest.raises(UnsafePickle) as caught:
        read_pickle(path)
    assert case.reason in str(caught.value).replace("nt.system", "posix.system")
    assert str(caught.value).startswith("bad.pickle ")
    assert "nothing in the file was executed" in str(caught.value)
    assert not (tmp_path / MARKER).exists()


@pytest.mark.parametrize(
    "data", [pickle.dumps(Calls(eval, touch())), text("c__builtin__", "eval", f'(S"{touch()}"', "tR.")]
)
def test_pickle_itself_executes_these(tmp_path, monkeypatch, data):
    # Otherwise the test above could not fail.
    monkeypatch.chdir(tmp_path)
    pickle.loads(data)
    assert (tmp_path / MARKER).exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a pickle",
        b"\x80\x04",
        b"\x80\x04.",
        b"\x80\x04N",
        b"\x80\x04e.",
        b"\x80\x04h\x07.",
        b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x.",
        b"\x80\x05\x96" + struct.pack("<Q", 2**62) + b"x.",
        b"\x80\x04\x95" + struct.pack("<Q", 2**63) + b"N.",
        b"\x80\x04Nr\xff\xff\xff\xff0.",  # a huge number of memo entries
        b"\x80\x02]q\x00h\x00a.",  # a list in itself
        b"\x80\x04" + b"]" * 5000 + b"a" * 4999 + b".",  # deep lists
        b"\x80\x02cnumpy\nndarray\n}b.",  # the state of a class
        array_state(b"J\xff\xff\xff\x7f\x85", b"C\x01a"),  # a shape that does not fit
        b"I" + b"9" * 5000 + b"\n.",
        b"\x80\x04\x8c\x09os.system)R.",  # a call of text
        b"\x80\x02}}U\x01aK\x01sb.",  # the state of a dictionary
        text("Pexecuted", "."),  # a persistent id
        b"\x80\x02\x82\x01.",  # a registered extension
        b"\x80\x05\x97.",  # a buffer outside of the file
        pickle.dumps(np.arange(1000))[:-20],
    ],
)
def test_a_damaged_pickle_is_reported(tmp_path, data):
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(DataSetError, match=r"(?s)^x is damaged, or is not a pickle .*nothing .*was executed"):
        read_pickle(tmp_path / "x")


def test_a_missing_file(tmp_path):
    with pytest.raises(DataSetError, match="cannot be opened"):
        read_pickle(tmp_path / "x")


OPCODES = [opcode.code.encode("latin1") for opcode in pickletools.opcodes]
BASE = pickle.dumps({"train_data": np.arange(20, dtype=np.uint16).reshape(4, 5), "l": [np.int64(1)]}, 4)


@settings(deadline=None, max_examples=120)
@given(st.lists(st.tuples(st.integers(0, len(BASE) - 1), st.integers(0, 255)), max_size=4))
def test_changed_bytes_give_arrays_or_an_error(tmp_path_factory, changes):
    data = bytearray(BASE)
    for at, value in changes:
        data[at] = value
    read_or_refuse(tmp_path_factory.mktemp("x") / "x", bytes(data))


@settings(deadline=None, max_examples=120)
@given(st.lists(st.sampled_from(OPCODES) | st.binary(max_size=4), max_size=40).map(b"".join))
def test_random_opcodes_give_values_or_an_error(tmp_path_factory, data):
    read_or_refuse(tmp_path_factory.mktemp("x") / "x", data)


def read_or_refuse(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    try:
        value = read_pickle(path)
    except DataSetError:
        return
    assert type(value).__module__ in ("builtins", "numpy")


def test_no_module_is_imported(tmp_path):
    (tmp_path / "x").write_bytes(b"\x80\x04" + stack_global("this", "s") + b".")
    with pytest.raises(UnsafePickle, match=r"refers to this\.s"):
        read_pickle(tmp_path / "x")
    assert "this" not in sys.modules
