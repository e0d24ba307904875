"""The command ``senoscope-train starter``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from senoscope_training.commands.shared import JsonProgress, ModelsDir, exit_with_error


def starter(
    models_dir: ModelsDir = None,
    name: Annotated[str, typer.Option(help="Name of the ensemble.")] = "starter",
    weights: Annotated[
        Literal["auto", "imagenet", "random"],
        typer.Option(
            help="Backbone weights: Keras' ImageNet weights (downloaded if there are no files), random "
            "weights from the seed, or (auto) ImageNet weights if all files are present, else random ones."
        ),
    ] = "auto",
    weights_dir: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="Folder with Keras' notop weight files, or <network>.weights.h5, of all seven networks.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same ensemble.")] = 0,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1, help="Networks to build in parallel, up to 4 GB each.  [default: by number of cores]"
        ),
    ] = None,
    keep_keras: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Also save the Keras weights and heads in this folder."),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            file_okay=False,
            help="Write into this folder the recipe from which `senoscope` builds its starter ensemble, and "
            "no ensemble.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option(help="Replace an existing ensemble or recipe.")] = False,
    json_progress: JsonProgress = False,
) -> None:
    """Build the starter ensemble: frozen backbones, and heads trained on synthetic fields of view.

    It is for demonstrations and tests, not for science. It takes a few minutes and needs no network
    connection.
    """
    from senoscope.engine.locations import default_models_dir
    from senoscope_training.export.parity import ParityError
    from senoscope_training.networks.head import DeadHeadError
    from senoscope_training.networks.weights import WeightsError
    from senoscope_training.starter.ensemble import StarterError, StarterOptions, make_recipe, make_starter
    from senoscope_training.starter.recipe import RecipeError
    from senoscope_training.systems import NETWORKS
    from senoscope_training.workers.pool import WorkerDied
    from senoscope_training.workers.progress import JsonReporter, TextReporter

    options = StarterOptions(name, weights, weights_dir, seed, jobs, keep_keras, force)
    reporter = JsonReporter() if json_progress else TextReporter(NETWORKS)
    try:
        with reporter as report:
            if recipe is not None:
                made = make_recipe(recipe, options, report)
            else:
                made = make_starter(models_dir or default_models_dir(), options, report)
    except (
        *(FileExistsError, StarterError, RecipeError),
        *(WorkerDied, WeightsError, ParityError, DeadHeadError),
    ) as error:
        exit_with_error(str(error), 1)
    except KeyboardInterrupt:
        exit_with_error("interrupted; nothing was left behind", 130)
    if not json_progress:
        print(made)
