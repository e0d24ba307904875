"""A service that is killed: everything that anybody was told of is in the log."""

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


def stream_until_killed(server: ServerProcess, told_before: int) -> list[str]:
    """Ids of all results that a subscriber was told of, when the service was killed amid the frames."""
    told: list[str] = []
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
                told.append(json.loads(live.recv(timeout=30))["id"])
                if len(told) == told_before:
                    server.process.kill()
        except ConnectionClosed:
            pass
        finally:
            ended.set()
            publishing.join()
    server.process.wait(60)
    return told


def check(url: str, told: list[str]) -> None:
    log = RunLog(url)
    log.prepare()
    logged = {str(found.id) for found in log.iterate(ResultFilter())}
    log.close()
    assert set(told) <= logged
    assert len(told) == len(set(told))


@pytest.mark.parametrize("kills", [(17,), pytest.param((1, 17, 60), marks=pytest.mark.full)])
def test_kill_while_frames_stream(miniature: Path, tmp_path: Path, kills: tuple[int, ...]) -> None:
    path = tmp_path / "log.sqlite3"
    told = []
    for told_before in kills:
        server = start_server_process(miniature, tmp_path / "log.txt", "--live-queue", "1000")
        told += stream_until_killed(server, told_before)
        check(f"sqlite:///{path}", told)
        with sqlite3.connect(path) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    server = start_server(miniature, tmp_path / "log.txt")
    try:
        with Client(server.url) as client:
            assert set(told) <= {str(found.id) for found in client.all_results()}
            assert {one.state for one in client.series()} == {"interrupted"}
            assert sum(sum(one.labels.values()) for one in client.series()) >= len(told)
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
