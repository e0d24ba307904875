"""A service with rules: decisions are logged, listed, and sent over WebSocket and ZeroMQ."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

from senoscope_client.http.client import Client
from senoscope_client.http.live import LiveDecisions, LiveResults
from senoscope_client.models.decision import Decision, Judged
from senoscope_client.wire.messages import Position
from senoscope_client.zeromq.frame_publisher import FramePublisher
from senoscope_client.zeromq.subscribers import DecisionSubscriber, ResultSubscriber
from support import miniature as mini
from support.commands import CompletedCommand, run_command
from support.servers import Server, start_server, stop_server

RULES = """
dry_run = false
[[rules]]
name = "rescan"
action = "revisit"
[rules.when]
probability = { above = 0.6 }
label = "senescent"

[[rules]]
name = "nothing here"
action = "stop"
running = 3
when.label = "control"
"""


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rules") / "rules.toml"
    path.write_text(RULES)
    return path


@pytest.fixture(scope="module")
def deciding(miniature: Path, rules: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = start_server(miniature, tmp_path_factory.mktemp("server") / "log.txt", "--rules", str(rules))
    yield running
    assert stop_server(running) == 0


def scan(server: Server, name: str, bright: list[bool], *, per_frame=lambda _: None) -> str:
    with FramePublisher(server.frames, "nlo-7") as publisher:
        assert publisher.wait_for_subscriber(60)
        uid = publisher.start_series(name)
        for n, senescent in enumerate(bright):
            pixels = mini.bright() if senescent else mini.dark()
            publisher.publish(pixels, Position(x=100.0 * n, y=0, z=0))
            per_frame(n)
    return str(uid)


def senoscope(*arguments: str) -> CompletedCommand:
    return run_command("senoscope", *arguments)


def database(server: Server) -> str:
    return f"sqlite:///{server.log.with_suffix('.sqlite3')}"


def test_decisions_are_logged_listed_and_sent_over_websocket_and_zeromq(deciding: Server) -> None:
    with (
        LiveDecisions(deciding.url, timeout_s=30) as live,
        LiveDecisions(deciding.url, judged=True, timeout_s=30) as all_judged,
        DecisionSubscriber(deciding.results, instrument="nlo-7", judged=True) as subscriber,
        Client(deciding.url) as client,
    ):
        over_zeromq: list[Decision | Judged] = []
        decided = client.stream()["decisions"]["decided"]

        def until_judged(frame: int) -> None:
            while not (
                over_zeromq and isinstance(over_zeromq[-1], Judged) and over_zeromq[-1].frame == frame
            ):
                over_zeromq.append(subscriber.receive(60))

        uid = scan(deciding, "plate 1", [False, True, False, False, False, True], per_frame=until_judged)
        received = [next(live) for _ in range(3)]
        assert [(d.action, d.frame, d.rule) for d in received] == [
            ("revisit", 1, "rescan"),
            ("stop", 4, "nothing here"),
            ("revisit", 5, "rescan"),
        ]
        assert [d for d in over_zeromq if isinstance(d, Decision)] == received
        judged = [(j.frame, j.decisions) for j in over_zeromq if isinstance(j, Judged)]
        assert judged == [(0, 0), (1, 1), (2, 0), (3, 0), (4, 1), (5, 1)]
        assert [next(all_judged) for _ in over_zeromq] == over_zeromq
        first = received[0]
        assert not first.dry_run
        assert first.logged
        assert (str(first.series_uid), first.series_id, first.instrument) == (uid, "plate 1", "nlo-7")
        assert first.position_um == Position(x=100, y=0, z=0)
        assert client.result(first.result_id).source.frame == 1
        page = client.decisions(uid, limit=2)
        assert page.decisions == (received[2], received[1])
        rest = client.decisions(uid, limit=2, cursor=page.next)
        assert (rest.decisions, rest.next) == ((received[0],), None)
        assert received[2] in client.decisions().decisions
        assert client.decisions("00000000-0000-0000-0000-000000000000").decisions == ()
        counts = client.stream()["decisions"]
        more = {kind: count - decided.get(kind, 0) for kind, count in counts["decided"].items()}
        assert more == {"revisit": 2, "stop": 1}
        assert not counts["dry_run"]


def test_subscribers_of_results_receive_no_decisions(deciding: Server) -> None:
    with (
        LiveResults(deciding.url, timeout_s=30) as live,
        ResultSubscriber(deciding.results, timeout_s=30) as subscriber,
        LiveDecisions(deciding.url, timeout_s=30) as decisions,
    ):
        frames = []
        scan(deciding, "two", [True, True], per_frame=lambda _: frames.append(subscriber.receive(60)))
        assert [next(live).source.frame, next(live).source.frame] == [0, 1]
        assert [r.source.frame for r in frames] == [0, 1]
        assert subscriber.rejected == 0
        assert [next(decisions).frame, next(decisions).frame] == [0, 1]


def test_posted_stacks_are_not_judged(deciding: Server) -> None:
    with Client(deciding.url) as client:
        before = client.stream()["decisions"]
        client.classify(mini.bright())
        assert client.stream()["decisions"] == before


def test_invalid_parameters_are_refused(deciding: Server) -> None:
    assert httpx.get(f"{deciding.url}/v1/decisions?serie=x").status_code == 422
    assert httpx.get(f"{deciding.url}/v1/decisions?series=x").json()["code"] == "invalid_request"
    with connect(f"{deciding.url.replace('http', 'ws')}/v1/decisions?judged=maybe") as socket:
        with pytest.raises(ConnectionClosedError) as caught:
            socket.recv(60)
        assert caught.value.rcvd.code == 1008


def test_a_service_without_rules_reports_no_decisions(server: Server) -> None:
    with Client(server.url) as client, client.live_decisions(timeout_s=0.2) as live:
        scan(server, "undecided", [True])
        server.wait(lambda s: s["live"]["classified"] == 1)
        assert client.stream()["decisions"] is None
        assert client.decisions().decisions == ()
        with pytest.raises(TimeoutError):
            next(live)


def test_an_invalid_rule_file_is_reported_in_one_line(miniature: Path, tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    for text, message in (("dry_rum = true", "did you mean dry_run?"), (None, "No such file")):
        if text is not None:
            path.write_text(text)
        else:
            path = tmp_path / "missing.toml"
        done = senoscope("serve", "--model", str(miniature), "--port", "0", "--rules", str(path))
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
        assert path.name in done.stderr
        assert message in done.stderr


def test_limits_hold_across_a_restart_and_unlogged_decisions_are_marked(
    miniature: Path, tmp_path: Path
) -> None:
    path = tmp_path / "rules.toml"
    path.write_text("[limits]\nmax_revisits = 2\n" + RULES.replace("dry_run = false", ""))
    first = start_server(miniature, tmp_path / "log.txt", "--rules", str(path))
    with FramePublisher(first.frames, "nlo-7") as publisher:
        assert publisher.wait_for_subscriber(60)
        with LiveDecisions(first.url, judged=True, timeout_s=30) as live:
            publisher.start_series("plate 1")
            publisher.publish(mini.bright(), Position(x=0, y=0, z=0))
            assert next(live).dry_run
        assert stop_server(first) == 0
        second = start_server(miniature, tmp_path / "log.txt", "--rules", str(path), like=first)
        with LiveDecisions(second.url, judged=True, timeout_s=30) as live:
            assert publisher.wait_for_subscriber(60)
            second.wait(lambda s: s["receiver"]["series"])  # a heartbeat was received: it is subscribed
            decided = 0
            for n in range(3):
                publisher.publish(mini.bright(), Position(x=100.0 * n, y=0, z=0))
                message = next(live)
                while not isinstance(message, Judged):
                    message = next(live)
                decided += message.decisions
        assert decided == 1  # the place at 0 was revisited before, and the limit is 2
        assert second.stream()["decisions"]["withheld"] == 2
    log = sqlite3.connect(tmp_path / "log.sqlite3", isolation_level=None)
    log.execute("BEGIN EXCLUSIVE")
    with LiveDecisions(second.url, timeout_s=60) as live:
        scan(second, "unlogged", [True])
        assert not next(live).logged
    log.rollback()
    log.close()
    with Client(second.url) as client:
        second.wait(lambda s: s["run_log"]["state"] == "ok", 30)
        assert client.decisions(limit=1).decisions[0].series_id == "unlogged"
    assert stop_server(second) == 0


def test_a_rule_file_is_described_and_replayed(deciding: Server, rules: Path, tmp_path: Path) -> None:
    uid = scan(deciding, "replayed", [True, False, False, False])
    deciding.wait(lambda s: any(one["series_id"] == "replayed" for one in s["receiver"]["series"]))
    with Client(deciding.url) as client:
        deciding.wait(lambda _: len(client.results(series=uid).results) == 4)
        before = client.decisions(uid).decisions
    checked = senoscope("rules", "check", str(rules))
    assert checked.returncode == 0, checked.stderr
    assert "rescan: revisit when probability above 0.6, label is senescent" in checked.stdout
    assert "decisions take effect" in checked.stdout
    stricter = tmp_path / "stricter.toml"
    stricter.write_text(RULES.replace("running = 3", "running = 2"))
    for name in (uid, "replayed"):
        replayed = senoscope(
            "rules", "check", str(stricter), "--replay", name, "--database-url", database(deciding)
        )
        assert replayed.returncode == 0, replayed.stderr
        assert "frame 0 at 0, 0 um: revisit (rescan): probability 0.9" in replayed.stdout
        assert (
            "frame 2 at 200, 0 um: stop (nothing here): label is control, for 2 consecutive"
            in replayed.stdout
        )
        assert "4 fields of view: 1 revisit, 0 skip, 1 stop; 0 revisits withheld" in replayed.stderr
    with Client(deciding.url) as client:
        assert client.decisions(uid).decisions == before


@pytest.mark.parametrize(
    ("replay", "url", "message"),
    [
        ("no such series", None, "the run log has no series"),
        ("x", "sqlite:////nowhere/log.sqlite3", "no run log at"),
        ("x", "mysql://x", "not a valid URL of a run log"),
    ],
)
def test_an_impossible_replay_is_reported(deciding: Server, rules: Path, replay, url, message) -> None:
    url = url or database(deciding)
    done = senoscope("rules", "check", str(rules), "--replay", replay, "--database-url", url)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
