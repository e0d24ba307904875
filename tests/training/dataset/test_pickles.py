"""Pickles of arrays are read like pickle reads them; hostile ones are refused and nothing runs."""

from __future__ import annotations

import os
import pickle
import pickletools
import struct
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from senoscope_training.dataset.model import DataSetError
from senoscope_training.dataset.pickles import HostilePickle, read_pickle

MARKER = "executed"


DTYPES = ("u1", "<u2", ">u2", "i8", "f4", ">f8", "?", "U9", "S4", "f2")
LAYOUTS = ("C", "F", "strided", "empty", "read-only")
# Each protocol with each type, the layouts by turns: every two of the three meet.
PAIRS = [
    (protocol, dtype, LAYOUTS[(protocol + number) % len(LAYOUTS)])
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    for number, dtype in enumerate(DTYPES)
]


@pytest.mark.parametrize(("protocol", "dtype", "layout"), PAIRS)
def test_arrays_come_as_pickle_reads_them(tmp_path, protocol, dtype, layout):
    array = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5).astype(dtype)
    if layout == "F":
        array = np.asfortranarray(array)
    elif layout == "strided":
        array = array[::-1, :, ::2]
    elif layout == "empty":
        array = array[:0]
    elif layout == "read-only":
        array.flags.writeable = False
    path = tmp_path / "x.pickle"
    path.write_bytes(
        pickle.dumps({"train_data": array, "again": array, "rows": [array[:1], (1, None)]}, protocol)
    )
    read = read_pickle(path)
    assert list(read) == ["train_data", "again", "rows"]
    for one in (read["train_data"], read["again"]):
        np.testing.assert_array_equal(one, array, strict=True)
    assert read["rows"][1] == (1, None)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_numbers_of_numpy_and_of_python(tmp_path, protocol):
    value = {
        "train_label": [np.int64(3), np.float32(0.5), np.bool_(True), 7, -(2**70), 1.5, "ü", b"\xff", True]
    }
    path = tmp_path / "x.pickle"
    path.write_bytes(pickle.dumps(value, protocol))
    assert read_pickle(path) == value


