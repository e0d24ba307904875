"""The command ``senoscope-train synthesize``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from senoscope_training.commands.shared import exit_with_error


def synthesize(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to create.", show_default=False)],
    train: Annotated[int, typer.Option(min=2, help="Fields of view for training.")] = 170,
    test: Annotated[int, typer.Option(min=2, help="Fields of view for testing.")] = 54,
    height: Annotated[int, typer.Option(min=32, max=4096, help="Rows.")] = 250,
    width: Annotated[int, typer.Option(min=32, max=4096, help="Columns.")] = 300,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same data set.")] = 0,
    groups: Annotated[
        int, typer.Option(min=2, help="Culture plates; each is either in training or in test.")
    ] = 6,
) -> None:
    """Create a labelled data set of synthetic fields of view, to try out the software; not for science."""
    from senoscope_training.dataset.model import DataSetError
    from senoscope_training.dataset.writing import write_synthetic
    from senoscope_training.workers.progress import TextReporter

    try:
        with TextReporter(()) as report:
            write_synthetic(
                out,
                train=train,
                test=test,
                height=height,
                width=width,
                seed=seed,
                groups=groups,
                report=report,
            )
    except DataSetError as error:
        exit_with_error(str(error))
    except KeyboardInterrupt:
        exit_with_error("interrupted; no data set was created", 130)
    typer.echo(f"{out}: {train + test} fields of view; check them with `senoscope-train check {out}`")
