"""A service that is killed: every published result is in the log."""

from __future__ import annotations

import json
import sqlite3
import threading
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from senoscope.runlog.entries import ResultFilter
from senoscope.runlog.store import RunLog
from senoscope_client import Client, FramePublisher, Position
from support import miniature as mini
from support.run_logs import PostgresServer
from support.servers import ServerProcess, start_server, start_server_process


def stream_until_killed(server: ServerProcess, results_before_kill: int) -> list[str]:
    """Kill the service while frames are streamed; return the ids of all results that a client received."""
    received: list[str] = []
    ended = threading.Event()

    def publish() -> None:
        with FramePublisher(server.frames, "nlo-1") as publisher:
            assert publisher.wait_for_subscriber(60)
            publisher.start_series("plate 1")
            n = 0
            while not ended.wait(0.005):
                publisher.publish(mini.bright(), Position(x=n, y=0, z=0))
                n += 1

    with connect(server.ws, max_queue=None) as live:
        publishing = threading.Thread(target=publish)
        publishing.start()
        try:
            while True:
                received.append(json.loads(live.recv(timeout=30))["id"])
                if len(received) == results_before_kill:
                    server.process.kill()
        except ConnectionClosed:
            pass
        finally:
            ended.set()
            publishing.join()
    server.process.wait(60)
    return received


def check(url: str, received: list[str]) -> None:
    log = RunLog(url)
    log.prepare()
    logged = {str(found.id) for found in log.iterate(ResultFilter())}
    log.close()
    assert set(received) <= logged
    assert len(received) == len(set(received))


@pytest.mark.parametrize("kills", [(17,), pytest.param((1, 17, 60), marks=pytest.mark.full)])
def test_kill_while_frames_stream(miniature: Path, tmp_path: Path, kills: tuple[int, ...]) -> None:
    path = tmp_path / "log.sqlite3"
    received = []
    for results_before_kill in kills:
        server = start_server_process(miniature, tmp_path / "log.txt", "--live-queue", "1000")
        received += stream_until_killed(server, results_before_kill)
        check(f"sqlite:///{path}", received)
        with sqlite3.connect(path) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    server = start_server(miniature, tmp_path / "log.txt")
    try:
        with Client(server.url) as client:
            assert set(received) <= {str(found.id) for found in client.all_results()}
            assert {one.state for one in client.series()} == {"interrupted"}
            assert sum(sum(one.labels.values()) for one in client.series()) >= len(received)
    finally:
        server.stop()


@pytest.mark.full
@pytest.mark.system("postgres")
def test_kill_with_postgresql(miniature: Path, tmp_path: Path, postgres: PostgresServer) -> None:
    url = postgres.new_database()
    server = start_server_process(
        miniature, tmp_path / "log.txt", "--database-url", url, "--live-queue", "1000"
    )
    check(url, stream_until_killed(server, 20))
