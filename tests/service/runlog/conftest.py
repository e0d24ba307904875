"""A run log in each kind of database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from senoscope.engine.manifest import Manifest, read_manifest
from senoscope.runlog.store import RunLog
from support.run_logs import PostgresServer, postgres_server


@pytest.fixture(scope="session")
def manifest(miniature: Path) -> Manifest:
    return read_manifest(miniature)[0]


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.system("postgres"))])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Address of a log that is yet to be made."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'new folder' / 'log 100%.sqlite3'}"
    return request.getfixturevalue("postgres").new_database()


@pytest.fixture
def log(url: str) -> Iterator[RunLog]:
    log = RunLog(url)
    log.prepare()
    yield log
    log.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where an SQLite log will be."""
    return tmp_path / "log.sqlite3"
