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
    problems: list[str | None] = []
    if assembly is not None:
        problems += [source.problem for source in assembly.sources]
        problems += [sink.problem for sink in assembly.delivery.sinks]
        problems += [thread.problem for thread in assembly.threads]
    if log is not None:
        problems += [log.problem, *(thread.problem for thread in log.threads)]
    return list(dict.fromkeys(problem for problem in problems if problem))
