"""``kill -9`` at random moments, while frames stream and stacks are posted."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest

from senoscope_client import Client
from support.load import Endurance, percentiles
from support.microscopes import SteadyScan
from support.recorders import ResultRecorder
from support.run_logs import wait_for
from support.servers import Server, stop_server

pytestmark = pytest.mark.full

RATE_HZ = 20
# Never full: no received frame is dropped, so each has a result unless the service was killed before.
NO_DROPS = ("--live-queue", "100000")
MOMENTS = ("start", "batch", "idle", "any")


def wait_for_moment(kind: str, server: Server, recorder: ResultRecorder, rng: random.Random) -> None:
    """Wait for the moment to kill a server that has just become ready."""
    recorder.post(go=kind != "idle")
    match kind:
        case "batch":
            server.wait(
                lambda status: status["batch"]["waiting"] > 0 and status["live"]["classified"] > 0, 60
            )
            time.sleep(rng.uniform(0, 0.3))
        case "idle":
            server.wait(lambda status: status["live"]["classified"] > 0, 60)
            server.wait(lambda status: status["live"]["waiting"] == status["batch"]["waiting"] == 0, 60)
        case _:
            time.sleep(rng.uniform(0, 4))


def kill(server: Server) -> None:
    server.kill()


def check_received(recorder: ResultRecorder, logged: dict[str, tuple[str, float]]) -> dict[str, int]:
    """Check that all received results are in the log, except those flagged as not logged."""
    assert recorder.duplicates == []
    assert set(recorder.statuses) <= {200, 503}, recorder.statuses
    lost: set[str] = set()
    for transport, results in recorder.received.items():
        for identifier, one in results.items():
            if identifier in logged:
                assert logged[identifier] == (one.label, one.probability)
            else:
                assert not one.in_log, f"received over {transport}, not in the log: {identifier}"
                lost.add(identifier)
    counts = {transport: len(results) for transport, results in recorder.received.items()}
    return counts | {"flagged_and_lost": len(lost)}


@pytest.mark.timeout(7200)
def test_all_results_received_before_a_kill_are_in_the_log(
    start: Callable[..., Server], endurance: Endurance, tmp_path: Path
) -> None:
    rng = random.Random(7)
    began = time.perf_counter()
    server = start(*NO_DROPS)
    ready_s = [time.perf_counter() - began]
    scan, recorder = SteadyScan(server.frames, RATE_HZ), ResultRecorder(server, 40)
    scan.start()
    kills = endurance.scale(3, 50)
    for n in range(kills):
        moment = MOMENTS[n % len(MOMENTS)]
        if moment == "start" and n:  # during the start after the last kill
            server = start(*NO_DROPS, like=server, wait=False)
            time.sleep(rng.uniform(0, ready_s[0]))
        else:
            wait_for_moment(moment, server, recorder, rng)
        kill(server)
        if MOMENTS[(n + 1) % len(MOMENTS)] != "start" or n + 1 == kills:
            began = time.perf_counter()
            server = start(*NO_DROPS, like=server)
            ready_s.append(time.perf_counter() - began)
    recorder.post(go=True)
    wait_for(lambda: all(recorder.received.values()), 120)
    recorder.post(go=False)
    scan.close()
    with Client(server.url) as client:
        server.wait(lambda status: status["receiver"]["series"][0]["state"] == "ended", 60)
        server.wait(lambda status: status["run_log"]["waiting"] == status["live"]["waiting"] == 0, 60)
        # The last frame may still be in the engine.
        wait_for(lambda: (last := client.one_series(scan.uid)).received == sum(last.labels.values()), 60)
        recorder.close()
        series = client.one_series(scan.uid)
        listed_results = {
            str(result.id): (result.label, result.probability) for result in client.all_results()
        }
        listed = client.series()
    assert stop_server(server) == 0
    with sqlite3.connect(tmp_path / "runlog.sqlite3") as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = database.execute("SELECT id, label, probability, series_uid, frame FROM results").fetchall()
    logged = {str(UUID(row[0])): (row[1], row[2]) for row in rows}
    assert listed_results == logged
    assert len(logged) == len(rows)
    frames = [row[4] for row in rows if row[3] == scan.uid.hex]
    assert len(set(frames)) == len(frames), "no frame has two results"
    counts = check_received(recorder, logged)
    endurance.report(
        kills=kills,
        received=counts,
        logged=len(logged),
        posted=dict(recorder.statuses),
        frames_sent=scan.sent,
        frames_received=series.received,
        frames_missing=series.missing,
        ready_s=percentiles(ready_s),
    )
    assert [one.series_uid for one in listed] == [scan.uid], "the scan continued as one series"
    assert (series.state, series.end_reason) == ("ended", "completed")
    assert (series.first_frame, series.restarts, series.repeated) == (0, 0, 0)
    assert series.received == sum(series.labels.values()) == len(frames)
    assert series.received + series.missing == scan.sent
    assert series.missing > 0, "frames sent while no service was running"
