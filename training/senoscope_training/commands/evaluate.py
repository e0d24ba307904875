"""The command ``senoscope-train evaluate``."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from senoscope.engine.devices import Device
from senoscope_training.commands.data_options import (
    AcceptOption,
    FitOption,
    GreyOption,
    PerChannelOption,
    as_options,
    data_config,
)
from senoscope_training.commands.shared import ModelsDir, exit_with_error


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
    fit: FitOption = "refuse",
    grey: GreyOption = False,
    per_channel: PerChannelOption = None,
    accept: AcceptOption = None,
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
        config = data_config(data, fit, grey, per_channel, accept or [])
        console = Console(stderr=True)
        with TextReporter((folder.name,), console) as report:
            # Without a terminal, progress would be one line per FOV.
            done = run(folder, config, split, device, *([report] if console.is_terminal else []))
        if out is not None:
            write_atomic(out, done.to_csv())
    except (EnsembleError, ConfigError, DataSetError, DeviceError, OSError) as error:
        exit_with_error(as_options(str(error)))
    for warning in done.warnings:
        print(f"senoscope-train: warning: {as_options(warning)}", file=sys.stderr)
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
