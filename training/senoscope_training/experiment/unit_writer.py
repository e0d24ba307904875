"""What a unit leaves behind: its progress, its curves in TensorBoard, its result."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from senoscope.engine.answers import all_same
from senoscope_training.experiment.folder import UnitResult, Validation, run_folder, write_unit
from senoscope_training.experiment.plan import Run, TrainingJob
from senoscope_training.networks.fitting import Progressed, Watch
from senoscope_training.workers.pool import tell
from senoscope_training.workers.progress import Progress

_REPORT_EVERY_S = 0.5


class UnitWriter:
    """Reports on the units of a job, and writes their results."""

    def __init__(self, job: TrainingJob) -> None:
        self._job = job
        self._curves: list[Any] = []
        self._last_report_s = 0.0

    def folder(self, run: Run) -> Path:
        """Folder of a run."""
        return run_folder(self._job.config.directory, run.fold.name, run.number)

    def report(self, run: Run, step: str, detail: str = "") -> None:
        """Report what happens now."""
        tell(Progress(self._where(run, step), self._job.network, detail))

    def watch(self, run: Run, unit: str, phase: str, max_epochs: int) -> Watch:
        """What reports epochs, as progress and in TensorBoard's files."""
        from tensorboardX import SummaryWriter

        folder = self._job.config.directory / "tensorboard" / run.fold.name / f"run_{run.number:02d}"
        curves: Any = None

        def report_epoch(epoch: int, columns: dict[str, float]) -> None:
            nonlocal curves
            if curves is None:  # what an interrupted process wrote after its last checkpoint goes
                curves = SummaryWriter(str(folder / f"{unit}.{phase}"), purge_step=epoch)
                self._curves.append(curves)
            for name, value in columns.items():
                curves.add_scalar(name, value, epoch)
            now = time.monotonic()
            if now - self._last_report_s >= _REPORT_EVERY_S:
                self._last_report_s = now
                detail = f"epoch {epoch}/{max_epochs}, val_loss {columns['val_loss']:.4f}"
                self.report(run, f"{unit.split('.', maxsplit=1)[0]}, {phase}", detail)

        return report_epoch

    def validation(self, indices: npt.NDArray[np.int64], score: npt.NDArray[Any]) -> Validation:
        """Predictions for FOVs that a unit has not learned from, its originals alone."""
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
        """Write a unit's result for the test FOVs, and report it.

        Parameters
        ----------
        score : array [N]
            Of the fold's test FOVs.
        note : str
            What went wrong with the unit, if anything.
        **details
            Kept with the result.
        """
        test = run.fold.test
        if all_same([*score, *validation.score]):
            constant = "it gives all validation and test FOVs the same score"
            note = f"{note}; {constant}" if note else constant
        result = UnitResult(
            system=system,
            network="" if system == "scratch" else self._job.network,
            files=tuple(self._job.files[k] for k in test),
            truth=tuple(bool(value) for value in self._job.labels[test]),
            score=tuple(float(value) for value in score),
            validation=validation,
            history=history,
            details={"seed": run.seed, **details},
            note=note,
        )
        write_unit(self._job.config.directory, run.fold.name, run.number, result)
        while self._curves:
            self._curves.pop().close()
        right = np.mean((np.array(result.score) > 0.5) == np.array(result.truth))
        noted = f"; {note}" if note else ""
        self.report(run, f"{system} finished", f"{right:.0%} of test right{noted}")

    def _where(self, run: Run, step: str) -> str:
        fold = "" if len(self._job.folds) == 1 else f"{run.fold.name}, "
        return f"{fold}run {run.number}/{self._job.config.runs}, {step}"


def phase_history(progressed: Progressed, phase: int) -> dict[str, list[float]]:
    """The history of one phase, each epoch marked with the phase's number."""
    return {**progressed.history, "phase": [float(phase)] * progressed.epoch}
