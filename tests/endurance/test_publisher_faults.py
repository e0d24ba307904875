"""Publishers that are killed and restarted, and interrupted networks: every frame is accounted for."""

from __future__ import annotations

import random
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from senoscope_client import Client
from support.load import Endurance
from support.network_cable import Cable
from support.run_logs import wait_for
from support.servers import Server, free_port

pytestmark = pytest.mark.full

RATE_HZ = 25
# Never full: no received frame is dropped, so each has a result.
NO_DROPS = ("--live-queue", "100000")


class Program:
    """The acquisition program, and the frames that all its processes recorded."""

    def __init__(self, port: int, journal: Path) -> None:
        self._endpoint, self._journal = f"tcp://127.0.0.1:{port}", journal

    def start(self, uid: uuid.UUID, frame: int = 0, wait_s: float = 0) -> None:
        arguments = [self._endpoint, str(RATE_HZ), str(wait_s), str(uid), str(frame)]
        with self._journal.open("a") as journal:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    str(Path(__file__).parents[1] / "support" / "resuming_publisher.py"),
                    *arguments,
                ],
                stdin=subprocess.PIPE,
                stdout=journal,
                text=True,
            )

    def next_series(self) -> uuid.UUID:
        """End the series and begin another."""
        uid = uuid.uuid4()
        self._process.stdin.write(f"{uid}\n")
        self._process.stdin.flush()
        return uid

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def end(self) -> None:
        """End the series and the program."""
        self._process.communicate(timeout=30)
        assert self._process.returncode == 0

    def frames(self) -> list[tuple[uuid.UUID, int]]:
        """Return the sent frames in order; the last one was possibly not sent."""
        lines = self._journal.read_text().split("\n")[:-1]
        return [(uuid.UUID(line.split()[0]), int(line.split()[1])) for line in lines]

    def sent(self) -> dict[uuid.UUID, int]:
        """Return the number of frames of each series."""
        return {uid: frame + 1 for uid, frame in sorted(self.frames(), key=lambda one: one[1])}


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Callable[[int], Program]]:
    """Returns a function that creates acquisition programs; all are killed at the end."""
    made: list[Program] = []

    def make(port: int) -> Program:
        made.append(Program(port, tmp_path / "journal.txt"))
        return made[-1]

    yield make
    for program in made:
        program.kill()


def port_of(endpoint: str) -> int:
    return int(endpoint.rpartition(":")[2])


def wait_for_frames(server: Server, uid: uuid.UUID, beyond: int = 0) -> None:
    def received(status: dict) -> bool:
        seen = {one["series_uid"]: one for one in status["receiver"]["series"]}.get(str(uid), {})
        return seen.get("received", 0) > 0 and seen["last_frame"] >= beyond

    server.wait(received, 60)


def end(server: Server, program: Program) -> None:
    """End the current series, and wait until all received frames have results."""
    newest = server.stream()["receiver"]["series"][0]
    assert newest["state"] == "open"
    program.end()
    server.wait(lambda status: status["receiver"]["series"][0]["state"] == "ended", 60)
    server.wait(
        lambda status: (
            sum(one["received"] for one in status["receiver"]["series"])
            == status["live"]["classified"]
            == status["run_log"]["written"]
        ),
        60,
    )


