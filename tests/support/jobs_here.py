"""Jobs of the training package in the test's process: starting TensorFlow takes a process five seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

from senoscope_training.experiment import export as export_experiment
from senoscope_training.experiment import runner
from senoscope_training.workers import pool
from senoscope_training.workers.progress import Report


def run_jobs_here(
    function: Callable[[Any], Any],
    jobs: Sequence[Any],
    side_by_side: int,
    start: Callable[[], None],
    report: Report,
) -> list[Any]:
    """As `pool.run_jobs`, one after the other, where TensorFlow has been started."""
    with mock.patch.object(pool, "_queue", SimpleNamespace(put=report)):
        return [function(job) for job in jobs]


@contextmanager
def jobs_in_this_process() -> Iterator[None]:
    """Let experiments be run and exported without worker processes."""
    with (
        mock.patch.object(runner, "run_jobs", run_jobs_here),
        mock.patch.object(export_experiment, "run_jobs", run_jobs_here),
    ):
        yield
