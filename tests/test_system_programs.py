"""System programs that are absent, or only half there, are noticed and named, with how to get them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from support import system

pytestmark = pytest.mark.skipif(
    os.name == "nt", reason="the programs that stand for others are shell scripts"
)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is searched for programs before all others, and whose finds are not remembered."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(system, "_problem", system._problem.__wrapped__)
    return folder


def put(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("curl", "curl"),
        ("cc", "gcc"),
        ("libzmq", "gcc"),
        ("postgres", "postgresql"),
        ("chromium", "chromium"),
        ("Xvfb", "xvfb"),
        ("openssl", "openssl"),
        ("another", "another"),
    ],
)
def test_what_is_absent_is_named_with_its_package(
    programs: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    monkeypatch.setenv("PATH", str(programs))
    reason = system.problem(name)
    assert reason is not None
    assert reason.startswith("needs ")
    assert package in reason


@pytest.mark.system("cc")
def test_a_compiler_without_the_header_of_libzmq(programs: Path) -> None:
    refuse = 'grep -q zmq.h probe.c && { echo "probe.c:1:10: fatal error: zmq.h: none" >&2; exit 1; }'
    put(programs, "cc", f'{refuse}\nexec {shutil.which("cc")} "$@"')
    assert system.problem("cc") is None
    reason = system.problem("libzmq")
    assert reason is not None
    assert "libzmq3-dev" in reason
    assert "fatal error: zmq.h: none" in reason


@pytest.mark.parametrize(
    ("name", "program", "script"),
    [
        ("chromium", "chromium", "echo 'Missing X server or $DISPLAY' >&2; exit 1"),
        ("cc", "cc", "exit 1"),
        ("postgres", "postgres", "exit 127"),
        ("Xvfb", "Xvfb", "exit 1"),
    ],
)
def test_a_program_that_does_not_start(programs: Path, name: str, program: str, script: str) -> None:
    for other in ("initdb", "pg_ctl", "make"):
        put(programs, other, "exit 0")
    put(programs, program, script)
    reason = system.problem(name)
    assert reason is not None
    assert "needs " in reason


def test_npm_without_a_network(programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(programs, "npm", "echo 'npm error code EAI_AGAIN' >&2; exit 1")
    tests = Path("tests", "dashboard", "package.json")
    (tmp_path / tests).parent.mkdir(parents=True)
    shutil.copy(system.ROOT / tests, tmp_path / tests)
    monkeypatch.setattr(system, "ROOT", tmp_path)
    reason = system.problem("axe-core")
    assert reason is not None
    assert "EAI_AGAIN" in reason


def test_the_test_is_skipped_or_fails_where_all_must_run(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SENOSCOPE_TEST_ALL", raising=False)
    with pytest.raises(pytest.skip.Exception, match="needs the program no-such-program"):
        system.require("no-such-program")
    monkeypatch.setenv("SENOSCOPE_TEST_ALL", "1")
    with pytest.raises(pytest.fail.Exception, match="forbids to skip"):
        system.require("no-such-program")
