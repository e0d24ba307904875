"""The command ``senoscope-train report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from senoscope_training.commands.shared import exit_with_error


def report(
    experiment: Annotated[Path, typer.Argument(file_okay=False, help="Folder of an experiment.")],
    out: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Folder for the report.  [default: report/ of the experiment]"),
    ] = None,
) -> None:
    """Write the report: a self-contained page, tables as CSV, and figures as SVG and PNG."""
    from senoscope_training.experiment.folder import ExperimentError
    from senoscope_training.report.write import write_report

    try:
        print(write_report(experiment, out))
    except ExperimentError as error:
        exit_with_error(str(error))
