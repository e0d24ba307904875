"""A run log whose database fails during a scan: the fault is reported, results continue, and none is lost."""

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
from senoscope_client.models.responses import SeriesSummary
from support import miniature as mini
from support.load import Endurance
from support.microscopes import SteadyScan
from support.recorders import ResultRecorder
from support.run_logs import Disk, wait_for, write_locked
from support.servers import Server

pytestmark = pytest.mark.full

RATE_HZ = 20
# Never full: each frame has a result.
NO_DROPS = ("--live-queue", "100000")
# Label and probability of a result, by its id.
Rows = dict[str, tuple[str, float]]


class Scene:
    """A server with its run log at a path, a microscope that scans, and clients that receive the results."""

    def __init__(self, server: Server, path: Path, endurance: Endurance) -> None:
        self.server, self.path = server, path
        self.faults = 0
        self._endurance = endurance
        self._rng = random.Random(21)
        self._read = 0  # characters of the server's log
        self.scan, self._recorder = SteadyScan(server.frames, RATE_HZ), ResultRecorder(server, 1)
        self.scan.start()
        self._wait_for_more(in_log=True)

    def restart(self, server: Server) -> None:
        """Continue with another server at the same endpoints."""
        self.server, self._read = server, 0

    def check_fault(self, state: str, advice: str) -> None:
        """Check that a fault is reported everywhere, and that frames and stacks still get results."""
        self._wait_for_more(in_log=False)
        wait_for(lambda: self._is_reported(state, advice), 60)
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

    def check_earlier_results(self) -> None:
        """Check that logged results can be read while the log cannot be written."""
        received = self._received(in_log=True)
        with Client(self.server.url) as client:
            assert (
                received.items()
                <= {str(one.id): (one.label, one.probability) for one in client.all_results()}.items()
            )

    def check_recovery(self) -> None:
        """Check that the log recovers, and that this is reported."""
        self.server.wait(lambda status: status["run_log"]["state"] == "ok", 60)
        self._wait_for_more(in_log=True)
        status = self.server.wait(lambda status: status["run_log"]["waiting"] == 0, 60)["run_log"]
        assert (status["problem"], status["lost"]) == (None, 0)
        assert httpx.get(f"{self.server.url}/readyz").json() == {"status": "ready"}
        text = self.server.log.read_text()
        assert "the run log works again" in text[self._read :]
        self._read = len(text)

    def end(self, moved: Rows | None = None) -> SeriesSummary:
        """End the scan, and check that all received results are in the log, or in ``moved`` ones."""
        self.scan.close()
        self.server.wait(lambda status: status["receiver"]["series"][0]["state"] == "ended", 60)
        self.server.wait(lambda status: status["run_log"]["waiting"] == status["live"]["waiting"] == 0, 60)
        with Client(self.server.url) as client:
            series = client.one_series(self.scan.uid)
        wait_for(lambda: len(rows(self.path)) + len(moved or {}) == series.received + self.faults)
        self._recorder.close()
        assert self._recorder.duplicates == []
        logged = rows(self.path)
        assert not logged.keys() & (moved or {}).keys()
        received = self._received(in_log=True) | self._received(in_log=False)
        assert received.items() <= (logged | (moved or {})).items()
        assert series.received + series.missing == self.scan.sent
        assert series.repeated == 0
        self._endurance.report(
            faults=self.faults,
            frames=self.scan.sent,
            missing=series.missing,
            received=len(received),
            received_before_logged=len(self._received(in_log=False)),
            logged=len(logged) + len(moved or {}),
        )
        return series

    def _received(self, *, in_log: bool) -> Rows:
        results = self._recorder.received["websocket"].copy()
        return {key: (one.label, one.probability) for key, one in results.items() if one.in_log == in_log}

    def _wait_for_more(self, *, in_log: bool) -> None:
        before = len(self._received(in_log=in_log))
        wait_for(lambda: len(self._received(in_log=in_log)) >= before + 5, 60)

    def _is_reported(self, state: str, advice: str) -> bool:
        status = self.server.stream()["run_log"]
        answer = httpx.get(f"{self.server.url}/readyz")
        assert answer.status_code == 200, "FOVs are still classified"
        problems = "".join(answer.json().get("problems", ()))
        complete = all(
            text in problems and text in (status["problem"] or "") for text in (str(self.path), advice)
        )
        return complete and status["state"] == state and answer.json()["status"] == "degraded"