def test_names_of_numpy_1(tmp_path):
    data = pickle.dumps(np.arange(5), 2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    (tmp_path / "x").write_bytes(data)
    np.testing.assert_array_equal(read_pickle(tmp_path / "x"), np.arange(5))


def test_what_python_2_wrote(tmp_path):
    """Text was bytes then: keys and contents come as BINSTRING."""
    raw = np.arange(200, 204, dtype=np.uint8).tobytes()
    data = (
        b"\x80\x02}U\x0atrain_datacnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
    )
    data += b"(K\x01K\x04\x85cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xff"
    data += b"J\xff\xff\xff\xffK\x00tb\x89U\x04" + raw + b"tbs."
    (tmp_path / "x").write_bytes(data)
    np.testing.assert_array_equal(read_pickle(tmp_path / "x")["train_data"], [200, 201, 202, 203])


class Calls:
    """Pickled, it is a call of a function."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

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


def nested(depth: int) -> bytes:
    return b"\x80\x04" + b"(" * depth + b"l" + b"l" * (depth - 1) + b"."


def array_state(shape: bytes, raw: bytes, dtype: str = "u1") -> bytes:
    """An array that declares a shape, given as opcodes."""
    data = b"\x80\x04" + stack_global("numpy.core.multiarray", "_reconstruct")
    data += stack_global("numpy", "ndarray") + b"K\x00\x85C\x01b\x87R(K\x01" + shape
    return data + stack_global("numpy", "dtype") + short(dtype) + b"\x89\x88\x87R\x89" + raw + b"tb."


def reconstruct(kind: bytes, shape: bytes = b"K\x00\x85") -> bytes:
    data = b"\x80\x04" + stack_global("numpy.core.multiarray", "_reconstruct")
    return data + kind + shape + b"C\x01b\x87R."


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """Bytes that may be allocated inside."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < size
    finally:
        tracemalloc.stop()


@dataclass(frozen=True)
class Hostile:
    name: str
    data: bytes
    tells: str


HOSTILE = [
    Hostile(
        "os.system",
        pickle.dumps(Calls(os.system, f"echo > {MARKER}")),
        f"names {os.name if os.name == 'nt' else 'posix'}.system",
    ),
    Hostile("os.system, protocol 0", text("cos", "system", f"(S'echo > {MARKER}'", "tR."), "names os.system"),
    Hostile("eval", pickle.dumps(Calls(eval, touch())), "names builtins.eval"),
    Hostile(
        "exec of Python 2", text("c__builtin__", "eval", f'(S"{touch()}"', "tR."), "names __builtin__.eval"
    ),
    Hostile("subprocess", pickle.dumps(Calls(subprocess.Popen, ["touch", MARKER])), "names subprocess.Popen"),
    Hostile("getattr", text("cbuiltins", "getattr", "."), "names builtins.getattr"),
    Hostile(
        "dotted name",
        b"\x80\x04" + stack_global("numpy", "ndarray.__class__.__base__") + b".",
        "names numpy.ndarray.__class__.__base__",
    ),
    Hostile(
        "through numpy", b"\x80\x04" + stack_global("numpy", "os.system") + b".", "names numpy.os.system"
    ),
    Hostile(
        "dotted module",
        b"\x80\x04" + stack_global("numpy.core.multiarray._reconstruct", "__globals__") + b".",
        "names numpy.core.multiarray._reconstruct.__globals__",
    ),
    Hostile(
        "runstring",
        text("cnumpy.testing._private.utils", "runstring", f'(S"{touch()}"', "}tR."),
        "names numpy.testing._private.utils.runstring",
    ),
    Hostile(
        "f2py",
        text("cnumpy.f2py.crackfortran", "myeval", f'(S"{touch()}"', "tR."),
        "names numpy.f2py.crackfortran.myeval",
    ),
    Hostile(
        "f2py.diagnose",
        text("cnumpy.f2py.diagnose", "run_command", f"(S'touch {MARKER}'", "tR."),
        "names numpy.f2py.diagnose.run_command",
    ),
    Hostile("numpy.load", text("cnumpy", "load", "(S'x'", "tR."), "names numpy.load"),
    Hostile(
        "loads in loads",
        pickle.dumps(Calls(pickle.loads, pickle.dumps(Calls(eval, touch())))),
        "names _pickle.loads",
    ),
    Hostile("INST", text("(S'touch executed'", "ios", "system", "."), "asks to call os.system"),
    Hostile("OBJ", b"(cos\nsystem\nS'touch executed'\no.", "names os.system"),
    Hostile("OBJ without a name", b"(K\x01K\x02o.", "step OBJ"),
    Hostile("NEWOBJ", b"\x80\x02cnumpy\nndarray\n)\x81.", "step NEWOBJ"),
    Hostile("NEWOBJ_EX", b"\x80\x04" + stack_global("numpy", "ndarray") + b")}\x92.", "step NEWOBJ_EX"),
    Hostile("persistent id", text("Pexecuted", "."), "step PERSID"),
    Hostile("binary persistent id", b"\x80\x02U\x08executedQ.", "step BINPERSID"),
    Hostile("EXT1", b"\x80\x02\x82\x01.", "step EXT1"),
    Hostile("EXT2", b"\x80\x02\x83\x01\x01.", "step EXT2"),
    Hostile("EXT4", b"\x80\x02\x84\x01\x01\x01\x01.", "step EXT4"),
    Hostile("buffer from elsewhere", b"\x80\x05\x97.", "step NEXT_BUFFER"),
    Hostile("set", pickle.dumps({1, 2}), "step EMPTY_SET"),
    Hostile("array of objects", pickle.dumps(np.array([{}, 1], object)), "Python objects"),
    Hostile("objects under a number's type", array_state(b"K\x01\x85", b"]K\x01a"), "Python objects"),
    Hostile("record array", pickle.dumps(np.zeros(2, [("a", "i4"), ("b", "O")])), "type 'V12'"),
    Hostile(
        "fields on a plain type",
        b"\x80\x02cnumpy\ndtype\nU\x02i4K\x00K\x01\x87R"
        b"(K\x03U\x01<NU\x01aU\x01bJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb.",
        "records",
    ),
    Hostile("type by expression", array_state(b"K\x01\x85", b"C\x01a", "i4,O"), "type 'i4,O'"),
    Hostile("huge text type", array_state(b"K\x01\x85", b"C\x01a", "U9999"), "39996 bytes"),
    Hostile("subtype", pickle.dumps(np.zeros(2).view(Subtype)), "Subtype"),
    Hostile(
        "reconstruct a type", reconstruct(stack_global("numpy", "dtype")), "something else than numpy.ndarray"
    ),
    Hostile("reconstruct a text", reconstruct(short("numpy.ndarray")), "something else than numpy.ndarray"),
    Hostile(
        "reconstruct at once",
        reconstruct(stack_global("numpy", "ndarray"), b"J\xff\xff\xff\x7f\x85"),
        "before its contents",
    ),
    Hostile("other encoding", text("c_codecs", "encode", "(S'x'", "S'rot13'", "tR."), "text and latin1"),
    Hostile(
        "third argument", text("c_codecs", "encode", "(S'x'", "S'latin1'", "S'x'", "tR."), "text and latin1"
    ),
    Hostile("encode no text", text("c_codecs", "encode", "(I1", "S'latin1'", "tR."), "text and latin1"),
    Hostile(
        "bytes of a number", text("c__builtin__", "bytes", "(I99999999999", "tR."), "makes bytes of something"
    ),
    Hostile(
        "huge shape", array_state(b"(" + b"J\xff\xff\xff\x7f" * 3 + b"t", b"C\x01a"), "of which it holds 1"
    ),
    Hostile("negative shape", array_state(b"J\xff\xff\xff\xff\x85", b"C\x01a"), "shape is none"),
    Hostile("shape of many axes", array_state(b"(" + b"K\x01" * 33 + b"t", b"C\x01a"), "shape is none"),
    Hostile("boolean shape", array_state(b"\x88\x85", b"C\x01a"), "shape is none"),
    Hostile("calls a text", b"\x80\x04\x8c\x09os.system)R.", "no function of NumPy"),
    Hostile(
        "calls the class",
        b"\x80\x04" + stack_global("numpy", "ndarray") + b"K\x05\x85R.",
        "no function of NumPy",
    ),
    Hostile("state of a dictionary", b"\x80\x02}}b.", "inside of what is no array"),
    Hostile("state of a class", b"\x80\x02cnumpy\nndarray\n}b.", "inside of what is no array"),
    Hostile("only a name", text("cnumpy", "ndarray", "."), "something else than arrays"),
    Hostile(
        "array without contents", reconstruct(stack_global("numpy", "ndarray")), "something else than arrays"
    ),
    Hostile("deep", nested(50_000), "too deep"),
    Hostile("endless", b"\x80\x02]q\x00h\x00a.", "too deep"),
    Hostile("too many steps", b"\x80\x02" + b"N0" * 110_000 + b"N.", "steps"),
    Hostile(
        "lists that multiply",
        b"\x80\x02]q\x00(" + b"N" * 9000 + b"e0]q\x01(" + b"h\x00" * 9000 + b"e.",
        "too often",
    ),
    Hostile("tuples to hash", b"\x80\x02}K\x01q\x00" + b"h\x00\x86q\x00" * 60 + b"Ns.", "keys are no texts"),
    Hostile("name of no text", b"\x80\x04K\x01K\x02\x93.", "by what is no text"),
    Hostile("name of control characters", text("cos\x1b[2J", "system", "."), r"names 'os\x1b[2J.system'"),
]


@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: case.name)
def test_a_hostile_pickle_is_refused_and_nothing_runs(tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.pickle"
    path.write_bytes(case.data)
    began = time.monotonic()
    with at_most(64 * 2**20), pytest.raises(HostilePickle) as caught:
        read_pickle(path)
    assert case.tells in str(caught.value)
    assert str(caught.value).startswith("bad.pickle ")
    assert "nothing in the file was executed" in str(caught.value)
    assert not (tmp_path / MARKER).exists()
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    "data", [pickle.dumps(Calls(eval, touch())), text("c__builtin__", "eval", f'(S"{touch()}"', "tR.")]
)
def test_the_hostile_ones_would_run_in_pickle(tmp_path, monkeypatch, data):
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
        b"\x80\x04NN.",
        b"\x80\x040.",
        b"\x80\x04e.",
        b"\x80\x04h\x07.",
        b"\x80\x04\x86.",
        b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x.",
        b"\x80\x05\x96" + struct.pack("<Q", 2**62) + b"x.",
        b"\x80\x04B\xff\xff\xff\xffx.",
        b"\x80\x04\x8b\xff\xff\xff\x7fx.",
        b"\x80\x04\x95" + struct.pack("<Q", 2**63) + b"N",
        b"I" + b"9" * 5000 + b"\n.",
        b"S'open\n.",
        pickle.dumps(np.arange(1000))[:-20],
    ],
)
def test_a_damaged_pickle_is_an_error_that_says_so(tmp_path, data):
    (tmp_path / "x").write_bytes(data)
    with (
        at_most(2**20),
        pytest.raises(
            DataSetError, match=r"(?s)^x is (no|a damaged) pickle.*nothing in the file was executed"
        ),
    ):
        read_pickle(tmp_path / "x")


