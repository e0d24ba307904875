"""Valid and invalid requests from many clients at once: each gets its correct answer."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from random import Random

import psutil
import pytest

from support.classify_requests import BY_TURNS
from support.load import Endurance, Listener, memory_mib
from support.mixed_requests import Kind, Sender, Stream, bad, deck, good, mixed, usual
from support.raw_microscope import Microscope
from support.servers import Server

pytestmark = pytest.mark.full

_CLIENTS = 16
# Two more connections of the run log's pool may be open, with two files each.
_POOLED = 4
_WARM_UP = 300
_SEED = 2026


class Clients:
    """Clients that send the requests of a list; each sends the next one after its answer.

    Attributes
    ----------
    counts : Counter of (str, str)
        Correct answers, by kind of request and answer.
    failures : list of str
        Descriptions of incorrect answers.
    """

    def __init__(self, server: Server) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.failures: list[str] = []
        self.retried = 0
        self._server = server
        self._lock = threading.Lock()

    def send(self, order: list[Kind], rng: Random) -> None:
        waiting = [(kind, Random(rng.random())) for kind in reversed(order)]
        clients = [threading.Thread(target=self._client, args=(waiting,)) for _ in range(_CLIENTS)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        assert not waiting

    def _client(self, waiting: list[tuple[Kind, Random]]) -> None:
        sender = Sender(self._server)
        with sender.http:
            while True:
                with self._lock:
                    if not waiting:
                        break
                    kind, rng = waiting.pop()
                try:
                    answer = kind.send(sender, rng)
                except (Exception, pytest.fail.Exception) as error:
                    with self._lock:
                        self.failures.append(f"{kind.name}: {error!r}"[:1000])
                else:
                    with self._lock:
                        self.counts[kind.name, answer] += 1
        with self._lock:
            self.retried += sender.retried


def at_rest(server: Server, process: psutil.Process) -> tuple[int, int]:
    """Return file descriptors and threads once no HTTP connection is open and nothing is computed."""
    server.wait(lambda status: status["batch"]["waiting"] == status["live"]["waiting"] == 0, 60)
    port = int(server.url.rpartition(":")[2])
    deadline = time.monotonic() + 60
    while any(
        one.laddr.port == port and one.status != psutil.CONN_LISTEN
        for one in process.net_connections(kind="tcp")
    ):
        assert time.monotonic() < deadline, process.net_connections(kind="tcp")
        time.sleep(0.1)
    return process.num_fds(), process.num_threads()


@pytest.mark.timeout(2 * 3600)
def test_mixed_requests(start: Callable[..., Server], endurance: Endurance) -> None:
    patience = ("--header-timeout-s", "5", "--body-timeout-s", "5")
    lanes = ("--batch-queue", "48", "--live-queue", "1000", "--live-backlog", "100000")
    # Small enough that the warm-up fills it: its memory then stays constant.
    remembered = ("--remember-mib", "32")
    server = start(*patience, *lanes, *remembered, "--log-format", "json")
    process = psutil.Process(server.process.pid)
    rng = Random(_SEED)
    stream = Stream(Microscope(server.frames))
    served = good()
    with Sender(server).http:
        for request in served:
            request.learn(Sender(server))
    right = deck(usual(stream, served), rng)
    wrong = deck(bad() + stream.kinds(), rng)

    warm_up = Clients(server)
    warm_up.send(mixed(right, wrong, _WARM_UP, rng), rng)
    assert warm_up.failures == []
    descriptors, threads = at_rest(server, process)
    before_mib = memory_mib(server)

    listener = Listener(server)
    first_frame = stream.frames
    clients = Clients(server)
    count = endurance.scale(300, 10_000)
    began = time.monotonic()
    clients.send(mixed(right, wrong, count, rng), rng)
    seconds = time.monotonic() - began
    status = server.wait(
        lambda status: (
            status["live"]["classified"] + status["live"]["dropped"] == stream.frames
            and sum(status["receiver"]["rejected"].values()) == sum(stream.wrong.values())
        ),
        60,
    )
    deadline = time.monotonic() + 60
    while len(listener.results) < stream.frames - first_frame and time.monotonic() < deadline:
        time.sleep(0.05)
    listener.close()
    after = at_rest(server, process)
    after_mib = memory_mib(server)
    # Idle threads end ten seconds after their last task, when another one is requested.
    deadline = time.monotonic() + 60
    while (after[0] > descriptors + _POOLED or after[1] > threads) and time.monotonic() < deadline:
        served[0].send(Sender(server), rng)
        time.sleep(1)
        after = at_rest(server, process)

    by_kind: dict[str, dict[str, int]] = {}
    for (kind, answer), times in sorted(clients.counts.items()):
        by_kind.setdefault(kind, {})[answer] = times
    by_answer: Counter[str] = Counter()
    for (_, answer), times in clients.counts.items():
        by_answer[answer] += times
    endurance.report(
        requests=count,
        seconds=round(seconds, 1),
        failures=clients.failures[:20],
        by_answer=dict(by_answer.most_common()),
        by_kind=by_kind,
        retried=clients.retried,
        frames=stream.frames - first_frame,
        memory_mib={"before": round(before_mib, 1), "after": round(after_mib, 1)},
        descriptors={"before": descriptors, "after": after[0]},
        threads={"before": threads, "after": after[1]},
    )
    assert clients.failures == []
    assert sum(clients.counts.values()) == count
    assert {kind for kind, _ in (*warm_up.counts, *clients.counts)} == {
        kind.name for kind in (*usual(stream, served), *bad(), *stream.kinds())
    }
    check_stream(status, stream, listener, first_frame)
    assert after_mib - before_mib <= 50
    assert after[0] <= descriptors + _POOLED
    assert after[1] <= threads
    with Sender(server).http as http:
        assert http.get("/readyz").json() == {"status": "ready"}
    lines = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
    assert [line for line in lines if line["level"] not in {"info", "warning"}] == []
    assert "Traceback" not in server.log.read_text()


def check_stream(status: dict, stream: Stream, listener: Listener, first_frame: int) -> None:
    """Check that each valid frame was classified, and each invalid one counted by its reason."""
    assert status["live"]["dropped"] == 0
    assert Counter(status["receiver"]["rejected"]) == stream.wrong
    received = {result["source"]["frame"]: result for result in listener.results}
    assert sorted(received) == list(range(first_frame, stream.frames))
    assert all(result["label"] == BY_TURNS[n % 4] for n, result in received.items())
