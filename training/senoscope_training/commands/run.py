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
        Path | None, typer.Option(help="Folder of the data set; overrides the configuration.")
    ] = None,
    runs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Repetitions; overrides the configuration. A larger number adds runs to the experiment.",
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1, help="Networks to train in parallel.  [default: by number of cores; 1 with a GPU]"
        ),
    ] = None,
    json_progress: JsonProgress = False,
    no_report: Annotated[bool, typer.Option("--no-report", help="Do not write the report.")] = False,
) -> None:
    """Train all systems of a configuration, and write the report.

    The command can be interrupted at any time: run it again to resume. The results are the same as without
    an interruption.
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
    except (ConfigError, DataSetError, ExperimentError, WeightsError, FitError, OSError) as error:
        exit_with_error(str(error), 1)
    except WorkerDied as error:
        exit_with_error(f"{error}; run the same command again to resume", 1)
    except KeyboardInterrupt:
        exit_with_error("interrupted; run the same command again to resume", 130)
