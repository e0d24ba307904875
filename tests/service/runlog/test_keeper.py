"""During every fault of the database commits return, and their entries are written afterwards."""

from __future__ import annotations

import gc
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from structlog.testing import capture_logs

from senoscope.engine.manifest import Manifest
from senoscope.runlog import housekeeping
from senoscope.runlog import keeper as keeper_module
from senoscope.runlog.database import Database
from senoscope.runlog.entries import ResultFilter, SeriesSnapshot
from senoscope.runlog.keeper import LogKeeper
from senoscope.runlog.schema import VERSION_TABLE
from senoscope.runlog.store import RunLog
from senoscope.runlog.tables import results
from senoscope_client.errors import LogUnavailable
from support.run_logs import SERIES, Disk, PostgresServer, entry, wait_for, wait_until_written, write_locked


@pytest.fixture(autouse=True)
def fast_housekeeping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "_INTERVAL_S", 0.05)


@contextmanager
def kept_by_threads(log: RunLog, **options) -> Iterator[LogKeeper]:
    keeper = LogKeeper(log, **options)
    keeper.start()
    wait_for(lambda: keeper.state != "opening")  # the first commit waits a second at most, opening included
    yield keeper
    keeper.close()


def frames(log: RunLog) -> list[int | None]:
    return [found.source.frame for found in log.iterate(ResultFilter())][::-1]


def test_committed_entries_are_in_the_log_at_once(url: str, manifest: Manifest) -> None:
    with kept_by_threads(RunLog(url)) as keeper:
        other = RunLog(url)
        for n in range(5):
            assert keeper.commit([entry(manifest, 2 * n), entry(manifest, 2 * n + 1)])
            assert frames(other) == list(range(2 * n + 2))
        assert keeper.commit([])
        status = keeper.status().model_dump()
        assert (status["state"], status["written"], status["waiting"], status["lost"]) == ("ok", 10, 0, 0)
        assert all(thread.problem is None for thread in keeper.threads)


def test_close_writes_waiting_entries(path: Path, manifest: Manifest) -> None:
    log = RunLog(f"sqlite:///{path}")
    with kept_by_threads(log) as keeper:
        assert keeper.commit([entry(manifest, 0)])
        with write_locked(path):
            assert not keeper.commit([entry(manifest, 1)])
    assert frames(log) == [0, 1]


def test_a_log_cannot_be_read_before_it_is_open(path: Path) -> None:
    with pytest.raises(LogUnavailable):
        LogKeeper(RunLog(f"sqlite:///{path}")).readable()


def test_a_log_locked_by_another_process(path: Path, manifest: Manifest) -> None:
    log = RunLog(f"sqlite:///{path}")
    with kept_by_threads(log) as keeper:
        assert keeper.commit([entry(manifest, 0)])
        with write_locked(path):
            assert [keeper.commit([entry(manifest, n)]) for n in (1, 2)] == [False, False]
            assert keeper.state == "locked"
            assert str(path) in keeper.problem
            assert frames(keeper.readable()) == [0]
        wait_until_written(keeper)
        assert keeper.commit([entry(manifest, 3)])
        assert frames(log) == [0, 1, 2, 3]


def overwrite_head(path: Path) -> None:
    path.write_bytes(b"this was a database" + path.read_bytes()[19:])


def overwrite_middle(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:4096] + os.urandom(len(content) - 4096))


@pytest.mark.parametrize("damage", [overwrite_head, overwrite_middle])
def test_a_damaged_log_is_left_unchanged_until_it_is_moved_away(
    path: Path, manifest: Manifest, damage: Callable[[Path], None]
) -> None:
    log = RunLog(f"sqlite:///{path}")
    log.prepare()
    log.append([entry(manifest, n) for n in range(50)])
    log.close()
    damage(path)
    damaged = path.read_bytes()
    with kept_by_threads(log) as keeper:
        assert not keeper.commit([entry(manifest, 50)])
        assert keeper.state == "corrupt"
        assert "Move the file" in keeper.problem
        assert not keeper.commit([entry(manifest, 51)])
        assert path.read_bytes() == damaged
        for file in path.parent.glob(f"{path.name}*"):
            file.rename(file.with_name(f"damaged-{file.name}"))
        wait_until_written(keeper)
        assert frames(log) == [50, 51]


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be moved there")
def test_a_new_log_is_created_when_the_file_in_use_is_moved_away(path: Path, manifest: Manifest) -> None:
    log = RunLog(f"sqlite:///{path}")
    with kept_by_threads(log, series=list) as keeper:
        assert keeper.commit([entry(manifest, 0)])
        for file in path.parent.glob(f"{path.name}*"):
            file.rename(file.with_name(f"moved-{file.name}"))
        wait_for(path.exists)
        wait_until_written(keeper)
        assert keeper.commit([entry(manifest, 1)])
        assert frames(log) == [1]


