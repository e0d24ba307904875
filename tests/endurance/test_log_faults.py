"""A run log whose database fails while frames stream: it is told, results go on, and none is lost."""

from __future__ import annotations

import os
import random
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from uuid import UUID

import httpx
import numpy as np
import pytest

from senoscope_client import Client
from senoscope_client.errors import LogUnavailable
from senoscope_client.responses import SeriesSummary
from support import miniature as mini
from support.load import Endurance
from support.microscopes import SteadyScan
from support.recorders import Witnesses
from support.run_logs import Disk, wait_for, write_locked
from support.servers import Server

pytestmark = pytest.mark.full

RATE_HZ = 20
# More than ever wait: each frame has a result.
NO_DROPS = ("--live-queue", "100000")
# Of a result: its label and its probability.
Rows = dict[str, tuple[str, float]]


class Scene:
    """A server with its run log at a path, a microscope that scans, and people who listen to the results."""

    def __init__(self, server: Server, path: Path, endurance: Endurance) -> None:
        self.server, self.path = server, path
        self.faults = 0
        self._endurance = endurance
        self._rng = random.Random(21)
        self._read = 0  # of the server's log
        self.scan, self._witnesses = SteadyScan(server.frames, RATE_HZ), Witnesses(server, 1)
        self.scan.start()
        self._wait_for_more(in_log=True)

    def restart(self, server: Server) -> None:
        """Go on with another server at the same addresses."""
        self.server, self._read = server, 0

    def see_fault(self, state: str, advice: str) -> None:
        """See that a fault is told everywhere, and that frames and stacks have their results all the same."""
        self._wait_for_more(in_log=False)
        wait_for(lambda: self._told_of(state, advice), 60)
        with Client(self.server.url) as client:
            (posted,) = client.classify(np.stack([mini.bright()]))
            assert "not_logged" in {flag.code for flag in posted.flags}
            assert client.result(posted.id) == posted
        self._wait_for_more(in_log=False)
        lines = self.server.log.read_text()[self._read :]
        assert "results are not logged" in lines
        assert f"state={state}" in lines
        assert advice in lines
        self.faults += 1
        time.sleep(self._rng.uniform(0, self._endurance.scale(0, 10)))

    def see_earlier_results(self) -> None:
        """See that what is in the log can be read while it cannot be written."""
        told = self._told(in_log=True)
        with Client(self.server.url) as client:
            assert (
                told.items()
                <= {str(one.id): (one.label, one.probability) for one in client.all_results()}.items()
            )

    def see_recovery(self) -> None:
        """See that the log catches up, and says so."""
        self.server.wait(lambda status: status["run_log"]["state"] == "ok", 60)
        self._wait_for_more(in_log=True)
        status = self.server.wait(lambda status: status["run_log"]["waiting"] == 0, 60)["run_log"]
        assert (status["problem"], status["lost"]) == (None, 0)
        assert httpx.get(f"{self.server.url}/readyz").json() == {"status": "ready"}
        text = self.server.log.read_text()
        assert "the run log works again" in text[self._read :]
        self._read = len(text)

    def end(self, moved: Rows | None = None) -> SeriesSummary:
        """End the scan, and see that all that was told is in the log, or in those that were moved away."""
        self.scan.close()
        self.server.wait(lambda status: status["receiver"]["series"][0]["state"] == "ended", 60)
        self.server.wait(lambda status: status["run_log"]["waiting"] == status["live"]["waiting"] == 0, 60)
        with Client(self.server.url) as client:
            series = client.one_series(self.scan.uid)
        wait_for(lambda: len(rows(self.path)) + len(moved or {}) == series.received + self.faults)
        self._witnesses.close()
        assert self._witnesses.twice == []
        logged = rows(self.path)
        assert not logged.keys() & (moved or {}).keys()
        told = self._told(in_log=True) | self._told(in_log=False)
        assert told.items() <= (logged | (moved or {})).items()
        assert series.received + series.missing == self.scan.sent
        assert series.repeated == 0
        self._endurance.tell(
            faults=self.faults,
            frames=self.scan.sent,
            missing=series.missing,
            told=len(told),
            told_before_logged=len(self._told(in_log=False)),
            logged=len(logged) + len(moved or {}),
        )
        return series

    def _told(self, *, in_log: bool) -> Rows:
        told = self._witnesses.told["websocket"].copy()
        return {key: (one.label, one.probability) for key, one in told.items() if one.in_log == in_log}

    def _wait_for_more(self, *, in_log: bool) -> None:
        before = len(self._told(in_log=in_log))
        wait_for(lambda: len(self._told(in_log=in_log)) >= before + 5, 60)

    def _told_of(self, state: str, advice: str) -> bool:
        status = self.server.stream()["run_log"]
        answer = httpx.get(f"{self.server.url}/readyz")
        assert answer.status_code == 200, "FOVs are classified all the same"
        problems = "".join(answer.json().get("problems", ()))
        said = all(
            text in problems and text in (status["problem"] or "") for text in (str(self.path), advice)
        )
        return said and status["state"] == state and answer.json()["status"] == "degraded"


