"""Fixtures of the dashboard's tests.

Service, browser and microscope are there for all tests of the folder. Each test scans series of its own, on
pages of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import BrowserContext, Page

from support import miniature as mini
from support.dashboard_page import ROOT, Seat, chromium, sit_down
from support.microscopes import Scan, Stand
from support.servers import Server, start_server, stop_server


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start a server with two more ensembles in its models folder, one of them damaged."""
    models = tmp_path_factory.mktemp("models")
    mini.build(models / "miniature")
    mini.build(models / "other", name="other", seed=50)
    (mini.build(models / "damaged", name="damaged") / "resnet50.onnx").write_bytes(b"no network")
    log = tmp_path_factory.mktemp("server") / "log.txt"
    options = ["--models-dir", str(models), "--deadline-ms", "500"]
    running = start_server(models / "miniature", log, *options)
    yield running
    stop_server(running)


@pytest.fixture(scope="package")
def stand(server: Server) -> Iterator[Stand]:
    """Return the place of the microscope whose stream the service receives."""
    stand = Stand(server)
    yield stand
    stand.clear()


@pytest.fixture
def new_scan(stand: Stand) -> Callable[..., Scan]:
    """Return a function that begins a series of the microscope."""
    return stand.scan


@pytest.fixture
def no_microscope(stand: Stand) -> None:
    """Disconnect all publishers, so that the test can be the publisher."""
    stand.clear()


# Not for the whole session: Playwright's event loop prevents other tests from running theirs.
@pytest.fixture(scope="package")
def context() -> Iterator[BrowserContext]:
    with chromium() as browser:
        yield browser.new_context()


@pytest.fixture(scope="package")
def scripts(server: Server, context: BrowserContext) -> Page:
    """Return a page in the folder of the page's scripts, to import them; it runs no script.

    While it is open, Chromium keeps the process that draws pages, with the scripts it has compiled.
    """
    page = context.new_page()
    page.goto(f"{server.url}/dashboard/icon.svg")
    return page


@pytest.fixture
def seat(
    context: BrowserContext, scripts: Page, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Seat]]:
    """Return a function that opens a page; a page with errors at the end fails the test."""
    seats: list[Seat] = []
    renew = request.config.getoption("--pictures") and request.node.get_closest_marker("networks")

    def sit(url: str, *, width: int = 1280, height: int = 720) -> Seat:
        page = context.new_page()
        if (width, height) != (1280, 720):
            page.set_viewport_size({"width": width, "height": height})
        seats.append(sit_down(page, url))
        seats[-1].pictures = ROOT / "docs" / "images" if renew else None
        return seats[-1]

    yield sit
    for one in seats:
        one.page.close()
    assert [error for one in seats for error in one.errors] == []