def rows(path: Path) -> Rows:
    """Return the results in a log, after an integrity check of its database."""
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        found = database.execute("SELECT id, label, probability FROM results").fetchall()
    return {str(UUID(key)): (label, probability) for key, label, probability in found}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A small separate file system, whose faults affect nothing else."""
    disk = Disk(tmp_path / "disk")
    disk.folder.mkdir()
    if not disk.mount("size=32m"):
        if sys.platform != "win32" and os.geteuid() == 0 and os.environ.get("SENOSCOPE_TEST_ALL") == "1":
            pytest.fail("root cannot mount a file system here, and SENOSCOPE_TEST_ALL=1 forbids skipping")
        pytest.skip("needs a separate small file system: run it as root, where mounting is allowed")
    yield disk
    disk.umount()


@pytest.mark.timeout(3600)
def test_a_log_locked_by_another_program(
    start: Callable[..., Server], endurance: Endurance, tmp_path: Path
) -> None:
    scene = Scene(start(*NO_DROPS), tmp_path / "runlog.sqlite3", endurance)
    for _ in range(endurance.scale(1, 20)):
        with write_locked(scene.path):
            scene.check_fault("locked", "is locked by another program")
            scene.check_earlier_results()
        scene.check_recovery()
    assert scene.end().missing == 0


@pytest.mark.timeout(3600)
def test_a_log_on_a_full_disk(disk: Disk, start: Callable[..., Server], endurance: Endurance) -> None:
    path, ballast = disk.folder / "log.sqlite3", disk.folder / "ballast"
    scene = Scene(start(*NO_DROPS, "--database-url", f"sqlite:///{path}"), path, endurance)
    for _ in range(endurance.scale(1, 20)):
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        scene.check_fault("full", "free disk space")
        scene.check_earlier_results()
        ballast.unlink()
        scene.check_recovery()
    assert scene.end().missing == 0


@pytest.mark.timeout(3600)
def test_a_log_on_a_disk_that_became_read_only(
    disk: Disk, start: Callable[..., Server], endurance: Endurance
) -> None:
    """While the service is down: a disk with a file open for writing cannot be made read-only."""
    path = disk.folder / "log.sqlite3"
    options = (*NO_DROPS, "--database-url", f"sqlite:///{path}")
    scene = Scene(start(*options), path, endurance)
    for _ in range(endurance.scale(1, 10)):
        scene.server.kill()
        disk.set_writable(False)
        scene.restart(start(*options, like=scene.server))
        scene.check_fault("read_only", "allow the user of the service to write")
        scene.check_earlier_results()
        disk.set_writable(True)
        scene.check_recovery()
    assert scene.end().missing > 0, "frames sent while no service was running"


class Damage:
    """Overwritten bytes of a log in use.

    Parameters
    ----------
    where : callable
        Returns their offset and length.
    """

    def __init__(self, path: Path, where: Callable[[sqlite3.Connection], tuple[int, int]]) -> None:
        wal = path.with_name(f"{path.name}-wal")
        with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as database:
            # Everything in one file, without concurrent writes.
            while True:
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                database.execute("BEGIN IMMEDIATE")
                if wal.stat().st_size == 0:
                    break
                database.execute("ROLLBACK")
            self._offset, length = where(database)
            self._lost = self._exchange(path, random.Random(22).randbytes(length))
            # A change by another connection, so that the service discards the pages in its memory.
            database.execute("UPDATE runlog_version SET version_num = version_num")
            database.execute("COMMIT")

    def repair(self, path: Path) -> None:
        """Restore the overwritten bytes."""
        self._exchange(path, self._lost)

    def _exchange(self, path: Path, new: bytes) -> bytes:
        with path.open("r+b") as file:
            file.seek(self._offset)
            old = file.read(len(new))
            file.seek(self._offset)
            file.write(new)
        return old


def head(database: sqlite3.Connection) -> tuple[int, int]:
    """Return the position of the file header."""
    del database
    return 0, 100


def index(database: sqlite3.Connection) -> tuple[int, int]:
    """Return the position of a page that every result changes."""
    (size,) = database.execute("PRAGMA page_size").fetchone()
    (page,) = database.execute("SELECT rootpage FROM sqlite_master WHERE name='results_by_time'").fetchone()
    return (page - 1) * size, size


@pytest.mark.timeout(3600)
def test_a_damaged_log(start: Callable[..., Server], endurance: Endurance, tmp_path: Path) -> None:
    """The file is left unchanged: with the damaged bytes restored, it contains all earlier results."""
    scene = Scene(start(*NO_DROPS), tmp_path / "runlog.sqlite3", endurance)
    earlier: Rows = {}
    for n, where in enumerate((head, index) * endurance.scale(1, 10)):
        damage = Damage(scene.path, where)
        scene.check_fault("corrupt", "Move the file")
        with Client(scene.server.url) as client, pytest.raises(LogUnavailable, match="is damaged"):
            client.results()
        away = tmp_path / f"damaged{n}"
        away.mkdir()
        for file in tmp_path.glob(f"{scene.path.name}*"):
            file.rename(away / file.name)
        scene.check_recovery()
        damage.repair(away / scene.path.name)
        found = rows(away / scene.path.name)
        assert found
        assert not found.keys() & earlier.keys()
        earlier |= found
    assert scene.end(earlier).missing == 0
