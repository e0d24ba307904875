"""The command ``senoscope-train export``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def export(
    experiment: Annotated[Path, typer.Argument(file_okay=False, help="Folder of a trained experiment.")],
    name: Annotated[str | None, typer.Option(help="Of the ensemble.  [default: the experiment's]")] = None,
    models_dir: Annotated[
        Path | None,
        typer.Option(
            envvar="SENOSCOPE_MODELS_DIR",
            help="Where ensembles live.  [default: models/ of the clone, else the user's data folder]",
        ),
    ] = None,
    fold: Annotated[str | None, typer.Option(help="Which fold.  [default: the first]")] = None,
    run: Annotated[
        int | None,
        typer.Option(min=1, help="Which run.  [default: that with the lowest validation loss]"),
    ] = None,
    author: Annotated[list[str] | None, typer.Option(help="For the model card; repeat for more.")] = None,
    licence: Annotated[str, typer.Option(help="For the model card.")] = "not stated",
    intended_use: Annotated[str | None, typer.Option(help="For the model card.")] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Networks at a time.  [default: as cores allow]")
    ] = None,
    force: Annotated[bool, typer.Option(help="Replace an ensemble of that name.")] = False,
    json_progress: Annotated[
        bool, typer.Option("--json-progress", help="Progress as JSON lines on stdout, for programs.")
    ] = False,
) -> None:
    """Make an ensemble that the service loads from a run of an experiment."""
    from senoscope.engine.locations import default_models_dir
    from senoscope_training.dataset.model import DataSetError
    from senoscope_training.experiment import ExperimentError
    from senoscope_training.export_experiment import ExportOptions, export_experiment
    from senoscope_training.parity import ParityError
    from senoscope_training.pool import WorkerDied
    from senoscope_training.progress import JsonReporter, TextReporter
    from senoscope_training.systems import NETWORKS

    chosen = {} if intended_use is None else {"intended_use": intended_use}
    options = ExportOptions(
        name=name,
        fold=fold,
        run=run,
        authors=tuple(author or ()),
        licence=licence,
        jobs=jobs,
        force=force,
        **chosen,
    )
    try:
        with JsonReporter() if json_progress else TextReporter(NETWORKS) as report:
            made = export_experiment(experiment, models_dir or default_models_dir(), options, report)
    except (ExperimentError, DataSetError, ParityError, WorkerDied) as error:
        print(f"senoscope-train: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        print("senoscope-train: interrupted; nothing was left behind", file=sys.stderr)
        raise typer.Exit(130) from None
    if not json_progress:
        print(made)
