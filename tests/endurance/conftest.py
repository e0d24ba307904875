"""Long runs, each with a short form: ``pytest tests/endurance`` is part of all tests, ``--long`` takes hours.

What a run measured is printed, and appended to the file of ``--endurance-report`` as one JSON line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.load import Endurance
from support.servers import ServerProcess, start_server_process


@pytest.fixture
def endurance(request: pytest.FixtureRequest) -> Endurance:
    report = request.config.getoption("--endurance-report")
    return Endurance(request.config.getoption("--long"), report and Path(report), request.node.name)


@pytest.fixture
def start(
    miniature: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[..., ServerProcess]]:
    """Starts servers on one run log and the same ports; those that still run at the end are killed."""
    model = Path(request.config.getoption("--endurance-model") or miniature)
    running: list[ServerProcess] = []

    def begin(*options: str, wait: bool = True, like: ServerProcess | None = None) -> ServerProcess:
        log = f"sqlite:///{tmp_path / 'runlog.sqlite3'}"
        path = tmp_path / f"server{len(running)}.txt"
        running.append(
            start_server_process(model, path, "--database-url", log, *options, wait=wait, like=like)
        )
        return running[-1]

    yield begin
    for server in running:
        server.kill()
