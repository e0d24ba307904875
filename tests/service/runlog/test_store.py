"""Appended entries are returned unchanged, in each supported database."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import numpy as np
import pytest
from sqlalchemy.exc import IntegrityError

from senoscope.engine.gradcam import ensemble_map
from senoscope.engine.manifest import Manifest
from senoscope.runlog.entries import Entry, ResultFilter, SeriesSnapshot
from senoscope.runlog.faults import LogFault
from senoscope.runlog.store import RunLog
from support import miniature as mini
from support.run_logs import SERIES, entry, grids

ALL = ResultFilter()


def frames(log: RunLog, wanted: ResultFilter = ALL) -> list[int | None]:
    return [found.source.frame for found in log.iterate(wanted)]


def test_a_result_and_its_maps_are_returned_unchanged(log: RunLog, manifest: Manifest) -> None:
    written = [
        entry(manifest, 3),
        entry(manifest, 4, kind="upload", series_uid=None, file="a\0\N{SNOWMAN}.tif"),
    ]
    log.append(written)
    for one, seed in zip(written, (3, 4), strict=True):
        found, maps = log.result(one.result.id)
        assert found == one.result
        assert maps.networks == mini.NAMES
        for grid, expected in zip(maps.gradcams, grids(seed), strict=True):
            np.testing.assert_array_equal(grid, expected)
        np.testing.assert_array_equal(
            maps.map(), ensemble_map(grids(seed), np.full(7, 0.25, np.float32), 250, 300)
        )
    assert log.result(uuid.uuid4()) is None
    assert log.networks() == mini.NAMES


def test_a_result_is_not_logged_twice(log: RunLog, manifest: Manifest) -> None:
    first, second = entry(manifest, 0), entry(manifest, 1)
    log.append([first])
    log.append([first, second])
    assert frames(log) == [1, 0]


def test_if_one_result_cannot_be_written_none_is(log: RunLog, manifest: Manifest) -> None:
    good = entry(manifest, 0)
    bad = Entry(good.result.model_copy(update={"id": uuid.uuid4(), "label": None}), "{}", b"", manifest)
    with pytest.raises(LogFault) as caught:
        log.append([good, bad])
    assert isinstance(caught.value.__cause__, IntegrityError)
    assert frames(log) == []


def test_pages_have_no_gap_or_overlap_while_results_are_added(log: RunLog, manifest: Manifest) -> None:
    log.append([entry(manifest, n) for n in range(7)])
    first = log.results(ALL, 3)
    log.append([entry(manifest, 99)])
    second = log.results(ALL, 3, first.next)
    third = log.results(ALL, 3, second.next)
    assert [[r.source.frame for r in page.results] for page in (first, second, third)] == [
        [6, 5, 4],
        [3, 2, 1],
        [0],
    ]
    assert third.next is None
    assert log.results(ALL, 8).next is None


def test_a_long_log_is_read_completely(log: RunLog, manifest: Manifest) -> None:
    log.append([entry(manifest, n) for n in range(1201)])
    assert frames(log) == list(range(1200, -1, -1))


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (ResultFilter(), [3, 2, 1, 0]),
        (ResultFilter(series=SERIES), [2, 1, 0]),
        (ResultFilter(series=uuid.UUID(int=1)), []),
        (ResultFilter(label="senescent"), [3, 2]),
        (ResultFilter(label="senescent", series=SERIES), [2]),
        (ResultFilter(kind="upload"), [3]),
        (ResultFilter(since=datetime.fromtimestamp(1001, UTC)), [3, 2, 1]),
        (ResultFilter(until=datetime.fromtimestamp(1002, UTC)), [1, 0]),
        (ResultFilter(since=datetime.fromtimestamp(1001, UTC), until=datetime.fromtimestamp(1002, UTC)), [1]),
        (ResultFilter(min_probability=0.75), [3, 2]),
        (ResultFilter(max_probability=0.25), [1, 0]),
        (ResultFilter(min_probability=0.25, max_probability=0.8), [2, 1]),
    ],
)
def test_filters(log: RunLog, manifest: Manifest, wanted: ResultFilter, expected: list[int]) -> None:
    log.append(
        [
            entry(manifest, 0, probability=0.1, created_s=1000),
            entry(manifest, 1, probability=0.25, created_s=1001),
            entry(manifest, 2, probability=0.75, created_s=1002),
            entry(manifest, 3, probability=0.9, created_s=1003, kind="upload", series_uid=None),
        ]
    )
    assert frames(log, wanted) == expected


def test_a_series_is_created_with_its_first_result_and_replaced_when_saved(
    log: RunLog, manifest: Manifest
) -> None:
    log.append([entry(manifest, 0), entry(manifest, 1, probability=0.9), entry(manifest, 2)])
    seen = log.one_series(SERIES)
    assert seen.snapshot == SeriesSnapshot(
        kind="stream", series_uid=SERIES, series_id="plate 1", instrument="nlo-1", state="open"
    )
    assert seen.labels == {"control": 2, "senescent": 1}
    other = uuid.uuid4()
    log.save_series([seen.snapshot.model_copy(update={"received": 3, "state": "ended"})])
    log.save_series([SeriesSnapshot(series_uid=other, state="open")])
    log.append([entry(manifest, 3)])
    assert log.one_series(SERIES).snapshot.received == 3
    assert {one.snapshot.series_uid: one.labels for one in log.series(10)} == {
        other: {},
        SERIES: {"control": 3, "senescent": 1},
    }
    assert len(log.series(1)) == 1
    assert log.one_series(uuid.uuid4()) is None


def test_latest_series_come_with_their_newest_results(log: RunLog, manifest: Manifest) -> None:
    other = uuid.uuid4()
    log.append([entry(manifest, 7, created_s=1000, series_uid=other)])
    log.append([entry(manifest, n, created_s=1001 + n) for n in (0, 2)])
    log.save_series([SeriesSnapshot(series_uid=other, state="ended")])
    found = {snapshot.series_uid: (snapshot.state, logged) for snapshot, logged in log.latest_series()}
    assert found == {
        other: ("ended", [(7, 1000_000)]),
        SERIES: ("open", [(2, 1003_000), (0, 1001_000)]),
    }


def test_small_values_are_stored(log: RunLog) -> None:
    assert log.get_value("range") is None
    log.set_value("range", {"low": [0.5]})
    log.set_value("range", {"low": [1.5]})
    assert RunLog(str(log.database.engine.url.render_as_string(False))).get_value("range") == {"low": [1.5]}


@pytest.mark.parametrize("address", ["mysql://host/log", "sqlite://", "postgresql://", "log.sqlite3"])
def test_an_invalid_url_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="use for example sqlite:"):
        RunLog(address)
