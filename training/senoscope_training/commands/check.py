"""The command ``senoscope-train check``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from senoscope_training.commands.shared import exit_with_error, separated

if TYPE_CHECKING:
    from senoscope_training.config import Config
    from senoscope_training.dataset.model import DataSet, Fold


def check(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG_OR_FOLDER",
            help="Configuration of an experiment, or folder of a data set.",
            show_default=False,
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
    figure: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Write histograms and sample images to this PNG file.")
    ] = None,
    classes: Annotated[
        str, typer.Option(help="With a folder: label of the negative class, then of the positive one.")
    ] = "control,senescent",
    channels: Annotated[
        str,
        typer.Option(help="With a folder: names of the channels, in the order in which files contain them."),
    ] = "SRS,TPEF,Transmission",
    per_channel: Annotated[
        str | None,
        typer.Option(
            metavar="PART,PART,...",
            help="With a folder of one file per channel: the part of the file names that identifies each "
            "channel, for example _ch00,_ch01,_ch02, in the order of the channels.",
        ),
    ] = None,
) -> None:
    """Check a data set before training: counts, leaks between training and test, intensities, faults.

    With a configuration, sizes and the split are checked too. The exit status is 1 if there are faults.
    """
    from rich.console import Console

    from senoscope_training.config import ConfigError, load_config
    from senoscope_training.dataset.check_view import render
    from senoscope_training.dataset.checking import check as check_data_set
    from senoscope_training.dataset.model import DataSetError
    from senoscope_training.dataset.reading import inspect_data_set
    from senoscope_training.workers.progress import TextReporter

    try:
        config = (
            _folder_config(source, classes, channels, per_channel) if source.is_dir() else load_config(source)
        )
        with TextReporter(()) as report:
            size = None if source.is_dir() else config.input
            inspection = inspect_data_set(config.data, size, report)
        data_set = inspection.data_set
        folds, notes = ((), ()) if source.is_dir() else _folds(data_set, config)
        k_iqr = config.normalization.k_iqr
        found = check_data_set(inspection, config.data, folds, k_iqr=k_iqr, notes=notes)
        if figure is not None and len(data_set):
            from senoscope_training.dataset.check_figure import draw

            draw(data_set, inspection.pixels, figure, padded=config.data.fit == "pad")
    except (ConfigError, DataSetError) as error:
        exit_with_error(str(error))
    except (OSError, ValueError) as error:
        exit_with_error(f"{figure} cannot be written: {error}")
    if as_json:
        typer.echo(json.dumps({**asdict(found), "usable": found.usable}, indent=1))
    else:
        console = Console(highlight=False)
        # Tables that are written to a file keep their columns.
        for part in render(found):
            console.print(part, soft_wrap=not console.is_terminal)
    if not found.usable:
        raise typer.Exit(1)


def _folder_config(folder: Path, classes: str, channels: str, per_channel: str | None) -> Config:
    from pydantic import ValidationError

    from senoscope_training.config import Config, ConfigError

    data = {
        "path": folder,
        "classes": separated(classes),
        "channels": separated(channels),
        "per_channel": separated(per_channel),
    }
    try:
        return Config.model_validate({"name": "check", "data": data, "systems": ("scratch",)})
    except ValidationError as error:
        faults = "; ".join(str(fault["msg"]) for fault in error.errors(include_url=False))
        raise ConfigError(
            "--classes takes two names, --channels one or more, and --per-channel as many as there are "
            f"channels, separated by commas: {faults}"
        ) from error


def _folds(data_set: DataSet, config: Config) -> tuple[tuple[Fold, ...], tuple[str, ...]]:
    """Return the folds of an experiment, or a note with the reason why there are none."""
    from senoscope_training.dataset.model import DataSetError
    from senoscope_training.dataset.splits import make_folds

    try:
        return make_folds(data_set, config.split, config.seed), ()
    except DataSetError as error:
        return (), (f"no split: {error}",)
