"""A reader of the documentation, who types what a page shows into a terminal, line by line."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

FENCE = re.compile(r"^(?P<margin> *)```(?P<language>\S*)\n(?P<text>.*?)^ *```$", re.MULTILINE | re.DOTALL)
_LOOPBACK_UP = """
import fcntl, os, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh", b"lo", 0x41))
os.execvp(sys.argv[1], sys.argv[1:])
"""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, and the line that it begins in."""

    line: int
    language: str
    text: str


@dataclass(frozen=True)
class Step:
    """One thing that a reader does: a command, or a program to run; and what is shown as its output."""

    line: int
    language: str
    command: str
    shown: tuple[str, ...] = ()


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        lines = found["text"].splitlines(keepends=True)
        body = "".join(line.removeprefix(found["margin"]) for line in lines)
        yield Block(text.count("\n", 0, found.start()) + 1, found["language"], body)


def steps(page: Path) -> Iterator[Step]:
    """What a reader of a page types, in order."""
    for block in blocks(page):
        if block.language == "python":
            yield Step(block.line, "python", block.text)
        elif block.language == "sh":
            for n, command in _logical_lines(block.text):
                yield Step(block.line + n, "sh", command)
        elif block.language == "console":
            for part in re.split(r"(?m)^\$ ", block.text)[1:]:
                (_, command), *_ = _logical_lines(part)
                shown = part.replace("\\\n", "").splitlines()[1:]
                yield Step(block.line, "console", command, tuple(shown))


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Commands with the number of the line that each begins in; without those that are comments alone."""
    begun = 0
    command = ""
    for n, line in enumerate(text.splitlines(), 1):
        begun = begun or n
        command += line
        if line.endswith("\\"):
            command = command.removesuffix("\\")
            continue
        if command.strip() and not command.lstrip().startswith("#"):
            yield begun, command.strip()
        begun, command = 0, ""


@cache
def network_of_its_own() -> tuple[str, ...]:
    """How a program is started in a network of its own; empty where that cannot be had."""
    alone = ("unshare", "--net", "--map-root-user", sys.executable, "-c", _LOOPBACK_UP)
    if shutil.which("unshare") is None:
        return ()
    return alone if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode == 0 else ()


class Failed(AssertionError):
    """A step did not do what a reader may expect."""


class Terminal:
    """One shell of a reader, in a network of its own where that is possible.

    Pages name the service's usual ports; in a network of its own nothing else can hold them, and nothing
    outside can be reached.
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._notes = folder.with_name(f"{folder.name}-terminal")
        self._notes.mkdir()
        self._count = 0
        self._stuck = False  # in a command that takes too long
        self._background: dict[str, Path] = {}
        shell = [*network_of_its_own(), "bash", "--noprofile", "--norc"]
        self._shell = subprocess.Popen(
            shell, cwd=folder, env=environment, stdin=subprocess.PIPE, text=True, start_new_session=True
        )
        self._type("set -m")

    def run(self, command: str, timeout_s: float, expected: int = 0) -> str:
        """What a command prints; it has to end with the exit code that is expected."""
        note = self._note(command)
        self._type(f". {note} > {note}.out 2>&1 < /dev/null; echo $? > {note}.new; mv {note}.new {note}.code")
        code = self._code(note, timeout_s)
        output = Path(f"{note}.out").read_text(encoding="utf-8", errors="replace")
        if code is None:
            self._stuck = True
            raise Failed(f"not done after {timeout_s:g} s: {command}\n{output[-3000:]}")
        if code != expected:
            raise Failed(f"exit code {code}: {command}\n{output[-3000:]}")
        return output

    def start(self, kind: str, command: str) -> None:
        """A command in another terminal, which takes the place of an earlier one of that kind."""
        self.stop(kind)
        note = self._note(command)
        self._background[kind] = note
        self._type(f"{{ . {note}; echo $? > {note}.code; }} > {note}.out 2>&1 < /dev/null &")
        self._type(f"echo $! > {note}.new; mv {note}.new {note}.pid")

    def wait_for(self, kind: str, probe: str, timeout_s: float = 200) -> None:
        """Until a command succeeds which tells that what was started is ready."""
        deadline = time.monotonic() + timeout_s
        while True:
            with contextlib.suppress(Failed):
                self.run(probe, 10)
                return
            self.check(kind)
            if time.monotonic() > deadline:
                raise Failed(f"{kind} is not ready after {timeout_s:g} s\n{self._output(kind)}")
            time.sleep(0.1)

    def check(self, kind: str) -> None:
        """What was started goes on, or has done its work."""
        code = Path(f"{self._background[kind]}.code")
        if code.is_file() and code.read_text().strip() not in {"", "0"}:
            raise Failed(f"{kind} ended with {code.read_text().strip()}\n{self._output(kind)}")

    def stop(self, kind: str) -> None:
        """Ask what was started to end, as Ctrl-C does, and wait for that."""
        if kind not in self._background:
            return
        self.check(kind)
        note = self._background.pop(kind)
        self._wait(lambda: Path(f"{note}.pid").is_file(), 30)
        group = Path(f"{note}.pid").read_text().strip()
        gone = f"! kill -0 -- -{group} 2>/dev/null"
        waiting = f"for n in $(seq 100); do {gone} && break; sleep 0.1; done"
        self.run(f"kill -TERM -- -{group}; {waiting}; kill -KILL -- -{group} 2>/dev/null; :", 20)

    def close(self) -> None:
        """End everything that was started."""
        if not self._stuck:
            for kind in list(self._background):
                with contextlib.suppress(Failed):
                    self.stop(kind)
        left = [self._shell.pid, *(child.pid for child in psutil.Process(self._shell.pid).children(True))]
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self._shell.wait()
        assert self._shell.stdin
        with contextlib.suppress(BrokenPipeError):
            self._shell.stdin.close()

    def running(self) -> tuple[str, ...]:
        """What was started and not stopped."""
        return tuple(self._background)

    def _output(self, kind: str) -> str:
        out = Path(f"{self._background[kind]}.out")
        return out.read_text(encoding="utf-8", errors="replace")[-3000:] if out.is_file() else ""

    def _note(self, command: str) -> Path:
        self._count += 1
        note = self._notes / f"{self._count:03}"
        note.write_text(command + "\n", encoding="utf-8")
        return note

    def _type(self, line: str) -> None:
        assert self._shell.stdin
        with contextlib.suppress(BrokenPipeError):
            self._shell.stdin.write(line + "\n")
            self._shell.stdin.flush()

    def _code(self, note: Path, timeout_s: float) -> int | None:
        path = Path(f"{note}.code")
        if not self._wait(lambda: path.is_file() or self._shell.poll() is not None, timeout_s):
            return None
        if not path.is_file():
            raise Failed("the shell ended")
        return int(path.read_text())

    @staticmethod
    def _wait(condition, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True
