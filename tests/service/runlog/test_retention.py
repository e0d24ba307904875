"""The oldest results are deleted, and their space is returned."""

from __future__ import annotations

import time
import uuid

from senoscope.engine.manifest import Manifest
from senoscope.runlog.entries import ResultFilter
from senoscope.runlog.retention import delete_old_results, used_bytes
from senoscope.runlog.store import RunLog
from support.run_logs import SERIES, entry

MIB = 1024 * 1024


def frames(log: RunLog) -> list[int | None]:
    return [found.source.frame for found in log.iterate(ResultFilter())]


def fill(log: RunLog, manifest: Manifest, count: int, **changes) -> None:
    log.append([entry(manifest, n, **changes) for n in range(count)])


def test_by_age(log: RunLog, manifest: Manifest) -> None:
    now = time.time()
    fill(log, manifest, 250, created_s=now - 3 * 86400)
    fill(log, manifest, 5, created_s=now - 86400)
    assert delete_old_results(log.database, 2, None, lambda: False) == 250
    assert frames(log) == [4, 3, 2, 1, 0]
    assert delete_old_results(log.database, 2, None, lambda: False) == 0


def test_series_are_deleted_with_their_last_result(log: RunLog, manifest: Manifest) -> None:
    other = uuid.uuid4()
    fill(log, manifest, 1, created_s=time.time() - 10)
    fill(log, manifest, 1, series_uid=other, created_s=time.time() + 3600)
    time.sleep(0.01)
    delete_old_results(log.database, 1e-9, None, lambda: False)
    assert log.one_series(SERIES) is None
    assert log.one_series(other).labels == {"control": 1}


def test_by_size(log: RunLog, manifest: Manifest) -> None:
    fill(log, manifest, 1500)
    before = used_bytes(log.database)
    assert before > 3 * MIB
    deleted = delete_old_results(log.database, None, 2, lambda: False)
    assert 0 < deleted < 1500
    assert 1 * MIB < used_bytes(log.database) <= 2 * MIB
    assert frames(log) == list(range(1499, deleted - 1, -1))
    assert delete_old_results(log.database, None, 2, lambda: False) == 0


def test_the_file_becomes_smaller(path, manifest: Manifest) -> None:
    log = RunLog(f"sqlite:///{path}")
    log.prepare()
    fill(log, manifest, 1500)
    log.database.checkpoint()
    before = path.stat().st_size
    delete_old_results(log.database, None, 1, lambda: False)
    log.database.checkpoint()
    assert path.stat().st_size < before / 3
    log.close()


def test_deletion_stops_between_two_steps_on_request(log: RunLog, manifest: Manifest) -> None:
    fill(log, manifest, 500, created_s=1000)
    assert delete_old_results(log.database, 1, None, lambda: True) < 500
    assert frames(log)
