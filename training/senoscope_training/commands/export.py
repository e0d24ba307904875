"""The command ``senoscope-train export``."""

from __future__ import annotations

import sys
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from senoscope_training.commands.shared import JsonProgress, ModelsDir, exit_with_error


class _System(StrEnum):
    fully_trained = "fully_trained"
    frozen = "frozen"


def export(
    experiment: Annotated[
        Path | None, typer.Argument(file_okay=False, help="Folder of a trained experiment.")
    ] = None,
    ensemble: Annotated[
        str | None,
        typer.Option(help="Instead of an experiment: an ensemble to package as it is, by name or folder."),
    ] = None,
    bioimageio: Annotated[
        Path | None,
        typer.Option(metavar="FILE.zip", help="Write the ensemble as a package of bioimage.io, too."),
    ] = None,
    system: Annotated[
        _System | None, typer.Option(help="Which ensemble of the experiment.  [default: fully_trained]")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the ensemble.  [default: the experiment's]")] = None,
    models_dir: ModelsDir = None,
    fold: Annotated[str | None, typer.Option(help="Which fold.  [default: the first]")] = None,
    run: Annotated[
        int | None,
        typer.Option(min=1, help="Which run.  [default: that with the lowest validation loss]"),
    ] = None,
    author: Annotated[list[str] | None, typer.Option(help="For the model card; repeat for more.")] = None,
    licence: Annotated[str | None, typer.Option(help="For the model card.  [default: not stated]")] = None,
    intended_use: Annotated[str | None, typer.Option(help="For the model card.")] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Networks at a time.  [default: as cores allow]")
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            help="Replace an ensemble, or a package, of that name; export networks that answer the same to "
            "everything, too."
        ),
    ] = False,
    json_progress: JsonProgress = False,
) -> None:
    """Make an ensemble that the service loads from a run of an experiment, or a package of an ensemble."""
    from senoscope.engine.errors import EnsembleError
    from senoscope.engine.locations import default_models_dir
    from senoscope.starter import locate_ensemble
    from senoscope_training.bioimageio.package import PackageError, check_target, write_package
    from senoscope_training.dataset.model import DataSetError
    from senoscope_training.experiment.export import ExportOptions, export_experiment
    from senoscope_training.experiment.folder import ExperimentError
    from senoscope_training.export.parity import ParityError
    from senoscope_training.systems import NETWORKS
    from senoscope_training.workers.pool import WorkerDied
    from senoscope_training.workers.progress import JsonReporter, TextReporter

    told: dict[str, Any] = {
        "author": author,
        "fold": fold,
        "intended_use": intended_use,
        "jobs": jobs,
        "licence": licence,
        "name": name,
        "run": run,
        "system": None if system is None else system.value,
    }
    given = {option: value for option, value in told.items() if value is not None}
    _one_source(experiment, ensemble, bioimageio, given)
    options = ExportOptions(
        authors=tuple(given.pop("author", ())),
        force=force,
        **given,
    )
    models = models_dir or default_models_dir()
    announce = partial(print, file=sys.stderr)
    made: list[Path] = []
    try:
        if bioimageio is not None:
            check_target(bioimageio, force)
        with JsonReporter() if json_progress else TextReporter(NETWORKS if experiment else ()) as report:
            if experiment is not None:
                made.append(export_experiment(experiment, models, options, report))
            if bioimageio is not None:
                folder = made[0] if made else locate_ensemble(str(ensemble), models, announce)
                made.append(write_package(folder, bioimageio, force=force, report=report))
    except (
        *(ExperimentError, DataSetError, ParityError, WorkerDied),
        *(EnsembleError, PackageError, OSError),
    ) as error:
        finished = f" ({made[0]} is complete)" if made else ""
        exit_with_error(f"{error}{finished}")
    except KeyboardInterrupt:
        left = f"{made[0]} is complete, the package is not there" if made else "nothing was left behind"
        exit_with_error(f"interrupted; {left}", 130)
    if not json_progress:
        print(*made, sep="\n")


def _one_source(
    experiment: Path | None, ensemble: str | None, bioimageio: Path | None, given: dict[str, Any]
) -> None:
    if (experiment is None) == (ensemble is None):
        raise typer.BadParameter("give the folder of an experiment, or --ensemble, and not both")
    if ensemble is not None and bioimageio is None:
        raise typer.BadParameter("--ensemble alone has nothing to export; add --bioimageio FILE.zip")
    if ensemble is not None and given:
        options = ", ".join(f"--{option.replace('_', '-')}" for option in given)
        raise typer.BadParameter(f"{options}: not with --ensemble, which is packaged as it is")
