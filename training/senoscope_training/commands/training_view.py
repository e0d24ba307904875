"""Progress bars of a training: over units and epochs, with the remaining time."""

from __future__ import annotations

import re
import time

from rich import progress as bars
from rich.console import Console

from senoscope_training.config import Config
from senoscope_training.experiment.folder import read_experiment, units_of
from senoscope_training.workers.progress import Progress

_STEP = re.compile(r"^(?:epoch )?(\d+)/(\d+)(?:, (.*))?$")


class TrainingReporter:
    """Report progress on stderr: one bar for all units of the experiment, and one per network for its epochs.

    Without a terminal, print one line per step.
    """

    def __init__(self, config: Config, console: Console | None = None) -> None:
        self._config = config
        self._console = console or Console(stderr=True)
        self._bars = bars.Progress(
            "{task.description}",
            bars.BarColumn(bar_width=24),
            bars.MofNCompleteColumn(),
            bars.TimeElapsedColumn(),
            bars.TimeRemainingColumn(),
            "{task.fields[detail]}",
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._overall: bars.TaskID | None = None
        self._tasks: dict[str, bars.TaskID] = {}
        self._stages: dict[str, str] = {}
        self._units = self._done = self._earlier = 0
        self._began_s = time.monotonic()

    def __enter__(self) -> TrainingReporter:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def __call__(self, progress: Progress) -> None:
        """Show a step."""
        if not progress.network and progress.stage == "training":
            self._begin()
        if not self._console.is_terminal:
            self._print(progress)
            return
        if not progress.network:
            if progress.stage != "training":
                self._bars.console.print(f"{progress.stage}: {progress.detail}", markup=False)
            return
        if progress.stage.endswith(" finished"):
            if self._overall is not None:
                self._bars.advance(self._overall)
            self._bars.console.print(str(progress), markup=False, highlight=False)
            return
        self._show(progress)

    def _begin(self) -> None:
        """Show the bar of all units; units of an earlier call count as done."""
        experiment = read_experiment(self._config.directory)
        total = len(experiment.provenance["folds"]) * self._config.runs * len(units_of(self._config))
        done = total - len(experiment.missing)
        self._units, self._done, self._earlier, self._began_s = total, done, done, time.monotonic()
        self._overall = self._bars.add_task("all", total=total, completed=done, detail="")

    def _show(self, progress: Progress) -> None:
        task = self._tasks.get(progress.network)
        step = _STEP.match(progress.detail)
        if task is None:
            task = self._tasks[progress.network] = self._bars.add_task(progress.network, total=1, detail="")
        if self._stages.get(progress.network) != progress.stage:
            self._stages[progress.network] = progress.stage
            self._bars.reset(task, total=int(step[2]) if step else None)
        if step:
            detail = f"{progress.stage}{': ' + step[3] if step[3] else ''}"
            self._bars.update(task, completed=int(step[1]), total=int(step[2]), detail=detail)
        else:
            detail = f"{progress.stage}{': ' + progress.detail if progress.detail else ''}"
            self._bars.update(task, detail=detail)
        if progress.stage == "done":
            self._bars.update(task, total=1, completed=1)

    def _print(self, progress: Progress) -> None:
        step = _STEP.match(progress.detail)
        if step and self._stages.get(progress.network) == progress.stage:
            return
        self._stages[progress.network] = progress.stage
        line = str(progress)
        if progress.stage.endswith(" finished"):
            self._done += 1
            line += f" ({self._done} of {self._units}; {self._remaining()})"
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _remaining(self) -> str:
        """Estimate the remaining time from the mean time per unit so far."""
        took_s = time.monotonic() - self._began_s
        left_s = took_s / (self._done - self._earlier) * (self._units - self._done)
        return f"{took_s / 60:.0f} min so far, about {left_s / 60:.0f} min to go"
