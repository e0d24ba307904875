"""Which tests share a worker, and which start first.

Each group runs on one worker, one test after the other. pytest-xdist's own groups (``--dist loadgroup``)
depend on an attribute that pytest 9.2 no longer has.
"""

from __future__ import annotations

from functools import cache
from pathlib import PurePosixPath

from xdist.scheduler import LoadScopeScheduling

from support.docs_reader import network_of_its_own

# Tests that must not run side by side, or share what takes long to start, by folder or file. Of several
# entries the innermost counts; without a name each module is a group.
GROUPS = {
    "tests/client/c/test_c_library.py": "C",
    "tests/client/c/test_c_programs.py": "C",
    "tests/client/c/test_c_results.py": "C",
    "tests/dashboard": "chromium",
    "tests/endurance/test_dashboard.py": "chromium",
    "tests/napari": "napari",
    "tests/service/runlog": "postgres",
    "tests/training/experiment/test_experiment.py": "experiment",
    "tests/training/dataset": "",
    "tests/training/report": "",
    "tests/training/test_config.py": "",
    "tests/training/test_metrics.py": "",
    "tests/training": "tensorflow",
}
# Modules whose tests share nothing that takes long to make, and take long themselves: each test is a group.
# They use the service's usual ports, each in a network of its own; where that cannot be, as one group.
INDEPENDENT = ("tests/docs/test_commands.py",)
# Groups that take longest, by the beginnings of their names; they start first, so that no worker is left with
# one at the end.
FIRST = (
    *(
        "experiment",
        "tensorflow",
        "tests/docs/test_commands.py",
        "chromium",
        "napari",
        "tests/endurance",
        "tests/e2e",
    ),
    *("postgres", "tests/service/commands/test_command_line.py", "tests/service/commands/test_cli.py"),
)


def group_of(nodeid: str) -> str:
    """The group of a test: one of those above, or its module."""
    module = nodeid.partition("::")[0]
    if module in INDEPENDENT and network_of_its_own():
        return nodeid
    return _group_of_module(module)


@cache
def _group_of_module(module: str) -> str:
    path = PurePosixPath(module)
    named = (GROUPS[str(part)] for part in (path, *path.parents) if str(part) in GROUPS)
    return next(named, "") or module


def start_order(nodeid: str) -> int:
    """The place of a test's group among those that start first; all others come after them."""
    group = group_of(nodeid)
    return next((place for place, prefix in enumerate(FIRST) if group.startswith(prefix)), len(FIRST))


class GroupScheduling(LoadScopeScheduling):
    """Sends groups of tests to workers in the order in which they were collected."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
