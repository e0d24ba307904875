"""The command ``senoscope-train evaluate``."""

from __future__ import annotations

import json
import re
import sys
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from senoscope.engine.devices import Device
from senoscope_training.commands.shared import ModelsDir, exit_with_error, separated

if TYPE_CHECKING:
    from senoscope_training.config import DataConfig


class _Accept(StrEnum):
    per_channel = "per-channel"
    zero_level = "zero-level"
    channel_names = "channel-names"
    types = "types"


_Fit = Literal["refuse", "pad", "resize"]


def evaluate(
    model: Annotated[str, typer.Argument(help="Ensemble: a name in the folder of the ensembles, or a path.")],
    data: Annotated[Path, typer.Argument(file_okay=False, help="Folder of a labelled data set.")],
    split: Annotated[
        Literal["test", "train", "all"],
        typer.Option(help="FOVs to evaluate on, by the column split of dataset.csv."),
    ] = "test",
    models_dir: ModelsDir = None,
    out: Annotated[
        Path | None, typer.Option(dir_okay=False, help="CSV file for the prediction of each FOV.")
    ] = None,
    fit: Annotated[_Fit, typer.Option(help="Treatment of FOVs of another size.")] = "refuse",
    grey: Annotated[bool, typer.Option("--grey", help="Repeat grey images in all channels.")] = False,
    per_channel: Annotated[
        str | None,
        typer.Option(
            metavar="PART,PART,...",
            help="For data sets with one file per channel: the part of the file names that identifies each "
            "channel, in the ensemble's order.",
        ),
    ] = None,
    accept: Annotated[
        list[_Accept] | None,
        typer.Option(
            help="Finding in the data set that is not a mistake; repeat the option for more. See data.accept."
        ),
    ] = None,
    device: Annotated[Device, typer.Option(help="Device to run the ensemble on.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the metrics as JSON.")] = False,
) -> None:
    """Evaluate an exported ensemble on labelled FOVs, with the same computation as in the service."""
    from rich.console import Console
    from rich.table import Table

    from senoscope.engine import DeviceError, EnsembleError
    from senoscope.engine.locations import default_models_dir
    from senoscope.starter.locate import locate_ensemble
    from senoscope_training.config import ConfigError
    from senoscope_training.dataset.model import DataSetError
    from senoscope_training.report.evaluate import evaluate as run
    from senoscope_training.workers.files import write_atomic
    from senoscope_training.workers.progress import TextReporter

    try:
        folder = locate_ensemble(model, models_dir or default_models_dir(), partial(print, file=sys.stderr))
        config = _data_config(data, fit, grey, per_channel, accept or [])
        console = Console(stderr=True)
        with TextReporter((folder.name,), console) as report:
            # Without a terminal, progress would be one line per FOV.
            done = run(folder, config, split, device, *([report] if console.is_terminal else []))
        if out is not None:
            write_atomic(out, done.to_csv())
    except (EnsembleError, ConfigError, DataSetError, DeviceError, OSError) as error:
        exit_with_error(_as_options(str(error)))
    for warning in done.warnings:
        print(f"senoscope-train: warning: {_as_options(warning)}", file=sys.stderr)
    if done.trained_on:
        print(
            f"senoscope-train: warning: the ensemble was trained on {done.trained_on} of these "
            f"{len(done.files)} FOVs: the metrics are too optimistic for new cells. The ensemble's own test "
            f"FOVs are listed in {folder / 'ensemble.json'}, training.split",
            file=sys.stderr,
        )
    if as_json:
        document: dict[str, Any] = {
            "model": done.model,
            "digest": done.digest,
            "split": split,
            "metrics": done.metrics,
            "intervals_95": done.intervals,
            "trained_on": done.trained_on,
            "warnings": done.warnings,
        }
        print(json.dumps(document, indent=2))
        return
    title = f"{done.model} on {len(done.files)} FOVs of {data}"
    table = Table("metric", "value", "95 % interval", title=title)
    for name, value in done.metrics.items():
        if name != "fovs":
            interval = done.intervals.get(name)
            table.add_row(
                name, f"{value:.3f}", "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"
            )
    Console().print(table)


def _data_config(
    folder: Path, fit: _Fit, grey: bool, per_channel: str | None, accept: list[_Accept]
) -> DataConfig:
    from pydantic import ValidationError

    from senoscope_training.config import ConfigError, DataConfig

    try:
        return DataConfig(
            path=folder,
            fit=fit,
            grey="repeat" if grey else "refuse",
            per_channel=separated(per_channel),
            accept=tuple(accept),
        )
    except ValidationError as error:
        raise ConfigError("; ".join(fault["msg"] for fault in error.errors(include_url=False))) from error


def _as_options(message: str) -> str:
    """Replace keys of the configuration in a message by options of this command, which has no configuration.

    The size is always that of the ensemble.
    """
    from senoscope_training.dataset.pixels import SIZE_REMEDY

    message = message.replace(SIZE_REMEDY, "Pass --fit pad or --fit resize, or crop the file")
    message = re.sub(
        r"data\.per_channel: \[([^\]]*)\]", lambda m: f"--per-channel {m[1].replace(', ', ',')}", message
    )
    message = re.sub(r"data\.accept: \[([^\]]*)\]", r"--accept \1", message)
    message = message.replace("data.grey: repeat", "--grey")
    return message.replace("Set --", "Pass --").replace("set --", "pass --")
