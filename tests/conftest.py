"""Fixtures shared by all tests: a miniature ensemble, a real server on it, and the seven real networks."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from support import miniature as mini
from support.servers import Server, start_server, stop_server

ROOT = Path(__file__).parents[1]
# Whatever a test starts without naming a run log must not write to that of whoever runs the tests.
os.environ.setdefault("SENOSCOPE_DATABASE_URL", "none")
# Debian keeps the PostgreSQL server off the path.
os.environ["PATH"] = os.pathsep.join(
    [os.environ.get("PATH", ""), *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True))]
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the long runs in ``endurance/``."""
    parser.addoption(
        "--long", action="store_true", help="long form of the endurance runs: hours, not seconds"
    )
    parser.addoption("--endurance-report", help="file that endurance runs append their figures to")
    parser.addoption("--endurance-model", help="ensemble of the endurance runs; default: the miniature one")
    parser.addoption("--pictures", action="store_true", help="renew the documentation's pictures of the page")


def pytest_configure() -> None:
    """What tests take for granted of this process, and of those that they start."""
    # A shell starts what runs in the background deaf to Ctrl-C, and that is passed on.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Plain tracebacks: the pretty ones of structlog's default take longer to draw than some tests wait.
    structlog.configure(
        processors=[
            structlog.stdlib.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(),
        ]
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests whose system program is absent, or fail them where all tests must run."""
    for mark in item.iter_markers("system"):
        (program,) = mark.args
        if shutil.which(program) is None:
            if os.environ.get("SENOSCOPE_TEST_ALL") == "1":
                pytest.fail(f"needs the program {program}, and SENOSCOPE_TEST_ALL=1 forbids to skip")
            pytest.skip(f"needs the program {program}")


@pytest.fixture(scope="session")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a miniature ensemble."""
    return mini.build(tmp_path_factory.mktemp("models") / "miniature")


@pytest.fixture(scope="module")
def server(miniature: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on the miniature ensemble, shared by the tests of one module."""
    running = start_server(miniature, tmp_path_factory.mktemp("server") / "log.txt")
    yield running
    if running.process.poll() is None:
        stop_server(running)


@pytest.fixture(scope="session")
def starter_ensemble() -> Path:
    """Folder of the starter ensemble with the seven real networks; built once, also where several ask."""
    from senoscope.starter import build_starter
    from senoscope.starter.build import recipe_folder

    digest = hashlib.sha256((recipe_folder() / "ensemble.json").read_bytes()).hexdigest()
    return build_starter(ROOT / ".cache" / f"starter-{digest[:16]}")


@pytest.fixture(scope="session")
def starter_made_anew(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """Folder with ``recipe``, made anew by way of Keras, and ``keras``, Keras' weights; takes minutes."""
    home = tmp_path_factory.mktemp("anew")
    command = [sys.executable, "-m", "senoscope_training.cli", "starter", "--recipe", str(home / "recipe")]
    command += ["--keep-keras", str(home / "keras")]
    subprocess.run(command, check=True)
    return home
