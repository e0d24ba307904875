"""The command ``senoscope-train run``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from senoscope_training.commands.shared import JsonProgress, exit_with_error


def run(
    config: Annotated[Path, typer.Argument(dir_okay=False, help="Configuration file (YAML).")],
    data: Annotated[
        Path | None, typer.Option(help="Folder of the data set, instead of the configuration's.")
    ] = None,
    runs: Annotated[
        int | None, typer.Option(min=1, help="Repetitions; more than there are adds to them.")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Networks to train at a time.  [default: as cores allow; 1 with a GPU]"),
    ] = None,
    json_progress: JsonProgress = False,
    no_report: Annotated[bool, typer.Option("--no-report", help="Leave the report to later.")] = False,
) -> None:
    """Train every system that a configuration names, and write the report.

    Interrupt it at will: the same command goes on where it was and ends with the same numbers.
    """
    from senoscope_training.commands.training_view import TrainingReporter
    from senoscope_training.config import ConfigError, load_config
    from senoscope_training.dataset.model import DataSetError
    from senoscope_training.experiment.folder import ExperimentError
    from senoscope_training.experiment.runner import run_experiment
    from senoscope_training.networks.fitting import FitError
    from senoscope_training.networks.weights import WeightsError
    from senoscope_training.workers.pool import WorkerDied
    from senoscope_training.workers.progress import JsonReporter

    try:
        experiment = load_config(config, runs=runs, data=data)
        reporter = JsonReporter() if json_progress else TrainingReporter(experiment)
        with reporter as report:
            run_experiment(experiment, jobs, report)
        if not no_report:
            from senoscope_training.report.write import write_report

            print(write_report(experiment.directory), file=sys.stderr if json_progress else sys.stdout)
    except (
        ConfigError,
        DataSetError,
        ExperimentError,
        WeightsError,
        FitError,
        OSError,
    ) as error:
        exit_with_error(str(error), 1)
    except WorkerDied as error:
        exit_with_error(f"{error}; the same command goes on", 1)
    except KeyboardInterrupt:
        exit_with_error("interrupted; the same command goes on", 130)
