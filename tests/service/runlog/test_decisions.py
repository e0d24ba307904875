"""Decisions in the run log, in each supported database."""

from __future__ import annotations

import time
import uuid
from uuid import UUID

from senoscope.engine.manifest import Manifest
from senoscope.results.record import uuid7
from senoscope.runlog.entries import ResultFilter
from senoscope.runlog.retention import delete_old_results
from senoscope.runlog.store import RunLog
from senoscope_client.models.decision import Decision
from support.run_logs import SERIES, entry, result


def decision(frame: int, *, created_s: float | None = None, series: UUID = SERIES) -> Decision:
    made = result(frame, created_s=created_s)
    identifier = uuid7() if created_s is None else made.id
    return Decision(
        id=identifier,
        series_uid=series,
        frame=frame,
        result_id=made.id,
        action="revisit",
        rule="rescan",
        dry_run=False,
        reason="because",
    )


def test_decisions_are_returned_unchanged_page_by_page(log: RunLog, manifest: Manifest) -> None:
    other = decision(9, series=uuid.uuid4())
    made = [decision(n) for n in range(5)]
    log.append([entry(manifest, 0), *made, other])
    log.append(made)  # again, as after a lost confirmation
    assert log.decisions_of(SERIES) == made
    first, cursor = log.decisions(SERIES, 3)
    rest, end = log.decisions(SERIES, 3, cursor)
    assert [*first, *rest] == made[::-1]
    assert end is None
    assert log.decisions(None, 10)[0][0] == other
    assert [r.source.frame for r in log.iterate(ResultFilter())] == [0]


def test_oldest_first_yields_results_in_order_of_time(log: RunLog, manifest: Manifest) -> None:
    log.append([entry(manifest, n) for n in range(1201)])
    wanted = ResultFilter(series=SERIES)
    assert [r.source.frame for r in log.oldest_first(wanted)] == list(range(1201))
    assert list(log.oldest_first(ResultFilter(series=uuid.uuid4()))) == []


def test_decisions_are_deleted_with_their_results(log: RunLog, manifest: Manifest) -> None:
    now = time.time()
    log.append([entry(manifest, n, created_s=now - age) for n, age in enumerate((3 * 86400, 60))])
    log.append([decision(n, created_s=now - age) for n, age in enumerate((3 * 86400 - 1, 59))])
    assert delete_old_results(log.database, 2, None, lambda: False) == 1
    assert [d.frame for d in log.decisions_of(SERIES)] == [1]
