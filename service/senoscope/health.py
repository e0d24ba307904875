"""Whether a service can classify, and which of its parts do not work."""

from __future__ import annotations

from senoscope.assembly import Assembly
from senoscope.runlog.keeper import LogKeeper


def failed_part(assembly: Assembly) -> str | None:
    """Return why fields of view cannot be classified or results not delivered, or None if they can."""
    threads = [assembly.scheduler.thread, assembly.delivery.thread]
    threads += [source.thread for source in assembly.sources]
    problems = [thread.problem for thread in threads]
    if assembly.publisher is not None and assembly.publisher.gate is not None:
        problems.append(assembly.publisher.gate.problem)
    return next((problem for problem in problems if problem), None)


def degraded_reasons(assembly: Assembly | None, log: LogKeeper | None) -> list[str]:
    """Return what does not work although frames are classified, such as a run log that cannot be written."""
    parts = (*assembly.sources, log, assembly.archive) if assembly is not None else (log,)
    threads = [*(assembly.threads if assembly is not None else ()), *(log.threads if log is not None else ())]
    problems = [part.problem for part in (*parts, *threads) if part is not None]
    return list(dict.fromkeys(problem for problem in problems if problem))
