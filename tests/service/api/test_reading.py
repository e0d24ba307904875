"""Reads of the run log run in separate threads, so that nothing else waits for them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from senoscope.runlog.store import RunLog
from support import miniature as mini
from support.image_bytes import npy
from support.run_logs import wait_for
from support.servers import ServerThread

READS = 60  # more than the threads that all requests share


def test_requests_are_answered_while_reads_of_the_log_do_not_end(
    start: Callable[..., ServerThread], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start()
    released, begun = threading.Event(), []
    page = RunLog.series

    def slow(self: RunLog, *given: Any) -> Any:
        begun.append(None)
        assert released.wait(120)
        return page(self, *given)

    monkeypatch.setattr(RunLog, "series", slow)
    body = npy(mini.bright())

    def ask(_: int) -> int:
        return httpx.get(f"{server.url}/v1/series", timeout=120).status_code

    with ThreadPoolExecutor(READS) as clients:
        try:
            codes = clients.map(ask, range(READS))
            wait_for(lambda: len(begun) == 4)
            for _ in range(3):
                answer = httpx.post(f"{server.url}/v1/classify", content=body, timeout=60)
                assert answer.json()["results"][0]["label"] == "senescent"
            assert httpx.get(f"{server.url}/v1/model", timeout=60).status_code == 200
            assert len(begun) == 4, "more reads than the log has connections for"
        finally:
            released.set()
        # Those that waited too long are answered with 503.
        assert set(codes) <= {200, 503}
