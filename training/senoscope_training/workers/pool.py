"""Jobs in worker processes that report progress, end with their parent, and leave nothing running."""

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

_LISTEN_EVERY_S = 0.1
_LAST_WORDS_S = 2.0
_queue: Any = None


class WorkerDied(Exception):
    """A worker process ended without a word."""


def run_jobs(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    side_by_side: int,
    start: Callable[[], None],
    report: Report,
) -> list[Result]:
    """Run jobs in worker processes, in their order; the first failure ends them all.

    Parameters
    ----------
    function : callable
        Of a module, so that a new process finds it; it may use `tell`.
    side_by_side : int
        Jobs at a time, each in a process of its own.
    start : callable
        Called once in each worker before its first job; of a module, or a partial of one.
    report : callable
        Told what workers tell.

    Raises
    ------
    WorkerDied
        If a worker is killed; memory that ran out is the usual reason.
    """
    context = multiprocessing.get_context("spawn")  # TensorFlow does not survive a fork
    queue: Any = context.SimpleQueue()
    finished = threading.Event()
    listener = threading.Thread(target=_listen, args=(queue, finished, report), daemon=True)
    listener.start()
    before = set(multiprocessing.active_children())
    executor = ProcessPoolExecutor(
        max_workers=max(1, min(side_by_side, len(jobs))),
        mp_context=context,
        initializer=_start_worker,
        initargs=(queue, start),
    )
    try:
        running = [executor.submit(function, job) for job in jobs]
        done, _ = wait(running, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()  # raises what went wrong
        return [future.result() for future in running]
    except BrokenProcessPool as error:
        raise WorkerDied("a worker process died; if memory ran out, try --jobs 1") from error
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - before:
            process.terminate()
        finished.set()
        listener.join(timeout=_LAST_WORDS_S)


def tell(progress: Progress) -> None:
    """From within a worker: what happens now."""
    _queue.put(progress)


def _start_worker(queue: Any, start: Callable[[], None]) -> None:
    global _queue  # noqa: PLW0603 - a process pool has no other way to hand a queue to its workers
    _queue = queue
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted too, and ends its workers
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    start()


def _end_with(parent: Any) -> None:
    """A worker whose parent was killed would go on for minutes and keep the memory."""
    parent.join()
    os._exit(1)


def _listen(queue: Any, finished: threading.Event, report: Report) -> None:
    # Asks and does not wait: a worker that is ended while it writes leaves the queue locked for good.
    while not (finished.is_set() and queue.empty()):
        if queue.empty():
            finished.wait(_LISTEN_EVERY_S)
        else:
            report(queue.get())
