"""The command line ``senoscope-train``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from senoscope.commands.command_line import exiting_on_sigterm, run_command_line
from senoscope_training.commands.dataset import check, import_zenodo, synthesize
from senoscope_training.commands.evaluate import evaluate
from senoscope_training.commands.export import export
from senoscope_training.commands.report import report
from senoscope_training.commands.run import run

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train and export Senoscope's ensembles.",
)


class _Weights(StrEnum):
    auto = "auto"
    imagenet = "imagenet"
    random = "random"


_ModelsDir = Annotated[
    Path | None,
    typer.Option(
        envvar="SENOSCOPE_MODELS_DIR",
        help="Where ensembles live.  [default: models/ of the clone, else the user's data folder]",
    ),
]


def _version(wanted: bool) -> None:
    if wanted:
        from senoscope import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Train and export Senoscope's ensembles."""
    del version


@app.command()
def starter(
    models_dir: _ModelsDir = None,
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
    json_progress: Annotated[
        bool, typer.Option("--json-progress", help="Progress as JSON lines on stdout, for programs.")
    ] = False,
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
        _fail(str(error), 1)
    except KeyboardInterrupt:
        _fail("interrupted; nothing was left behind", 130)
    if not json_progress:
        print(made)


app.command()(run)
app.command()(export)
app.command()(evaluate)
app.command()(report)


@app.command()
def schema(models_dir: _ModelsDir = None) -> None:
    """Write the JSON Schema of ensemble.json into the folder of ensembles."""
    from senoscope.engine.locations import default_models_dir
    from senoscope_training.schema import write_schema

    print(write_schema(models_dir or default_models_dir()))


app.command()(check)
app.command("import-zenodo")(import_zenodo)
app.command()(synthesize)


def _fail(message: str, code: int) -> NoReturn:
    print(f"senoscope-train: {message}", file=sys.stderr)
    raise typer.Exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; default: those of the process.
    """
    try:
        with exiting_on_sigterm():  # a run that is terminated cleans up as one that is interrupted does
            return run_command_line(app, "senoscope-train", argv)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
