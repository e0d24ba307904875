"""Live frames together with posted stacks, and frames faster than they can be computed."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from support.load import Endurance, Listener, Poster, Scan, capacity_hz, percentiles
from support.servers import Server, ServerThread
from support.slow_engine import SlowEngine


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_no_live_frame_is_lost_while_stacks_are_posted(
    start: Callable[..., Server], endurance: Endurance, tmp_path: Path
) -> None:
    # The long form needs an idle machine. The short one is part of all tests and must not depend on timing:
    # its lane is large enough for any load.
    lane = endurance.scale(["--live-queue", "100000"], [])
    server = start("--live-backlog", "100000", *lane)
    rate_hz = 0.6 * capacity_hz(server)
    seconds = endurance.scale(5, 300)
    frames = int(rate_hz * seconds)
    listener, poster = Listener(server), Poster(server, 200)
    try:
        server.wait(lambda status: status["live_clients"]["connected"] == 1)
        sent = Scan(server, frames, rate_hz, tmp_path).end()
        server.wait(lambda status: status["live"]["classified"] + status["live"]["dropped"] == frames)
    finally:
        poster.close()
    status = server.wait(lambda status: len(listener.results) == status["live"]["classified"])
    listener.close()
    endurance.report(
        seconds=seconds,
        rate_hz=round(rate_hz, 1),
        sent_hz=round(frames / sent["seconds"], 1),
        frames=frames,
        dropped=status["live"]["dropped"],
        stacks=len(poster.answers),
        live_queue_ms=percentiles([r["timing_ms"]["queue"] for r in listener.results]),
        live_compute_ms=percentiles([r["timing_ms"]["compute"] for r in listener.results]),
        stack_batch_ms=percentiles([ms for answer in poster.answers for ms in answer["compute_ms"]]),
    )
    assert status["live"]["dropped"] == 0
    assert [r["source"]["frame"] for r in listener.results] == list(range(frames))
    assert poster.answers
    assert [(a["status"], a["count"]) for a in poster.answers] == [(200, 200)] * len(poster.answers)


@pytest.mark.timeout(3600)
def test_overload_drops_the_oldest_and_recovers(
    start: Callable[..., Server], endurance: Endurance, tmp_path: Path
) -> None:
    server = start("--live-backlog", "100000", "--batch-queue", "100", process=endurance.long)
    # In the short form the engine is slower than the scan on any machine.
    slow = SlowEngine(server).held() if isinstance(server, ServerThread) else contextlib.nullcontext()
    rate_hz = 3 * capacity_hz(server)
    frames = endurance.scale(60, int(60 * rate_hz))
    listener = Listener(server)
    server.wait(lambda status: status["live_clients"]["connected"] == 1)
    with contextlib.ExitStack() as posting:
        stacks = posting.enter_context(contextlib.closing(Poster(server, endurance.scale(101, 200))))
        with slow:
            scan = Scan(server, frames, rate_hz, tmp_path)
            server.wait(lambda status: status["live"]["dropped"] > 0 and status["batch"]["waiting"] > 0)
            refused = posting.enter_context(contextlib.closing(Poster(server, 1, pause_s=0.05)))
            sent = scan.end()
            refused.wait_for(503)  # the scan may have ended before the first was posted
        ended = time.perf_counter()
        server.wait(lambda status: status["live"]["waiting"] == 0)
        recovered_s = time.perf_counter() - ended
    refusals = [answer for answer in refused.answers if answer["status"] == 503]
    status = server.wait(lambda status: len(listener.results) == status["live"]["classified"])
    listener.close()
    received = status["receiver"]["messages"]["image"]
    endurance.report(
        rate_hz=round(rate_hz, 1),
        sent_hz=round(frames / sent["seconds"], 1),
        frames=frames,
        received=received,
        classified=status["live"]["classified"],
        dropped=status["live"]["dropped"],
        live_total_ms=percentiles([r["timing_ms"]["total"] for r in listener.results]),
        refused=len(refusals),
        refused_ms=percentiles([1e3 * answer["seconds"] for answer in refusals]),
        stacks=dict(Counter(answer["status"] for answer in stacks.answers)),
        recovered_s=round(recovered_s, 3),
    )
    assert status["live"]["classified"] + status["live"]["dropped"] == received
    assert status["live"]["dropped"] > 0
    assert refusals
    assert {answer["code"] for answer in refusals} == {"busy"}
    assert all(int(answer["retry_after_s"]) >= 1 for answer in refusals)
    seen = [r["source"]["frame"] for r in listener.results]
    assert seen == sorted(seen)
    assert seen[-1] == frames - 1, "the newest frame is never the one that is dropped"
