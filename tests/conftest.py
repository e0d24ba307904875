"""Fixtures and options of all tests, their two tiers, and which tests share a worker.

``pytest`` runs the default tier, with four workers, ``pytest --full`` all tests, and ``pytest --left-out``
those that the run of the default tier before it left out.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import certifi
import httpx
import pytest

from support import system
from support.scheduling import start_order

if TYPE_CHECKING:
    from support.servers import ServerProcess, ServerThread

ROOT = Path(__file__).parents[1]
_SKIPPED = "senoscope/skipped"  # in pytest's cache

# Whatever a test starts without naming a run log must not write to that of whoever runs the tests.
os.environ.setdefault("SENOSCOPE_DATABASE_URL", "none")
# Debian keeps the PostgreSQL server off the path.
os.environ["PATH"] = os.pathsep.join(
    [os.environ.get("PATH", ""), *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True))]
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the tiers, and of the long runs in ``endurance/``."""
    parser.addoption("--full", action="store_true", help="run the tests marked full as well")
    parser.addoption(
        "--left-out",
        action="store_true",
        help="run what `pytest` left out: the tests marked full, and those that it skipped",
    )
    parser.addoption(
        "--long",
        action="store_true",
        help="long form of the endurance runs: hours, not seconds; implies --full",
    )
    parser.addoption("--endurance-report", help="file that endurance runs append their figures to")
    parser.addoption("--endurance-model", help="ensemble of the endurance runs; default: the miniature one")
    parser.addoption("--pictures", action="store_true", help="renew the documentation's pictures of the page")


def pytest_configure(config: pytest.Config) -> None:
    """Set what tests rely on in this process, and in those that they start."""
    if config.getoption("--long") or config.getoption("--left-out"):
        config.option.full = True
    # A shell starts what runs in the background with Ctrl-C ignored, and that is inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("numprocesses", None) is None or not config.option.numprocesses:  # tests run here
        from support.server_logs import configure_test_logging

        configure_test_logging()
        _set_up_httpx()


def _set_up_httpx() -> None:
    """Let calls without a client wait for longer than 5 s, read no certificates for each, and log little."""
    patience: httpx.Timeout = inspect.signature(httpx.get).parameters["timeout"].default
    for name in ("httpcore", "httpx"):  # some twenty lines for each request, where all lines are taken
        logging.getLogger(name).setLevel(logging.WARNING)
    patience.connect = patience.read = patience.write = patience.pool = 60
    # Reading the certificates of all authorities takes 50 ms of CPU.
    create = ssl.create_default_context
    shared = cache(create)
    # httpx's own, or those that the environment names instead.
    authorities = (
        {"cafile": certifi.where()},
        {"cafile": os.environ.get("SSL_CERT_FILE")},
        {"capath": os.environ.get("SSL_CERT_DIR")},
    )

    def create_default_context(*purpose: ssl.Purpose, **options: Any) -> ssl.SSLContext:
        if options in authorities:
            return shared(*purpose, **options)
        return create(*purpose, **options)

    ssl.create_default_context = create_default_context


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tier that was not asked for, and let the longest groups of tests come first."""
    full = {item for item in items if item.get_closest_marker("full")}
    wanted = set(items)
    if config.getoption("--left-out"):
        skipped = set(config.cache.get(_SKIPPED, [])) if _has_cache(config) else set()
        wanted = full | {item for item in items if item.nodeid in skipped}
    elif not config.getoption("--full"):
        wanted -= full
    if len(wanted) < len(items):
        config.hook.pytest_deselected(items=[item for item in items if item not in wanted])
        items[:] = [item for item in items if item in wanted]
    items.sort(key=lambda item: start_order(item.nodeid))


@pytest.hookimpl(optionalhook=True)  # pytest-xdist's
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Distribute groups of tests among the workers."""
    from support.scheduling import GroupScheduling

    return GroupScheduling(config, log)


def _has_cache(config: pytest.Config) -> bool:
    """Not with -p no:cacheprovider."""
    return getattr(config, "cache", None) is not None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Note what a run of the default tier skipped, for --left-out."""
    if not config.getoption("--full") and _has_cache(config):
        skipped = {report.nodeid for report in terminalreporter.stats.get("skipped", [])}
        config.cache.set(_SKIPPED, sorted(skipped))


_DESELECTED = pytest.StashKey[int]()


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Count, for the process that reports."""
    if items:
        stash = items[0].config.stash
        stash[_DESELECTED] = stash.get(_DESELECTED, 0) + len(items)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send the count of a worker to the process that reports, which collects nothing itself."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["deselected"] = session.config.stash.get(_DESELECTED, 0)


@pytest.hookimpl(optionalhook=True)  # pytest-xdist's
def pytest_testnodedown(node: object) -> None:
    """Take the count from the first worker that ends; each of them collects all tests."""
    config: pytest.Config = node.config  # type: ignore[attr-defined]
    count = getattr(node, "workeroutput", {}).get("deselected", 0)
    reporter = config.pluginmanager.getplugin("terminalreporter")
    if reporter is not None and count and "deselected" not in reporter.stats:
        reporter.stats["deselected"] = [SimpleNamespace() for _ in range(count)]  # it counts them


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests whose system program is absent, or fail them where all tests must run."""
    for mark in item.iter_markers("system"):
        system.require(mark.args[0])


@pytest.fixture(scope="session")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a miniature ensemble."""
    from support import miniature as mini

    return mini.build(tmp_path_factory.mktemp("models") / "miniature")


@pytest.fixture(scope="module")
def server(miniature: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerThread]:
    """A service on the miniature ensemble in this process, shared by the tests of one module."""
    from support.servers import start_server

    running = start_server(miniature, tmp_path_factory.mktemp("server") / "log.txt")
    yield running
    running.stop()


@pytest.fixture(scope="module")
def server_process(miniature: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The same as a process of its own, for tests of its memory or of what it writes."""
    from support.servers import start_server_process

    running = start_server_process(miniature, tmp_path_factory.mktemp("server") / "log.txt")
    yield running
    running.stop()


@pytest.fixture
def start(miniature: Path, tmp_path: Path) -> Iterator[Callable[..., ServerThread]]:
    """Start services in this process that are stopped after the test."""
    from support.servers import start_server

    running: list[ServerThread] = []

    def begin(*options: str, model: Path = miniature, log: Path | None = None, **more: Any) -> ServerThread:
        running.append(start_server(model, log or tmp_path / "log.txt", *options, **more))
        return running[-1]

    yield begin
    for one in running:
        one.stop()


@pytest.fixture(scope="session")
def starter_ensemble() -> Path:
    """Folder of the starter ensemble with the seven real networks; built once, also where several ask."""
    from senoscope.starter.build import build_starter, recipe_folder

    digest = hashlib.sha256((recipe_folder() / "ensemble.json").read_bytes()).hexdigest()
    return build_starter(ROOT / ".cache" / f"starter-{digest[:16]}")


@pytest.fixture(scope="session")
def starter_made_anew(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with ``recipe``, made anew by way of Keras, and ``keras``, Keras' weights; takes minutes."""
    home = tmp_path_factory.mktemp("anew")
    command = [sys.executable, "-m", "senoscope_training.cli", "starter", "--recipe", str(home / "recipe")]
    command += ["--keep-keras", str(home / "keras")]
    subprocess.run(command, check=True)
    return home