def test_a_log_with_a_newer_schema_is_refused(path: Path, manifest: Manifest) -> None:
    log = RunLog(f"sqlite:///{path}")
    log.prepare()
    with log.database.write() as connection:
        connection.exec_driver_sql(f"UPDATE {VERSION_TABLE} SET version_num = '9000'")
    with kept_by_threads(log) as keeper:
        assert not keeper.commit([entry(manifest, 0)])
        assert keeper.state == "newer_schema"
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM results").fetchone() == (0,)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "disk")
    disk.folder.mkdir()
    yield disk
    disk.umount()


def test_a_full_disk(disk: Disk, manifest: Manifest) -> None:
    """A mounted file system where that is allowed, otherwise SQLite's limit of pages."""
    log = RunLog(f"sqlite:///{disk.folder / 'log.sqlite3'}")
    if disk.mount("size=1m"):
        ballast = disk.folder / "ballast"
        ballast.write_bytes(bytes(512 * 1024))

        def make_room() -> None:
            ballast.unlink()

    else:
        log.prepare()
        with log.database.write() as connection:
            connection.exec_driver_sql("PRAGMA max_page_count=60")

        def make_room() -> None:
            log.close()

    with kept_by_threads(log) as keeper:
        committed = 0
        while keeper.commit([entry(manifest, committed)]):
            committed += 1
        assert committed
        assert keeper.state == "full"
        assert "free disk space" in keeper.problem
        assert frames(log) == list(range(committed)), "earlier results can still be read"
        make_room()
        wait_until_written(keeper)
        assert keeper.commit([entry(manifest, committed + 1)])
        assert frames(log) == list(range(committed + 2))


def test_a_disk_that_becomes_read_only(disk: Disk, manifest: Manifest) -> None:
    path = disk.folder / "log.sqlite3"
    if disk.mount("size=4m"):
        set_writable = disk.set_writable
    elif sys.platform != "win32" and os.geteuid() == 0:
        pytest.skip("root can write read-only files, and cannot mount a file system here")
    else:

        def set_writable(writable: bool) -> None:
            path.chmod(0o644 if writable else 0o444)
            disk.folder.chmod(0o755 if writable else 0o555)

    log = RunLog(f"sqlite:///{path}")
    log.prepare()
    log.append([entry(manifest, 0)])
    log.close()
    set_writable(False)
    with kept_by_threads(log) as keeper:
        assert not keeper.commit([entry(manifest, 1)])
        assert keeper.state == "read_only"
        set_writable(True)
        wait_until_written(keeper)
        assert frames(log) == [0, 1]


def test_beyond_the_backlog_the_oldest_results_are_lost_and_counted(
    path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "_MAX_BACKLOG", 3)
    log = RunLog(f"sqlite:///{path}")
    with kept_by_threads(log) as keeper:
        assert keeper.commit([entry(manifest, 0)])
        with write_locked(path):
            for n in range(1, 8):
                assert not keeper.commit([entry(manifest, n)])
            wait_for(lambda: keeper.status().waiting == 3)
        wait_until_written(keeper)
        assert frames(log) == [0, 5, 6, 7]
        status = keeper.status().model_dump()
        assert (status["written"], status["lost"]) == (4, 4)


