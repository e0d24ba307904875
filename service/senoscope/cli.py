"""The ``senoscope`` command."""

from __future__ import annotations

import sys

import typer
from pydantic import ValidationError

from senoscope import __version__
from senoscope.commands.classify import classify
from senoscope.commands.demo import demo
from senoscope.commands.doctor import doctor
from senoscope.commands.keys import keys
from senoscope.commands.rules import rules
from senoscope.commands.serve import serve
from senoscope.engine import DeviceError, EnsembleError
from senoscope.settings import ENV_PREFIX, settings_command
from senoscope_client.errors import SenoscopeError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Senescent or control, per field of view, while the microscope scans.",
)


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    del version


app.command("demo")(demo)
app.command("serve")(settings_command(serve))
app.command("classify")(classify)
app.command("doctor")(doctor)
app.add_typer(keys, name="keys")
app.add_typer(rules, name="rules")


def main() -> None:
    """Run the command; errors that a user can act on are one line, not a traceback."""
    try:
        app()
    except ValidationError as error:
        for fault in error.errors():
            if not fault["loc"]:  # settings that do not go together
                print(f"senoscope: {fault['msg'].removeprefix('Value error, ')}", file=sys.stderr)
                continue
            name = "_".join(str(part) for part in fault["loc"])
            option, variable = name.replace("_", "-"), f"{ENV_PREFIX}{name.upper()}"
            print(f"senoscope: --{option} or {variable}: {fault['msg']}", file=sys.stderr)
        sys.exit(2)
    except (SenoscopeError, EnsembleError, DeviceError, OSError) as error:
        print(f"senoscope: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