def test_a_memo_of_absurd_numbers_takes_no_memory(tmp_path):
    (tmp_path / "x").write_bytes(b"\x80\x04Nr\xff\xff\xff\xff.")
    with at_most(2**20):
        assert read_pickle(tmp_path / "x") is None


def test_no_file(tmp_path):
    with pytest.raises(DataSetError, match="cannot be opened"):
        read_pickle(tmp_path / "x")


OPCODES = [opcode.code.encode("latin1") for opcode in pickletools.opcodes]
BASE = pickle.dumps({"train_data": np.arange(20, dtype=np.uint16).reshape(4, 5), "l": [np.int64(1)]}, 4)


@settings(deadline=None, max_examples=120)
@given(st.lists(st.tuples(st.integers(0, len(BASE) - 1), st.integers(0, 255)), max_size=4))
def test_flipped_bytes_give_arrays_or_an_error(tmp_path_factory, flips):
    data = bytearray(BASE)
    for at, value in flips:
        data[at] = value
    read_or_refuse(tmp_path_factory.mktemp("x") / "x", bytes(data))


@settings(deadline=None, max_examples=120)
@given(st.lists(st.sampled_from(OPCODES) | st.binary(max_size=4), max_size=40).map(b"".join))
def test_random_steps_give_values_or_an_error(tmp_path_factory, data):
    read_or_refuse(tmp_path_factory.mktemp("x") / "x", data)


def read_or_refuse(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    try:
        value = read_pickle(path)
    except DataSetError:
        return
    assert type(value).__module__ in ("builtins", "numpy")


def test_nothing_is_imported(tmp_path):
    (tmp_path / "x").write_bytes(b"\x80\x04" + stack_global("this", "s") + b".")
    with pytest.raises(HostilePickle, match=r"names this\.s"):
        read_pickle(tmp_path / "x")
    assert "this" not in sys.modules