def test_series_are_saved_as_they_change(path: Path, manifest: Manifest) -> None:
    live = [SeriesSnapshot(series_uid=SERIES, state="open", received=1)]
    log = RunLog(f"sqlite:///{path}")
    with kept_by_threads(log, series=live.copy) as keeper:
        assert keeper.commit([entry(manifest, 0)])
        wait_for(lambda: log.one_series(SERIES).snapshot.received == 1)
        live[0] = live[0].model_copy(update={"received": 2})
        wait_for(lambda: log.one_series(SERIES).snapshot.received == 2)
        live[0] = live[0].model_copy(update={"state": "ended"})
    assert log.one_series(SERIES).snapshot.state == "ended", "close saves the series once more"


def test_old_results_are_deleted_while_new_ones_are_logged(path: Path, manifest: Manifest) -> None:
    log = RunLog(f"sqlite:///{path}")
    log.prepare()
    log.append([entry(manifest, n, created_s=time.time() - 2 * 86400) for n in range(1000)])
    log.append([entry(manifest, 1000)])
    with kept_by_threads(log, keep_days=1) as keeper:
        n = 1001
        while len(log.results(ResultFilter(), 1).results) and frames(log)[0] == 0:
            assert keeper.commit([entry(manifest, n)])
            n += 1
        wait_for(lambda: len(frames(log)) == n - 1000)
        assert frames(log) == list(range(1000, n))


@pytest.mark.parametrize("size", [None, 0.5], ids=["by age", "by size too"])
def test_nothing_is_deleted_by_age_if_the_clock_is_far_ahead(path: Path, manifest: Manifest, size) -> None:
    log = RunLog(f"sqlite:///{path}")
    log.prepare()
    old_s = time.time() - 400 * 86400
    log.append([entry(manifest, n, created_s=old_s + n) for n in range(500)])
    with capture_logs() as lines, kept_by_threads(log, keep_days=30, keep_mib=size):
        wait_for(lambda: any("results are deleted by age" in line["event"] for line in lines))
        if size is None:
            assert len(frames(log)) == 500
        else:
            wait_for(lambda: len(frames(log)) < 500)
            assert frames(log)[-1] == 499, "the limit of size does not depend on the clock"


@pytest.mark.system("postgres")
def test_a_postgresql_server_that_stops_and_starts_again(
    postgres: PostgresServer, manifest: Manifest
) -> None:
    log = RunLog(postgres.new_database())
    with kept_by_threads(log) as keeper:
        assert keeper.commit([entry(manifest, 0)])
        postgres.stop()
        assert not keeper.commit([entry(manifest, 1)])
        assert keeper.state == "unreachable"
        postgres.start()
        wait_until_written(keeper)
        assert keeper.commit([entry(manifest, 2)])
        assert frames(log) == [0, 1, 2]


@pytest.mark.system("postgres")
def test_a_postgresql_server_that_hangs_does_not_delay_results(
    postgres: PostgresServer, manifest: Manifest
) -> None:
    log = RunLog(postgres.new_database())
    with kept_by_threads(log) as keeper:
        assert keeper.commit([entry(manifest, 0)])
        processes = [psutil.Process(postgres.process.pid)]
        processes += processes[0].children(recursive=True)
        try:
            for process in processes:
                process.send_signal(signal.SIGSTOP)
            assert [keeper.commit([entry(manifest, n)]) for n in (1, 2)] == [False, False]
            assert keeper.state == "unreachable"
            with pytest.raises(LogUnavailable, match="no answer"):
                keeper.readable()
        finally:
            for process in processes:
                process.send_signal(signal.SIGCONT)
        wait_until_written(keeper)
        assert frames(log) == [0, 1, 2]


def test_a_connection_in_use_is_closed_by_the_second_close(tmp_path: Path) -> None:
    """While it is open, SQLite keeps a file read-only that was opened on a read-only disk."""
    path = tmp_path / "log.sqlite3"
    database = Database(f"sqlite:///{path}")
    database.prepare()
    gc.disable()  # the collector may close the connection, at any time
    try:
        with database.read() as connection:
            assert connection.execute(results.select()).all() == []
            database.close_connections()
        database.close_connections()
        assert not [file for file in psutil.Process().open_files() if file.path.startswith(str(path))]
    finally:
        gc.enable()
