"""The command ``senoscope-train export``."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from senoscope_training.commands.shared import JsonProgress, ModelsDir, chosen_precisions, exit_with_error


def export(
    experiment: Annotated[
        Path | None, typer.Argument(file_okay=False, help="Folder of a trained experiment.")
    ] = None,
    ensemble: Annotated[
        str | None,
        typer.Option(help="Instead of an experiment: an existing ensemble to package, by name or folder."),
    ] = None,
    bioimageio: Annotated[
        Path | None,
        typer.Option(metavar="FILE.zip", help="Also write the ensemble as a bioimage.io package."),
    ] = None,
    system: Annotated[
        Literal["fully_trained", "frozen"] | None,
        typer.Option(help="System of the experiment.  [default: fully_trained]"),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the ensemble.  [default: name of the experiment]")
    ] = None,
    models_dir: ModelsDir = None,
    fold: Annotated[str | None, typer.Option(help="Fold to export.  [default: the first]")] = None,
    run: Annotated[
        int | None,
        typer.Option(min=1, help="Run to export.  [default: the run with the lowest validation loss]"),
    ] = None,
    author: Annotated[
        list[str] | None, typer.Option(help="Author, for the model card; repeat the option for more.")
    ] = None,
    licence: Annotated[
        str | None, typer.Option(help="Licence, for the model card.  [default: not stated]")
    ] = None,
    intended_use: Annotated[str | None, typer.Option(help="Intended use, for the model card.")] = None,
    variants: Annotated[
        str | None,
        typer.Option(
            metavar="PRECISION,...",
            help="Also make variants, as senoscope-train variants does: fp16, int8, or both.",
        ),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Networks to export in parallel.  [default: by number of cores]")
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            help="Replace an existing ensemble or package of that name; also export networks that predict "
            "the same for all FOVs."
        ),
    ] = False,
    json_progress: JsonProgress = False,
) -> None:
    """Export a run of an experiment as an ensemble for the service, or package an ensemble."""
    from senoscope.engine.errors import EnsembleError
    from senoscope.engine.locations import default_models_dir
    from senoscope.starter.locate import locate_ensemble
    from senoscope_training.bioimageio.package import PackageError, check_target, write_package
    from senoscope_training.dataset.model import DataSetError
    from senoscope_training.experiment.export import ExportOptions, export_experiment
    from senoscope_training.experiment.folder import ExperimentError
    from senoscope_training.export.parity import ParityError
    from senoscope_training.systems import NETWORKS
    from senoscope_training.variants.errors import VariantError
    from senoscope_training.workers.pool import WorkerDied
    from senoscope_training.workers.progress import JsonReporter, TextReporter

    settings: dict[str, Any] = {
        "author": author,
        "fold": fold,
        "intended_use": intended_use,
        "jobs": jobs,
        "licence": licence,
        "name": name,
        "run": run,
        "system": system,
        "variants": None if variants is None else chosen_precisions(variants),
    }
    given = {option: value for option, value in settings.items() if value is not None}
    _require_one_source(experiment, ensemble, bioimageio, given)
    options = ExportOptions(authors=tuple(given.pop("author", ())), force=force, **given)
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
        *(EnsembleError, PackageError, VariantError, OSError),
    ) as error:
        finished = f" ({made[0]} is complete)" if made else ""
        exit_with_error(f"{error}{finished}")
    except KeyboardInterrupt:
        left = f"{made[0]} is complete, the package was not written" if made else "nothing was left behind"
        exit_with_error(f"interrupted; {left}", 130)
    if not json_progress:
        print(*made, sep="\n")


def _require_one_source(
    experiment: Path | None, ensemble: str | None, bioimageio: Path | None, given: dict[str, Any]
) -> None:
    if (experiment is None) == (ensemble is None):
        raise typer.BadParameter("pass either the folder of an experiment or --ensemble")
    if ensemble is not None and bioimageio is None:
        raise typer.BadParameter("--ensemble requires --bioimageio FILE.zip")
    if ensemble is not None and given:
        options = ", ".join(f"--{option.replace('_', '-')}" for option in given)
        raise typer.BadParameter(f"{options} cannot be combined with --ensemble")
