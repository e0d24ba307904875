"""Jobs of the training package in the process of the test, because TensorFlow takes five seconds to start."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

from senoscope_training.experiment import runner
from senoscope_training.export import folder
from senoscope_training.variants import write
from senoscope_training.workers import pool
from senoscope_training.workers.progress import Report


def run_jobs_here(
    function: Callable[[Any], Any],
    jobs: Sequence[Any],
    parallel: int,
    start: Callable[[], None],
    report: Report,
) -> list[Any]:
    """Replace `pool.run_jobs`: run jobs one after the other in this process, where TensorFlow is started."""
    with mock.patch.object(pool, "_queue", SimpleNamespace(put=report)):
        return [function(job) for job in jobs]


@contextmanager
def jobs_in_this_process() -> Iterator[None]:
    """Run and export experiments without worker processes."""
    with (
        mock.patch.object(runner, "run_jobs", run_jobs_here),
        mock.patch.object(folder, "run_jobs", run_jobs_here),
        mock.patch.object(write, "run_jobs", run_jobs_here),
    ):
        yield
