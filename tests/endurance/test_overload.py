"""Frames that come faster than they can be computed, while a stack is posted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import httpx
import pytest

from enduring import Endurance, Listener, Poster, capacity_hz, percentiles, scan, stack
from misbehaving import Microscope
from serving import Server


@pytest.mark.timeout(3600)
def test_overload_drops_the_oldest_and_recovers(start: Callable[..., Server], endurance: Endurance) -> None:
    server = start("--live-backlog", "100000", "--batch-queue", "100")
    rate_hz = 3 * capacity_hz(server)
    frames = int(rate_hz * endurance.scale(4, 60))
    scope, listener = Microscope(server.frames), Listener(server)
    refusals: list[float] = []
    try:
        server.wait(lambda status: status["live_clients"]["connected"] == 1)
        poster = Poster(server, 200)
        scanning = threading.Thread(target=scan, args=(scope, frames, rate_hz))
        scanning.start()
        server.wait(lambda status: status["live"]["dropped"] > 0 and status["batch"]["waiting"] > 0, 60)
        body = stack(1)
        while scanning.is_alive():
            began = time.perf_counter()
            answer = httpx.post(f"{server.url}/v1/classify", content=body, timeout=60)
            if answer.status_code == 503:
                refusals.append((time.perf_counter() - began) * 1e3)
                assert answer.json()["code"] == "busy"
                assert int(answer.headers["Retry-After"]) >= 1
            time.sleep(0.05)
        scanning.join()
        ended = time.perf_counter()
        status = server.wait(lambda status: status["live"]["waiting"] == 0, 60)
        recovered_s = time.perf_counter() - ended
        poster.close()
    finally:
        scope.close()
    status = server.wait(lambda status: len(listener.results) == status["live"]["classified"], 60)
    listener.close()
    received = status["receiver"]["messages"]["image"]
    endurance.tell(
        rate_hz=round(rate_hz, 1),
        frames=frames,
        received=received,
        classified=status["live"]["classified"],
        dropped=status["live"]["dropped"],
        live_total_ms=percentiles([r["timing_ms"]["total"] for r in listener.results]),
        refused_ms=percentiles(refusals) if refusals else None,
        recovered_s=round(recovered_s, 3),
    )
    assert status["live"]["classified"] + status["live"]["dropped"] == received
    assert status["live"]["dropped"] > 0
    seen = [r["source"]["frame"] for r in listener.results]
    assert seen == sorted(seen)
    assert seen[-1] == frames - 1, "the newest frame is never the one that is dropped"
