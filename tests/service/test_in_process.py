"""Services within another process, one after another and at the same time."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import prometheus_client
import pytest
import structlog
from prometheus_client import metrics as prometheus_metrics

from senoscope.api.app import create_app
from senoscope.service import Service
from senoscope.settings import Settings
from support import miniature as mini
from support.image_bytes import npy


def process_state() -> dict[str, Any]:
    """Return the settings of the process that a service must not change."""
    loggers = {
        name: (logger.level, logger.propagate, list(logger.handlers), list(logger.filters))
        for name, logger in [("", logging.root), *logging.root.manager.loggerDict.items()]
        if isinstance(logger, logging.Logger)
    }
    unset = (logging.NOTSET, True, [], [])
    return {
        "collection": (gc.isenabled(), gc.get_threshold()),
        "environment": dict(os.environ),
        "hooks": (sys.excepthook, threading.excepthook, sys.unraisablehook),
        # Loggers come with the libraries that are imported; what counts is what is set of them.
        "loggers": {name: found for name, found in loggers.items() if found != unset},
        "prometheus": (
            prometheus_metrics._use_created,
            list(prometheus_client.REGISTRY._collector_to_names),
        ),
        "signals": [signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)],
        "streams": (sys.stdout, sys.stderr),
        "structlog": structlog.get_config(),
        "switch interval": sys.getswitchinterval(),
    }


@asynccontextmanager
async def running(model: Path, folder: Path, name: str) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of a service in this process, when the service is ready."""
    failures: list[Exception] = []
    service = Service(
        Settings(
            model=str(model),
            device="cpu",
            stream="",
            results="tcp://127.0.0.1:*",
            database_url=f"sqlite:///{folder / name}.sqlite3",
            archive=folder / "archive",
        ),
        on_failure=failures.append,
    )
    app = create_app(service)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=60) as client,
        asyncio.timeout(60),
    ):
        while (await client.get("/readyz")).status_code != 200:
            assert failures == []
            await asyncio.sleep(0.01)
        yield client


async def classify(client: httpx.AsyncClient, fovs: int) -> dict[str, Any]:
    answer = await client.post("/v1/classify", content=npy([mini.bright()] * fovs))
    return answer.raise_for_status().json()


async def classified(client: httpx.AsyncClient) -> tuple[int, float]:
    """Return how many results a service has logged, and the count of its metrics."""
    logged = len((await client.get("/v1/results")).raise_for_status().json()["results"])
    text = (await client.get("/metrics")).text
    counted = [line for line in text.splitlines() if line.startswith("senoscope_results_total{")]
    return logged, sum(float(line.split()[-1]) for line in counted)


@pytest.fixture(scope="module", autouse=True)
def warmed_up(miniature: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Import modules that are imported at the first use, so that they do not count as changes."""

    async def once() -> None:
        async with running(miniature, tmp_path_factory.mktemp("first"), "log") as client:
            await classify(client, 1)

    asyncio.run(once())


def test_services_one_after_another_do_not_change_the_process(miniature: Path, tmp_path: Path) -> None:
    outside = process_state()
    frozen = gc.get_freeze_count()  # what other tests froze may be freed
    threads = threading.active_count()

    async def run(name: str, fovs: int) -> None:
        before = process_state()  # asyncio handles Ctrl-C
        async with running(miniature, tmp_path, name) as client:
            assert process_state() == before, "while it runs"
            assert (await classify(client, fovs))["count"] == fovs
            assert await classified(client) == (fovs, fovs)

    for n in (1, 2):
        asyncio.run(run(f"log{n}", n))
        assert process_state() == outside
    assert gc.get_freeze_count() <= frozen
    assert threading.active_count() <= threads + 1, "zmq keeps one"


def test_services_at_the_same_time_share_nothing(miniature: Path, tmp_path: Path) -> None:
    outside = process_state()

    async def run() -> None:
        before = process_state()
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(running(miniature, tmp_path, name)) for name in ("a", "b")
            ]
            answers = await asyncio.gather(*(classify(client, n) for n, client in enumerate(clients, 2)))
            assert [answer["count"] for answer in answers] == [2, 3]
            assert [await classified(client) for client in clients] == [(2, 2), (3, 3)]
            assert process_state() == before, "while they run"

    asyncio.run(run())
    assert process_state() == outside


def test_metrics_have_no_creation_times_whatever_the_process_sets(miniature: Path, tmp_path: Path) -> None:
    """They would double the size of a scrape; other registries of the process keep theirs."""
    other = prometheus_client.CollectorRegistry()
    prometheus_client.Counter("other", "Of the process.", registry=other).inc()

    async def scrape(accept: str) -> str:
        async with running(miniature, tmp_path, "log") as client:
            await classify(client, 1)
            return (await client.get("/metrics", headers={"Accept": accept})).text

    for accept in ("text/plain", "application/openmetrics-text; version=1.0.0"):
        text = asyncio.run(scrape(accept))
        assert "senoscope_results_total{" in text
        assert "_created" not in text
    assert "other_created" in prometheus_client.generate_latest(other).decode()
