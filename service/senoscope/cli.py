"""The ``senoscope`` command."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import typer

from senoscope.commands.command_line import LazyGroup, Subcommand, run_command_line

if TYPE_CHECKING:
    from pydantic import ValidationError


class _ServiceCommands(LazyGroup):
    subcommands = {  # noqa: RUF012 - a class variable, as the base class declares it
        "demo": Subcommand(
            "senoscope.commands.demo:demo",
            "Run the starter ensemble, the service and a simulated microscope together.",
        ),
        "serve": Subcommand(
            "senoscope.commands.serve:serve",
            "Classify the microscope's frames, and serve results over HTTP, WebSocket and ZeroMQ.",
        ),
        "classify": Subcommand(
            "senoscope.commands.classify:classify",
            "Classify the fields of view of files; a file that cannot be read does not stop the others.",
        ),
        "doctor": Subcommand(
            "senoscope.commands.doctor:doctor",
            "Check versions, providers, GPU, ensemble, port and stream; exit 1 if the service cannot run.",
        ),
        "bench": Subcommand(
            "senoscope.commands.bench:bench",
            "Measure this machine: the service from a frame's sending to its result, and the engine.",
        ),
        "keys": Subcommand(
            "senoscope.commands.keys:keys", "Manage API keys, and create CURVE key pairs for ZeroMQ."
        ),
        "rules": Subcommand("senoscope.commands.rules:rules", "Check rules that decide on results."),
    }


app = typer.Typer(
    cls=_ServiceCommands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Classify fields of view as senescent or control while the microscope scans.",
)


def _version(wanted: bool) -> None:
    if wanted:
        from senoscope import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    del version


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status; errors that a user can correct are printed in one line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; default: those of the process.
    """
    try:
        return run_command_line(app, "senoscope", argv)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        status = _report(error)
        if status is None:
            raise
        return status


def _report(error: Exception) -> int | None:
    """Print an error that a user can correct and return the exit status; return None for other errors."""
    # Imported only for an error: the list of commands needs none of these.
    from pydantic import ValidationError

    from senoscope.engine.errors import DeviceError, EnsembleError
    from senoscope_client.errors import SenoscopeError

    if isinstance(error, ValidationError):
        for line in _settings_errors(error):
            print(f"senoscope: {line}", file=sys.stderr)
        return 2
    if isinstance(error, (SenoscopeError, EnsembleError, DeviceError, OSError)):
        print(f"senoscope: {error}", file=sys.stderr)
        return 1
    return None


def _settings_errors(error: ValidationError) -> Iterator[str]:
    from senoscope.settings import ENV_PREFIX

    for fault in error.errors():
        if not fault["loc"]:  # about several settings together
            yield fault["msg"].removeprefix("Value error, ")
            continue
        name = "_".join(str(part) for part in fault["loc"])
        option, variable = name.replace("_", "-"), f"{ENV_PREFIX}{name.upper()}"
        yield f"--{option} or {variable}: {fault['msg']}"


if __name__ == "__main__":
    sys.exit(main())
