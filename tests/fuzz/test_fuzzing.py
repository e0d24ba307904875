"""The committed inputs of the fuzzers hold, and where the fuzzer is installed, 2,000 more made from them."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fuzz import make_corpus
from fuzz.targets import check_image, check_wire, joined, parts_of

HERE = Path(__file__).parent
TARGETS: dict[str, Callable[[bytes], None]] = {"images": check_image, "wire": check_wire}
INPUTS = [(kind, path.name) for kind in TARGETS for path in sorted((HERE / "corpus" / kind).iterdir())]


@pytest.mark.parametrize(("kind", "name"), INPUTS, ids=["-".join(one) for one in INPUTS])
def test_committed_input(kind: str, name: str) -> None:
    TARGETS[kind]((HERE / "corpus" / kind / name).read_bytes())


def test_the_corpus_is_what_the_script_makes_and_what_was_found() -> None:
    for kind, made in (("images", make_corpus.images()), ("wire", make_corpus.wire())):
        there = {name for of_kind, name in INPUTS if of_kind == kind}
        assert {name for name in there if not name.startswith("regression-")} == set(made)
        for data in made.values():
            TARGETS[kind](data)


def test_parts_come_apart_as_they_were_joined() -> None:
    for parts in ([], [b""], [b"fov/a/b", b"{}"], [b"a" * 300, b"", b"\0\1"]):
        assert parts_of(joined(parts)) == parts
    assert parts_of(b"") == []


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is in the extra fuzz")
@pytest.mark.full
@pytest.mark.parametrize("kind", TARGETS)
def test_two_thousand_more(kind: str, tmp_path: Path) -> None:
    command = [sys.executable, str(HERE / f"fuzz_{kind}.py"), "-runs=2000", "-seed=1", "-timeout=10"]
    found = tmp_path / "found"
    found.mkdir()
    done = subprocess.run(
        [*command, f"-artifact_prefix={tmp_path}/", str(found), str(HERE / "corpus" / kind)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done 2000 runs" in done.stderr