def check(server: Server, program: Program) -> dict[str, Any]:
    """Check that every sent frame is accounted for exactly once."""
    sent = program.sent()
    with Client(server.url) as client:
        results = Counter((result.source.series_uid, result.source.frame) for result in client.all_results())
        known = {one.series_uid: one for one in client.series(1000)}
    assert set(results.values()) == {1}, "a frame was classified twice"
    assert set(results) <= set(program.frames())
    assert set(known) <= set(sent)
    unknown = sum(frames for uid, frames in sent.items() if uid not in known)
    for uid, one in known.items():
        announced = 0 if one.last_frame is None else one.last_frame + 1
        assert one.received + one.missing == announced
        if one.state == "ended":
            assert announced == sent[uid]
        else:
            # The last frames and the end message were lost: the service cannot know of them.
            assert announced <= sent[uid]
        unknown += sent[uid] - announced
        assert one.received == sum(one.labels.values()) == sum(found == uid for found, _ in results)
    return {
        "series": len(sent),
        "states": dict(Counter(one.state for one in known.values())),
        "frames_sent": sum(sent.values()),
        "received": sum(one.received for one in known.values()),
        "missing": sum(one.missing for one in known.values()),
        "unknown": unknown,
        "repeats_sent": len(program.frames()) - len(set(program.frames())),
        "repeats_seen": sum(one.repeated for one in known.values()),
    }


@pytest.mark.timeout(3600)
def test_a_publisher_that_is_killed_and_restarted(
    start: Callable[..., Server], endurance: Endurance, programs: Callable[[int], Program]
) -> None:
    rng = random.Random(11)
    server = start(*NO_DROPS)
    program = programs(port_of(server.frames))
    uid = uuid.uuid4()
    program.start(uid, wait_s=30)
    wait_for_frames(server, uid)
    kills = endurance.scale(4, 50)
    for n in range(kills):
        time.sleep(rng.uniform(0.2, 2.5))
        program.kill()
        sent = program.sent().get(uid, 0)
        match n % 4:
            case 0:
                uid = uuid.uuid4()
                program.start(uid, wait_s=30)
                wait_for_frames(server, uid)
            case 1:
                program.start(uid, sent, wait_s=30)
                wait_for_frames(server, uid, sent)
            case 2:  # sends its first frames, or all, without a subscriber
                uid = uuid.uuid4()
                program.start(uid)
            case 3:  # sends lost frames again, and also received ones
                program.start(uid, max(1, sent - rng.randint(1, 20)) if sent else 0)
    wait_for_frames(server, uid, sent)
    end(server, program)
    counts = check(server, program)
    endurance.report(kills=kills, **counts)
    assert counts["states"].get("ended") == 1
    assert set(counts["states"]) <= {"ended", "interrupted"}


@pytest.mark.timeout(3600)
def test_an_interrupted_network(
    start: Callable[..., Server], endurance: Endurance, programs: Callable[[int], Program]
) -> None:
    rng = random.Random(12)
    server = start(*NO_DROPS)
    port = free_port()
    cable, program = Cable(port_of(server.frames), port), programs(port)
    uid = uuid.uuid4()
    program.start(uid, wait_s=30)
    wait_for_frames(server, uid)
    # The last silent interruption is longer than the heartbeat timeout of the service.
    cuts_s = endurance.scale([1.0, 1.0], [5.0] * 10 + [12.0])
    lost = Counter()
    try:
        for n, cut_s in enumerate(cuts_s):
            hang_up = n % 2 == 1
            time.sleep(rng.uniform(0.2, 1))
            before = server.stream()["receiver"]["series"]
            frames = len(program.frames())
            cable.cut(hang_up=hang_up)
            time.sleep(cut_s / 2)
            if n % 3 == 1:
                uid = program.next_series()
            time.sleep(cut_s / 2)
            wait_for(lambda sent=frames: len(program.frames()) > sent + 10)
            cable.mend()
            wait_for_frames(server, uid, program.sent()[uid])
            after = server.stream()["receiver"]["series"]
            missed = sum(one["missing"] for one in after) - sum(one["missing"] for one in before)
            lost["closed" if hang_up else "silent"] += missed
        end(server, program)
    finally:
        cable.close()
    counts = check(server, program)
    endurance.report(
        cuts_s=cuts_s,
        missed_in_cuts=dict(lost),
        connections=server.stream()["receiver"]["connections"],
        **counts,
    )
    assert lost["closed"] > 0, "frames sent without a connection are counted as missing"