def rows(path: Path) -> Rows:
    """What is in a log, of whose database every page is sound."""
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        found = database.execute("SELECT id, label, probability FROM results").fetchall()
    return {str(UUID(key)): (label, probability) for key, label, probability in found}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A small file system, whose faults are nobody else's."""
    disk = Disk(tmp_path / "disk")
    disk.folder.mkdir()
    if not disk.mount("size=32m"):
        if sys.platform != "win32" and os.geteuid() == 0 and os.environ.get("SENOSCOPE_TEST_ALL") == "1":
            pytest.fail("root may mount no file system here, and SENOSCOPE_TEST_ALL=1 forbids to skip")
        pytest.skip("needs a small disk of its own: run it as root, where that may mount one")
    yield disk
    disk.umount()


@pytest.mark.timeout(3600)
def test_a_log_that_another_program_locks(
    start: Callable[..., Server], endurance: Endurance, tmp_path: Path
) -> None:
    scene = Scene(start(*NO_DROPS), tmp_path / "runlog.sqlite3", endurance)
    for _ in range(endurance.scale(1, 20)):
        with write_locked(scene.path):
            scene.see_fault("locked", "is locked by another program")
            scene.see_earlier_results()
        scene.see_recovery()
    assert scene.end().missing == 0


@pytest.mark.timeout(3600)
def test_a_log_on_a_full_disk(disk: Disk, start: Callable[..., Server], endurance: Endurance) -> None:
    path, ballast = disk.folder / "log.sqlite3", disk.folder / "ballast"
    scene = Scene(start(*NO_DROPS, "--database-url", f"sqlite:///{path}"), path, endurance)
    for _ in range(endurance.scale(1, 20)):
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        scene.see_fault("full", "make room")
        scene.see_earlier_results()
        ballast.unlink()
        scene.see_recovery()
    assert scene.end().missing == 0


@pytest.mark.timeout(3600)
def test_a_log_on_a_disk_that_became_read_only(
    disk: Disk, start: Callable[..., Server], endurance: Endurance
) -> None:
    """While the service was down: no disk becomes so by itself while a file on it is open for writing."""
    path = disk.folder / "log.sqlite3"
    options = (*NO_DROPS, "--database-url", f"sqlite:///{path}")
    scene = Scene(start(*options), path, endurance)
    for _ in range(endurance.scale(1, 10)):
        scene.server.kill()
        disk.set_writable(False)
        scene.restart(start(*options, like=scene.server))
        scene.see_fault("read_only", "the right to write it")
        scene.see_earlier_results()
        disk.set_writable(True)
        scene.see_recovery()
    assert scene.end().missing > 0, "what was sent while there was no service"


class Damage:
    """Bytes of a log in use that something overwrote.

    Parameters
    ----------
    where : callable
        Tells which, as offset and length.
    """

    def __init__(self, path: Path, where: Callable[[sqlite3.Connection], tuple[int, int]]) -> None:
        beside = path.with_name(f"{path.name}-wal")
        with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as database:
            # All in the one file, where nobody writes meanwhile.
            while True:
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                database.execute("BEGIN IMMEDIATE")
                if beside.stat().st_size == 0:
                    break
                database.execute("ROLLBACK")
            self._offset, length = where(database)
            self._lost = self._exchange(path, random.Random(22).randbytes(length))
            # A change by another connection: the service must not go on with pages that it has in memory.
            database.execute("UPDATE runlog_version SET version_num = version_num")
            database.execute("COMMIT")

    def mend(self, path: Path) -> None:
        """Put back what was overwritten."""
        self._exchange(path, self._lost)

    def _exchange(self, path: Path, new: bytes) -> bytes:
        with path.open("r+b") as file:
            file.seek(self._offset)
            old = file.read(len(new))
            file.seek(self._offset)
            file.write(new)
        return old


def head(database: sqlite3.Connection) -> tuple[int, int]:
    """What tells that it is a database."""
    del database
    return 0, 100


def index(database: sqlite3.Connection) -> tuple[int, int]:
    """A page that every result changes."""
    (size,) = database.execute("PRAGMA page_size").fetchone()
    (page,) = database.execute("SELECT rootpage FROM sqlite_master WHERE name='results_by_time'").fetchone()
    return (page - 1) * size, size


@pytest.mark.timeout(3600)
def test_a_log_that_is_damaged(start: Callable[..., Server], endurance: Endurance, tmp_path: Path) -> None:
    """The file is left as it is: with the damaged bytes put back, all that was told before is there."""
    scene = Scene(start(*NO_DROPS), tmp_path / "runlog.sqlite3", endurance)
    earlier: Rows = {}
    for n, where in enumerate((head, index) * endurance.scale(1, 10)):
        damage = Damage(scene.path, where)
        scene.see_fault("corrupt", "Move the file")
        with Client(scene.server.url) as client, pytest.raises(LogUnavailable, match="is damaged"):
            client.results()
        away = tmp_path / f"damaged{n}"
        away.mkdir()
        for file in tmp_path.glob(f"{scene.path.name}*"):
            file.rename(away / file.name)
        scene.see_recovery()
        damage.mend(away / scene.path.name)
        found = rows(away / scene.path.name)
        assert found
        assert not found.keys() & earlier.keys()
        earlier |= found
    assert scene.end(earlier).missing == 0
