"""Command lines, called within the test's process or run as separate processes."""

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
# Wide enough that no message is wrapped.
_WIDTH = {"COLUMNS": "200"}


class CompletedCommand(NamedTuple):
    """Exit status and output of a command, with the names of `subprocess.CompletedProcess`."""

    returncode: int
    stdout: str
    stderr: str


def run_command(program: str, *arguments: object, **environment: str) -> CompletedCommand:
    """Call a command's ``main``; takes milliseconds instead of the second of a process.

    Changes to the state of the process persist, except for the output streams: a command must restore signal
    handlers itself. ``serve`` needs `run_process`, unless its checks fail.

    Parameters
    ----------
    program : {"senoscope", "senoscope-train", "senoscope-client"}
    *arguments
        Converted with ``str``.
    **environment
        Variables to set during the call.
    """
    main = import_module(MODULES[program]).main
    out, err = _stream(), _stream()
    with mock.patch.dict(os.environ, _WIDTH | environment), redirect_stdout(out), redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    return CompletedCommand(code, _text(out), _text(err))


def run_process(
    program: str, *arguments: object, timeout_s: float = 120, **environment: str
) -> CompletedCommand:
    """Run a command as a separate process."""
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
    """Return the command as arguments for ``subprocess``."""
    return [sys.executable, "-m", MODULES[program], *map(str, arguments)]


def _stream() -> io.TextIOWrapper:
    """Return a text stream over a buffer of bytes, as a process has."""
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="\n", write_through=True)


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    buffer = stream.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode()
