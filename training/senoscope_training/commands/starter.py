"""The command ``senoscope-train starter``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from senoscope_training.commands.shared import JsonProgress, ModelsDir, exit_with_error


class _Weights(StrEnum):
    auto = "auto"
    imagenet = "imagenet"
    random = "random"


def starter(
    models_dir: ModelsDir = None,
    name: Annotated[str, typer.Option(help="Name of the ensemble.")] = "starter",
    weights: Annotated[
        _Weights,
        typer.Option(
            help="Backbone weights: Keras' ImageNet weights (downloaded where no file is there), seeded "
            "random ones, or whichever needs no download."
        ),
    ] = _Weights.auto,
    weights_dir: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="Folder with Keras' notop weight files, or <network>.weights.h5, for all seven networks.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed makes the same ensemble.")] = 0,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Networks to make at a time, up to 4 GB each.  [default: as cores allow]"),
    ] = None,
    keep_keras: Annotated[
        Path | None, typer.Option(file_okay=False, help="Keep Keras' weights and heads in this folder.")
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            file_okay=False,
            help="Make the recipe that `senoscope` builds its starter ensemble from in this folder, and no "
            "ensemble.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option(help="Replace what is there.")] = False,
    json_progress: JsonProgress = False,
) -> None:
    """Make the starter ensemble: frozen backbones, heads trained on synthetic fields of view.

    It is for demonstrations and tests, not for science. It takes a few minutes and no network.
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

    options = StarterOptions(
        name=name,
        weights=weights.value,
        weights_dir=weights_dir,
        seed=seed,
        jobs=jobs,
        keras_dir=keep_keras,
        force=force,
    )
    reporter = JsonReporter() if json_progress else TextReporter(NETWORKS)
    try:
        with reporter as tell:
            if recipe is not None:
                made = make_recipe(recipe, options, tell)
            else:
                made = make_starter(models_dir or default_models_dir(), options, tell)
    except (StarterError, RecipeError, WorkerDied, WeightsError, ParityError, DeadHeadError) as error:
        exit_with_error(str(error), 1)
    except KeyboardInterrupt:
        exit_with_error("interrupted; nothing was left behind", 130)
    if not json_progress:
        print(made)
