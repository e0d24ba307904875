"""The system programs that some tests drive: whether each works here, and how to get it.

A test names what it needs with ``@pytest.mark.system("chromium")``, or calls `require` where only its code
knows. A program counts as present if it works, not if some file of that name exists. Where it does not, the
test is skipped with the reason; ``SENOSCOPE_TEST_ALL=1`` makes that a failure.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest

from support.locks import file_lock

ROOT = Path(__file__).parents[2]
# A slow machine that starts a browser for the first time.
_TIMEOUT_S = 120
_LIBZMQ = "#include <zmq.h>\nint main(void) { int a, b, c; zmq_version(&a, &b, &c);\nreturn a < 4; }\n"
_QT = """
from PyQt6.QtGui import QGuiApplication, QOffscreenSurface, QOpenGLContext
application = QGuiApplication([])
surface, context = QOffscreenSurface(), QOpenGLContext()
surface.create()
assert context.create() and context.makeCurrent(surface), "Qt has no OpenGL here"
"""


class Absent(Exception):
    """What a test needs is not there; the message names it and says how to get it."""


def problem(name: str) -> str | None:
    """Why a system program cannot be used here, or None if it can; the first call of a process tries it."""
    return _problem(name)


def require(name: str) -> None:
    """Skip the test that runs if a system program cannot be used; fail it where all tests must run."""
    reason = problem(name)
    if reason is None:
        return
    if os.environ.get("SENOSCOPE_TEST_ALL") == "1":
        pytest.fail(f"{reason}; SENOSCOPE_TEST_ALL=1 forbids to skip", pytrace=False)
    pytest.skip(reason)


@cache
def _problem(name: str) -> str | None:
    try:
        _CHECKS.get(name, lambda: _program(name, f"apt-get install {name}"))()
    except Absent as absent:
        return str(absent)
    return None


def _program(name: str, remedy: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise Absent(f"needs the program {name} ({remedy})")
    return path


def _run(command: list[str], failure: str, **options: object) -> None:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
            **options,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Absent(f"{failure}: {error}") from error
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit status {done.returncode}"]
        line = next((line for line in lines if "rror" in line), lines[-1])
        raise Absent(f"{failure}: {line[:200]}")


def _compiler() -> None:
    for program in ("cc", "make"):
        _program(program, "apt-get install gcc libc6-dev make")
    _compile(
        "int main(void) { return 0; }\n", [], "needs a C compiler that works (apt-get install gcc libc6-dev)"
    )


def _libzmq() -> None:
    _compiler()
    _compile(_LIBZMQ, ["-lzmq"], "needs libzmq and its header zmq.h (apt-get install libzmq3-dev)")


def _compile(source: str, options: list[str], failure: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "probe.c").write_text(source)
        _run(["cc", "probe.c", "-o", "probe", *options], failure, cwd=folder)
        _run([str(Path(folder, "probe"))], failure, cwd=folder)


def _postgres() -> None:
    remedy = "apt-get install postgresql"
    for program in ("postgres", "initdb", "pg_ctl"):
        path = _program(program, remedy)
        _run([path, "--version"], f"needs a PostgreSQL server that works ({remedy})")


def _chromium() -> None:
    remedy = "apt-get install chromium"
    path = _program("chromium", remedy)
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", "about:blank"]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [path, *options, f"--user-data-dir={profile}"]
        _run(command, f"needs a Chromium that starts without a display ({remedy})")


def _screen() -> None:
    remedy = "apt-get install xvfb libgl1 libgl1-mesa-dri libegl1 libxcb-cursor0 and Qt's other libraries"
    path = _program("Xvfb", remedy)
    read, write = os.pipe()
    server = subprocess.Popen(
        [path, "-nolisten", "tcp", "-displayfd", str(write)],
        pass_fds=[write],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(write)
    try:
        with os.fdopen(read) as numbers:
            display = numbers.readline().strip()
        if not display:
            raise Absent(f"needs an Xvfb that starts ({remedy})")
        variables = {"QT_QPA_PLATFORM": "xcb", "DISPLAY": f":{display}"}
        command = [sys.executable, "-c", _QT]
        _run(command, f"needs the libraries that Qt draws with ({remedy})", env=os.environ | variables)
    finally:
        server.terminate()
        server.wait()


def axe_core() -> Path:
    """The script of axe-core, from the npm registry once for each version.

    Raises
    ------
    Absent
        If it is not there yet and cannot be downloaded.
    """
    wanted = ROOT / "tests" / "dashboard" / "package.json"
    version = json.loads(wanted.read_text())["devDependencies"]["axe-core"]
    folder = ROOT / ".cache" / "npm" / version
    script = folder / "node_modules" / "axe-core" / "axe.min.js"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(folder.with_suffix(".lock")):
        if not script.is_file():
            npm = _program("npm", "apt-get install npm")
            with suppress(FileNotFoundError):
                shutil.rmtree(folder)
            folder.mkdir()
            shutil.copy(wanted, folder)
            options = ["--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock"]
            options += ["--fetch-retries=1", "--fetch-timeout=30000"]
            failure = (
                f"needs axe-core {version}, which npm cannot download here (a network with npm's registry)"
            )
            _run([npm, "install", *options], failure, cwd=folder)
    return script


_CHECKS: dict[str, Callable[[], object]] = {
    "axe-core": axe_core,
    "cc": _compiler,
    "chromium": _chromium,
    "curl": lambda: _program("curl", "apt-get install curl"),
    "libzmq": _libzmq,
    "openssl": lambda: _program("openssl", "apt-get install openssl"),
    "postgres": _postgres,
    "sh": lambda: _program("sh", "a POSIX shell"),
    "Xvfb": _screen,
}
