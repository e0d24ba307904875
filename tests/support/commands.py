"""Commands, called within the test's process or run as processes."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from typing import NamedTuple
from unittest import mock

MODULES = {
    "senoscope": "senoscope.cli",
    "senoscope-train": "senoscope_training.cli",
    "senoscope-client": "senoscope_client.cli",
}
# Wide enough for each message to fit on one line.
_WIDTH = {"COLUMNS": "200"}


class CompletedCommand(NamedTuple):
    """The result of a command, with the attributes of `subprocess.CompletedProcess`."""

    returncode: int
    stdout: str
    stderr: str


def run_command(program: str, *arguments: object, **environment: str) -> CompletedCommand:
    """Call a command's ``main``; takes milliseconds where a process takes a second.

    What the command does to its process, other than printing, stays: signal handlers are to be restored by
    the command itself, and ``serve`` is for `run_process` once it gets past its checks.

    Parameters
    ----------
    program : {"senoscope", "senoscope-train", "senoscope-client"}
    *arguments
        Each as ``str`` has it.
    **environment
        Variables that are set meanwhile.
    """
    main = import_module(MODULES[program]).main
    out, err = _stream(), _stream()
    with mock.patch.dict(os.environ, _WIDTH | environment), redirect_stdout(out), redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    return CompletedCommand(code, _text(out), _text(err))


def run_process(
    program: str, *arguments: object, timeout_s: float = 120, **environment: str
) -> CompletedCommand:
    """Run a command as a process, where a call within this process is not sufficient."""
    done = subprocess.run(
        command_line(program, *arguments),
        capture_output=True,
        check=False,
        text=True,
        timeout=timeout_s,
        env=os.environ | _WIDTH | environment,
    )
    return CompletedCommand(done.returncode, done.stdout, done.stderr)


def command_line(program: str, *arguments: object) -> list[str]:
    """Return the command line for ``subprocess``."""
    return [sys.executable, "-m", MODULES[program], *map(str, arguments)]


def _stream() -> io.TextIOWrapper:
    """A stream like those of a process: text over a buffer of bytes."""
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="\n", write_through=True)


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    buffer = stream.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode()
