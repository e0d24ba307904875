"""Command lines that import a subcommand only when it is called, and that can be called as functions."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import FrameType
from typing import Any, ClassVar, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

SIGTERM_STATUS = 128 + signal.SIGTERM


class Subcommand(NamedTuple):
    """Where a subcommand is defined, and its help in the list of subcommands."""

    source: str
    """``module:attribute`` of a function, or of a Typer application that has subcommands."""
    help: str
    """The first line of the function's docstring, or the application's help."""


class LazyGroup(TyperGroup):
    """A group that imports a subcommand when it is called, not when it is listed."""

    subcommands: ClassVar[Mapping[str, Subcommand]] = {}
    """By name, in the order of the help page; subclasses define it."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        # Placeholders for the list of subcommands: name and help, without parameters.
        for name, subcommand in self.subcommands.items():
            self.commands[name] = TyperCommand(name, help=subcommand.help)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the subcommand that the arguments name, imported."""
        name, found, rest = super().resolve_command(ctx, args)
        return name, found if name is None else self.load(name), rest

    def load(self, name: str) -> Any:
        """Import and return a subcommand; ``name`` must be a key of ``commands``."""
        if name not in self.subcommands:
            return self.commands[name]
        module, _, attribute = self.subcommands[name].source.partition(":")
        defined = getattr(import_module(module), attribute)
        if isinstance(defined, typer.Typer):
            group = typer.main.get_command(defined)
            group.name = name
            return group
        single = typer.Typer(add_completion=False)
        single.command(name)(defined)
        return typer.main.get_command(single)


def run_command_line(app: typer.Typer, program: str, argv: Sequence[str] | None) -> int:
    """Run a command line and return the exit status, without ending the process.

    Parameters
    ----------
    program : str
        Name shown in usage lines.
    argv : sequence of str, optional
        Arguments; default: those of the process.
    """
    # Not `app()`: it would replace the excepthook of the process.
    command = typer.main.get_command(app)
    try:
        command.main(args=None if argv is None else list(argv), prog_name=program)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        typer.echo(end.code, err=True)  # as the interpreter does
        return 1
    return 0


@contextmanager
def handling_signals(handler: Callable[[int, FrameType | None], Any], *kinds: int) -> Iterator[None]:
    """Install a signal handler for the block, then restore the earlier ones; only in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {kind: signal.signal(kind, handler) for kind in kinds}
    try:
        yield
    finally:
        for kind, earlier in before.items():
            signal.signal(kind, signal.SIG_DFL if earlier is None else earlier)


@contextmanager
def exiting_on_sigterm() -> Iterator[None]:
    """Raise SystemExit on SIGTERM within the block, so that a terminated command cleans up."""

    def exit_command(*_: object) -> None:
        raise SystemExit(SIGTERM_STATUS)

    with handling_signals(exit_command, signal.SIGTERM):
        yield
