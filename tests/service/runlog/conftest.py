"""Run logs in each supported database."""

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


KINDS = ["sqlite", pytest.param("postgres", marks=pytest.mark.system("postgres"))]


def new_url(request: pytest.FixtureRequest, folder: Path) -> str:
    """Return the URL of a log that does not exist yet, for a fixture with the parameters of KINDS."""
    if request.param == "sqlite":
        return f"sqlite:///{folder / 'new folder' / 'log 100%.sqlite3'}"
    return request.getfixturevalue("postgres").new_database()


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a log that does not exist yet."""
    return new_url(request, tmp_path)


@pytest.fixture(scope="module", params=KINDS)
def url_of_module(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a log that the tests of a module share because they only read it."""
    return new_url(request, tmp_path_factory.mktemp("log"))


@pytest.fixture
def log(url: str) -> Iterator[RunLog]:
    log = RunLog(url)
    log.prepare()
    yield log
    log.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Path of an SQLite log that does not exist yet."""
    return tmp_path / "log.sqlite3"
