"""A run log that is locked, read-only, on a full disk or damaged; the service goes on classifying."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from enduring import Endurance, Listener
from logfaults import Disk, write_locked
from misbehaving import Microscope
from runlogs import wait_for
from senoscope_client import Client
from serving import Server, stop_server

RATE_HZ = 25
Start = Callable[..., Server]


class Round:
    """A server with its log in a folder, frames that it is sent, and what it tells of them."""

    def __init__(self, start: Start, path: Path, like: Server | None = None) -> None:
        patient = ("--live-queue", "100000", "--live-backlog", "100000", "--log-format", "json")
        self.server = start("--database-url", f"sqlite:///{path}", *patient, like=like)
        self._scope, self._listener = Microscope(self.server.frames), Listener(self.server)
        self.server.wait(lambda status: status["live_clients"]["connected"] == 1)
        self._sent = 0

    def scan(self, frames: int) -> list[dict]:
        """Send so many more, and return their results: each has one, whatever becomes of the log."""
        for _ in range(frames):
            self._scope.send(self._scope.frame(self._sent))
            self._sent += 1
            time.sleep(1 / RATE_HZ)
        wait_for(lambda: len(self._listener.results) == self._sent, 60)
        results = self._listener.results[-frames:]
        assert [result["source"]["frame"] for result in results] == list(range(self._sent))[-frames:]
        return results

    def told(self) -> list[dict]:
        return self._listener.results

    def check_ill(self, state: str, advice: str) -> None:
        """See that it says what is wrong, and what to do, everywhere where somebody may look."""
        self.server.wait(lambda status: status["run_log"]["state"] == state, 60)
        ready = httpx.get(f"{self.server.url}/readyz")
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        assert any(advice in problem for problem in ready.json()["problems"])
        assert (
            f'senoscope_run_log_state{{state="{state}"}} 1.0' in httpx.get(f"{self.server.url}/metrics").text
        )
        lines = [line for line in log_lines(self.server) if line["event"] == "results are not logged"]
        assert state in {line["state"] for line in lines}
        assert any(advice in line["reason"] for line in lines)

    def check_well(self, results: list[dict]) -> None:
        """See that it is well again by itself, and that every one of these results is in the log."""
        self.server.wait(lambda s: s["run_log"]["state"] == "ok" and s["run_log"]["waiting"] == 0, 60)
        assert httpx.get(f"{self.server.url}/readyz").json() == {"status": "ready"}
        assert "the run log works again" in {line["event"] for line in log_lines(self.server)}
        with Client(self.server.url) as client:
            logged = {str(result.id): result.probability for result in client.all_results()}
        assert logged == {result["id"]: result["probability"] for result in results}
        assert self.server.stream()["run_log"]["lost"] == 0

    def close(self) -> None:
        self._listener.close()
        self._scope.close()


def log_lines(server: Server) -> list[dict]:
    return [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]


def unlogged(results: list[dict]) -> int:
    """How many say that they are not in the log."""
    return sum("not_logged" in {flag["code"] for flag in result["flags"]} for result in results)


@pytest.fixture
def disk_of_8_mib(disk: Disk) -> Disk:
    if not disk.mount("size=8m"):
        pytest.skip("may not mount a file system here")
    return disk


@contextmanager
def no_room(disk: Disk) -> Iterator[None]:
    ballast = disk.folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            yield
    ballast.unlink()


@contextmanager
def read_only(disk: Disk) -> Iterator[None]:
    disk.set_writable(False)
    try:
        yield
    finally:
        disk.set_writable(True)


@contextmanager
def rounds(start: Start, path: Path, like: Server | None = None) -> Iterator[Round]:
    one = Round(start, path, like)
    try:
        yield one
    finally:
        one.close()


def kill(server: Server) -> Server:
    server.process.kill()
    server.process.wait()
    return server


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("state", ["locked", "full"])
def test_a_fault_that_passes(start: Start, endurance: Endurance, disk_of_8_mib: Disk, state: str) -> None:
    path = disk_of_8_mib.folder / "log.sqlite3"
    frames = endurance.scale(20, 1000)
    with rounds(start, path) as one:
        assert unlogged(one.scan(frames)) == 0
        with write_locked(path) if state == "locked" else no_room(disk_of_8_mib):
            # What the file has room for inside is still logged on a full disk.
            while one.server.stream()["run_log"]["state"] != state:
                one.scan(5)
            told = one.scan(frames)
            one.check_ill(state, {"locked": "another program", "full": "make room"}[state])
            assert unlogged(told) == frames
            with Client(one.server.url) as client:
                read = sum(1 for _ in client.all_results())
                assert read >= frames, "what is there can still be read"
        one.check_well(one.told())
        assert unlogged(one.scan(frames)) == 0
        one.check_well(one.told())
        endurance.tell(state=state, frames=len(one.told()), unlogged=unlogged(one.told()), lost=0)
        assert stop_server(one.server) == 0


@pytest.mark.timeout(1200)
def test_a_disk_that_is_read_only_when_it_comes_back(
    start: Start, endurance: Endurance, disk_of_8_mib: Disk
) -> None:
    path = disk_of_8_mib.folder / "log.sqlite3"
    frames = endurance.scale(20, 1000)
    with rounds(start, path) as before:
        earlier = before.scan(frames)
        server = kill(before.server)  # what it has open to write cannot be made read-only
    with read_only(disk_of_8_mib), rounds(start, path, like=server) as one:
        told = one.scan(frames)
        one.check_ill("read_only", "right to write")
        assert unlogged(told) == frames
        disk_of_8_mib.set_writable(True)
        one.check_well(earlier + told)
        later = one.scan(frames)
        assert unlogged(later) == 0
        one.check_well(earlier + told + later)
    endurance.tell(state="read_only", frames=3 * frames, unlogged=frames, lost=0)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("spoilt", ["first bytes", "all, after a kill"])
def test_a_file_that_is_damaged(start: Start, endurance: Endurance, tmp_path: Path, spoilt: str) -> None:
    path = tmp_path / "damaged.sqlite3"
    frames = endurance.scale(20, 1000)
    with rounds(start, path) as before:
        earlier = before.scan(frames)
        server = before.server
        if spoilt == "first bytes":
            assert stop_server(server) == 0
        else:  # or SQLite would mend it by what it finds in the write-ahead log
            kill(server)
    files = {file: file.read_bytes() for file in tmp_path.glob(f"{path.name}*")}
    assert len(files) == (1 if spoilt == "first bytes" else 3)
    for file, content in files.items():
        file.write_bytes(b"#" * 64 + content[64:] if spoilt == "first bytes" else b"#" * len(content))
    with rounds(start, path, like=server) as one:
        damaged = path.read_bytes()
        told = one.scan(frames)
        one.check_ill("corrupt", "Move the file")
        assert unlogged(told) == frames
        assert path.read_bytes() == damaged, "it is left as it is"
        moved = tmp_path / "moved"
        moved.mkdir()
        for file in tmp_path.glob(f"{path.name}*"):
            file.rename(moved / file.name)
        one.check_well(told)
        later = one.scan(frames)
        assert unlogged(later) == 0
        one.check_well(told + later)
    # Whoever repairs the old files has all that was in them.
    for file, content in files.items():
        (moved / file.name).write_bytes(content)
    with sqlite3.connect(moved / path.name) as database:
        found = {str(UUID(identifier)) for (identifier,) in database.execute("SELECT id FROM results")}
    assert found == {result["id"] for result in earlier}
    endurance.tell(state="corrupt", spoilt=spoilt, frames=3 * frames, unlogged=frames, lost=0)
