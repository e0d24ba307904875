"""The command ``senoscope-train``, assembled from its subcommands."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from senoscope.commands.command_line import exiting_on_sigterm, run_command_line
from senoscope_training.commands.check import check
from senoscope_training.commands.evaluate import evaluate
from senoscope_training.commands.export import export
from senoscope_training.commands.import_zenodo import import_zenodo
from senoscope_training.commands.report import report
from senoscope_training.commands.run import run
from senoscope_training.commands.schema import schema
from senoscope_training.commands.starter import starter
from senoscope_training.commands.synthesize import synthesize
from senoscope_training.commands.variants import variants

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train and export Senoscope's ensembles.",
)


def _version(wanted: bool) -> None:
    if wanted:
        from senoscope import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Train and export Senoscope's ensembles."""
    del version


for _command in (
    *(starter, run, export, variants, evaluate),
    *(report, schema, check, import_zenodo, synthesize),
):
    app.command()(_command)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line, by default that of the process, and return its exit status."""
    try:
        with exiting_on_sigterm():  # a terminated run cleans up like an interrupted one
            return run_command_line(app, "senoscope-train", argv)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
