"""Endurance tests: ``pytest --full`` runs their short forms, ``--long`` the long ones, which take hours.

Measurements are printed, and appended to the file of ``--endurance-report`` as one JSON line per test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.load import Endurance
from support.servers import Server, ServerProcess, start_server, start_server_process


@pytest.fixture
def endurance(request: pytest.FixtureRequest) -> Endurance:
    file = request.config.getoption("--endurance-report")
    return Endurance(request.config.getoption("--long"), file and Path(file), request.node.name)


@pytest.fixture
def start(miniature: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Server]]:
    """Returns a function that starts servers with one run log and the same ports; kills them at the end."""
    model = Path(request.config.getoption("--endurance-model") or miniature)
    running: list[Server] = []

    def begin(*options: str, process: bool = True, wait: bool = True, like: Server | None = None) -> Server:
        log = f"sqlite:///{tmp_path / 'runlog.sqlite3'}"
        path = tmp_path / f"server{len(running)}.txt"
        begin_one = start_server_process if process else start_server
        running.append(begin_one(model, path, "--database-url", log, *options, wait=wait, like=like))
        return running[-1]

    yield begin
    for server in running:
        server.kill() if isinstance(server, ServerProcess) else server.stop()
