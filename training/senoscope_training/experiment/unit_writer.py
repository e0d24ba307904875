"""The output of a unit: progress reports, curves for TensorBoard, and the result."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from senoscope.engine.blank_networks import all_same
from senoscope_training.experiment.folder import UnitResult, Validation, run_folder, write_unit
from senoscope_training.experiment.plan import Run, TrainingJob
from senoscope_training.networks.fitting import FitState, OnEpoch
from senoscope_training.workers.pool import report_progress
from senoscope_training.workers.progress import Progress

_REPORT_EVERY_S = 0.5


class UnitWriter:
    """Reports the progress of the units of a job, and writes their results."""

    def __init__(self, job: TrainingJob) -> None:
        self._job = job
        self._curves: list[Any] = []
        self._last_report_s = 0.0

    def folder(self, run: Run) -> Path:
        """Return the folder of a run."""
        return run_folder(self._job.config.directory, run.fold.name, run.number)

    def report(self, run: Run, step: str, detail: str = "") -> None:
        """Report progress."""
        fold = "" if len(self._job.folds) == 1 else f"{run.fold.name}, "
        stage = f"{fold}run {run.number}/{self._job.config.runs}, {step}"
        report_progress(Progress(stage, self._job.network, detail))

    def on_epoch(self, run: Run, unit: str, phase: str, max_epochs: int) -> OnEpoch:
        """Return a function that reports epochs, as progress and in TensorBoard's files."""
        from tensorboardX import SummaryWriter

        folder = run_folder(self._job.config.directory / "tensorboard", run.fold.name, run.number)
        curves: Any = None

        def report_epoch(epoch: int, metrics: dict[str, float]) -> None:
            nonlocal curves
            if curves is None:  # removes what an interrupted process wrote after its last checkpoint
                curves = SummaryWriter(str(folder / f"{unit}.{phase}"), purge_step=epoch)
                self._curves.append(curves)
            for name, value in metrics.items():
                curves.add_scalar(name, value, epoch)
            now = time.monotonic()
            if now - self._last_report_s >= _REPORT_EVERY_S:
                self._last_report_s = now
                detail = f"epoch {epoch}/{max_epochs}, val_loss {metrics['val_loss']:.4f}"
                self.report(run, f"{unit.split('.', maxsplit=1)[0]}, {phase}", detail)

        return report_epoch

    def validation(self, indices: npt.NDArray[np.int64], score: npt.NDArray[Any]) -> Validation:
        """Return the predictions for FOVs that a unit was not trained on, without copies."""
        return Validation(
            files=tuple(self._job.files[k] for k in indices),
            truth=tuple(bool(value) for value in self._job.labels[indices]),
            score=tuple(float(value) for value in score),
        )

    def finish(
        self,
        run: Run,
        system: str,
        score: npt.NDArray[Any],
        validation: Validation,
        history: dict[str, list[float]],
        *,
        note: str = "",
        **details: Any,
    ) -> None:
        """Write a unit's result for the test FOVs with further details, and report it."""
        tested = self.validation(run.fold.test, score)
        if all_same([*score, *validation.score]):
            constant = "it gives all validation and test FOVs the same score"
            note = f"{note}; {constant}" if note else constant
        result = UnitResult(
            system=system,
            network="" if system == "scratch" else self._job.network,
            **dict(tested),
            validation=validation,
            history=history,
            details={"seed": run.seed, **details},
            note=note,
        )
        write_unit(self._job.config.directory, run.fold.name, run.number, result)
        while self._curves:
            self._curves.pop().close()
        accuracy = np.mean((np.array(tested.score) > 0.5) == np.array(tested.truth))
        suffix = f"; {note}" if note else ""
        self.report(run, f"{system} finished", f"test accuracy {accuracy:.0%}{suffix}")


def phase_history(state: FitState, phase: int) -> dict[str, list[float]]:
    """Return the history of a phase, with the number of the phase for each epoch."""
    return {**state.history, "phase": [float(phase)] * state.epoch}
