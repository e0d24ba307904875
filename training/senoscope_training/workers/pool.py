"""Jobs in worker processes that report progress, and that end with their parent process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import parent_process
from typing import Any, TypeVar

from senoscope_training.workers.progress import Progress, Report

Job = TypeVar("Job")
Result = TypeVar("Result")

_POLL_EVERY_S = 0.1
_LAST_REPORTS_S = 2.0
_queue: Any = None


class WorkerDied(Exception):
    """A worker process ended without an exception."""


def run_jobs(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    parallel: int,
    start: Callable[[], None],
    report: Report,
) -> list[Result]:
    """Run jobs in worker processes, in their order; the first failure ends all of them.

    Parameters
    ----------
    function : callable
        A function of a module, so that other processes can import it; it may call `report_progress`.
    parallel : int
        Number of worker processes, each of which runs one job at a time.
    start : callable
        Called once in each worker before its first job; a function of a module, or a partial of one.
    report : callable
        Called in this process with the progress that workers report.

    Raises
    ------
    WorkerDied
        If a worker is killed, usually because memory ran out.
    """
    context = multiprocessing.get_context("spawn")  # TensorFlow does not work after a fork
    queue: Any = context.SimpleQueue()
    finished = threading.Event()
    forwarder = threading.Thread(target=_forward, args=(queue, finished, report), daemon=True)
    forwarder.start()
    before = set(multiprocessing.active_children())
    executor = ProcessPoolExecutor(
        max_workers=max(1, min(parallel, len(jobs))),
        mp_context=context,
        initializer=_start_worker,
        initargs=(queue, start),
    )
    try:
        running = [executor.submit(function, job) for job in jobs]
        done, _ = wait(running, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()  # raises the exception of a failed job
        return [future.result() for future in running]
    except BrokenProcessPool as error:
        raise WorkerDied("a worker process died; if memory ran out, try --jobs 1") from error
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - before:
            process.terminate()
        finished.set()
        forwarder.join(timeout=_LAST_REPORTS_S)


def report_progress(progress: Progress) -> None:
    """Report progress from within a worker to the process that started it."""
    _queue.put(progress)


def _start_worker(queue: Any, start: Callable[[], None]) -> None:
    global _queue  # noqa: PLW0603 - a process pool has no other way to pass a queue to its workers
    _queue = queue
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets the signal too, and ends its workers
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    start()


def _end_with(parent: Any) -> None:
    """End this worker when its parent ends, because it would continue for minutes and keep its memory."""
    parent.join()
    os._exit(1)


def _forward(queue: Any, finished: threading.Event, report: Report) -> None:
    # Polls instead of blocking: a worker that is killed while it writes leaves the queue locked for ever.
    while not (finished.is_set() and queue.empty()):
        if queue.empty():
            finished.wait(_POLL_EVERY_S)
        else:
            report(queue.get())
