"""Fixtures of the dashboard's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser

from support import miniature as mini
from support.dashboard_page import ROOT, Seat, chromium, sit_down
from support.servers import Server, start_server, stop_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One with other ensembles to change to, of which one is damaged; each test scans a series of its own."""
    models = tmp_path_factory.mktemp("models")
    mini.build(models / "miniature")
    mini.build(models / "other", name="other", seed=50)
    (mini.build(models / "damaged", name="damaged") / "resnet50.onnx").write_bytes(b"no network")
    log = tmp_path_factory.mktemp("server") / "log.txt"
    options = ["--models-dir", str(models), "--deadline-ms", "500"]
    running = start_server(models / "miniature", log, *options)
    yield running
    stop_server(running)


# Not for the whole session: Playwright's loop would be in the way of tests that run loops of their own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def seat(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Callable[..., Seat]]:
    """Opens pages that must not have complained by the end of the test."""
    seats: list[Seat] = []
    renew = request.config.getoption("--pictures") and request.node.get_closest_marker("networks")

    def sit(url: str, **size: int) -> Seat:
        seats.append(sit_down(browser, url, **size))
        seats[-1].pictures = ROOT / "docs" / "images" if renew else None
        return seats[-1]

    yield sit
    for one in seats:
        one.page.context.close()
    assert [error for one in seats for error in one.errors] == []
