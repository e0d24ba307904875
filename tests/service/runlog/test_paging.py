"""Pages of results: correct for every filter, and found without a scan of the log."""

from __future__ import annotations

import itertools
import random
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from senoscope.engine.manifest import Manifest
from senoscope.runlog import paging
from senoscope.runlog.database import Database
from senoscope.runlog.entries import Entry, ResultFilter
from senoscope.runlog.faults import LogFault
from senoscope.runlog.retention import delete_old_results
from senoscope.runlog.store import RunLog, counts_query
from senoscope.runlog.tables import result_counts, results
from support.run_logs import entry

SERIES = [uuid.UUID(int=n) for n in (1, 2)]
PROBABILITIES = (0.0, 0.03125, 0.1, 0.49, 0.5, 0.51, 0.5625, 0.9375, 0.99, 1.0)
BEGAN_S = 1_700_000_000


def at(second: float) -> datetime:
    return datetime.fromtimestamp(BEGAN_S + second, UTC)


@pytest.fixture(scope="module")
def entries(manifest: Manifest) -> list[Entry]:
    """Entries of two series and of posted stacks; several in one millisecond, not in order of time."""
    rng = random.Random(1)
    made = []
    for n in range(300):
        uid = rng.choice([*SERIES, None])
        kind = {"kind": "stream"} if uid else {"kind": rng.choice(["upload", "file"]), "file": "a.tif"}
        second = rng.randrange(100) / 10
        made.append(
            entry(
                manifest,
                n,
                probability=rng.choice(PROBABILITIES),
                created_s=BEGAN_S + second,
                series_uid=uid,
                **kind,
            )
        )
    return made


FILTERS = [
    ResultFilter(series, label, kind, since, until, low, high)
    for (series, label, kind), (since, until), (low, high) in itertools.product(
        [
            (None, None, None),
            (SERIES[0], None, None),
            (None, "senescent", None),
            (None, None, "upload"),
            (SERIES[1], "control", "stream"),
            (None, "no such label", None),
        ],
        [(None, None), (at(3), None), (at(3), at(6.05)), (at(50), None)],
        [(None, None), (0.5, None), (None, 0.03125), (0.51, 0.9375), (0.995, 0.999)],
    )
]


def matches(wanted: ResultFilter, one: Entry) -> bool:
    result = one.result
    made = datetime.fromtimestamp(one.created_ms / 1000, UTC)
    return (
        wanted.series in (None, result.source.series_uid)
        and wanted.label in (None, result.label)
        and wanted.kind in (None, result.source.kind)
        and (wanted.since is None or made >= wanted.since)
        and (wanted.until is None or made < wanted.until)
        and (wanted.min_probability is None or result.probability >= wanted.min_probability)
        and (wanted.max_probability is None or result.probability <= wanted.max_probability)
    )


def test_every_filter_returns_its_matching_results_newest_first(log: RunLog, entries: list[Entry]) -> None:
    log.append(entries)
    newest_first = [
        one for _, one in sorted(enumerate(entries), key=lambda pair: (pair[1].created_ms, pair[0]))
    ][::-1]
    found_any = 0
    for wanted in FILTERS:
        expected = [one.result.source.frame for one in newest_first if matches(wanted, one)]
        found: list[int | None] = []
        cursor = None
        while True:
            page = log.results(wanted, 23, cursor)
            found += [result.source.frame for result in page.results]
            cursor = page.next
            if cursor is None:
                break
        assert found == expected, wanted
        assert [one.source.frame for one in log.oldest_first(wanted)] == expected[::-1], wanted
        found_any += bool(found)
    assert found_any > 40


def test_a_cursor_remains_valid_when_its_result_is_deleted(log: RunLog, entries: list[Entry]) -> None:
    log.append(entries)
    frames = [one.source.frame for one in log.iterate(ResultFilter())]
    page = log.results(ResultFilter(), 10)
    with log.database.write() as connection:
        connection.execute(sa.delete(results).where(results.c.id == page.results[-1].id))
    following = log.results(ResultFilter(), 10, page.next)
    assert [one.source.frame for one in following.results] == frames[10:20]


def test_results_of_one_millisecond_are_paged_across_the_wrap_of_the_cursor(
    log: RunLog, manifest: Manifest
) -> None:
    """A cursor holds only the last 20 bits of ``seq``."""
    made = [entry(manifest, n, created_s=BEGAN_S) for n in range(6)]
    log.append(made)
    with log.database.write() as connection:
        connection.execute(sa.update(results).values(seq=results.c.seq + (1 << 20) - 4))
    cursor, found = None, []
    for _ in range(6):
        page = log.results(ResultFilter(), 1, cursor)
        found += [one.source.frame for one in page.results]
        cursor = page.next
    assert found == [5, 4, 3, 2, 1, 0]
    assert cursor is None


def counted(log: RunLog) -> dict[tuple, int]:
    c = result_counts.c
    with log.database.read() as connection:
        rows = connection.execute(
            sa.select(c.series_uid, c.kind, c.label, sa.func.sum(c.count)).group_by(*c[:3])
        )
        return {tuple(row[:3]): int(row[3]) for row in rows}


def scanned(log: RunLog) -> dict[tuple, int]:
    c = results.c
    query = sa.select(c.series_uid, c.kind, c.label, sa.func.count()).group_by(c.series_uid, c.kind, c.label)
    found: dict[tuple, int] = {}
    with log.database.read() as connection:
        for uid, kind, label, count in connection.execute(query):
            found[paging.ALL, kind, label] = found.get((paging.ALL, kind, label), 0) + count
            if uid is not None:
                found[uid, kind, label] = count
    return found


def test_counts_equal_those_of_a_scan(log: RunLog, entries: list[Entry]) -> None:
    log.append(entries[:200])
    log.append(entries[150:])  # some of them again
    assert counted(log) == scanned(log)
    with log.database.write() as connection:
        connection.execute(sa.delete(results).where(results.c.label == "senescent"))
    assert counted(log) == scanned(log)
    assert all(label == "control" for _, _, label in counted(log))
    delete_old_results(log.database, 1, None, pause=lambda: False)
    assert counted(log) == scanned(log) == {}


def plan(database: Database, query: sa.Select) -> list[str]:
    compiled = query.compile(database.engine, compile_kwargs={"literal_binds": True})
    with database.read() as connection:
        return [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}")]


@pytest.fixture(scope="module")
def sqlite_log(tmp_path_factory: pytest.TempPathFactory, entries: list[Entry]) -> Iterator[RunLog]:
    """A log for tests that only read it."""
    log = RunLog(f"sqlite:///{tmp_path_factory.mktemp('paging') / 'log.sqlite3'}")
    log.prepare()
    log.append(entries)
    yield log
    log.close()


@pytest.mark.parametrize("cursor", [None, paging.cursor_of(BEGAN_S * 1000 + 5000, 99)])
def test_no_page_scans_or_sorts(sqlite_log: RunLog, cursor: int | None) -> None:
    database = sqlite_log.database
    for wanted in FILTERS:
        assert_searched(plan(database, paging.facets_query(wanted)), "PRIMARY KEY|result_counts", wanted)
        with database.read() as connection:
            queries = paging.facet_queries(connection, wanted, 101, cursor)
        facet = "results_by_facet" if wanted.series is None else "results_by_series_and_facet"
        for query in queries:
            assert_searched(plan(database, query), f"COVERING INDEX {facet}", wanted)
        plain = ResultFilter(wanted.series, since=wanted.since, until=wanted.until)
        lines = plan(database, paging.ordered_query(plain, 101, cursor))
        index = "results_by_time" if wanted.series is None else "results_by_series"
        assert len(lines) == 1, (wanted, lines)
        # A page without a filter is read from the end of the index: a scan of limited length.
        assert f"INDEX {index}" in lines[0], (wanted, lines)


def assert_searched(lines: list[str], index: str, wanted: ResultFilter) -> None:
    assert len(lines) == 1, (wanted, lines)
    assert lines[0].startswith("SEARCH"), (wanted, lines)
    assert any(word in lines[0] for word in index.split("|")), (wanted, lines)


def test_counts_of_series_read_no_results(sqlite_log: RunLog) -> None:
    lines = plan(sqlite_log.database, counts_query(SERIES))
    assert any("SEARCH result_counts" in line for line in lines), lines
    assert not any("results" in line for line in lines), lines


ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"


def test_a_read_beyond_the_time_limit_is_interrupted(log: RunLog, url: str, entries: list[Entry]) -> None:
    log.append(entries[:10])
    database = Database(url, read_s=0.2)
    with pytest.raises(LogFault, match="request fewer results") as caught, database.read() as connection:
        connection.exec_driver_sql(ENDLESS)
    assert caught.value.state == "slow"
    with database.read() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(results)).scalar_one() == 10
    database.close_connections()


def test_a_writer_does_not_wait_for_readers(log: RunLog, url: str, entries: list[Entry]) -> None:
    """Reads occupy all connections for reads until results are written."""
    database = log.database
    written = threading.Event()
    reading = threading.Barrier(9)
    seen: list[int] = []

    def hold() -> None:
        with database.read() as connection:
            reading.wait(60)
            seen.append(connection.execute(sa.select(sa.func.count()).select_from(results)).scalar_one())
            assert written.wait(60)

    threads = [threading.Thread(target=hold) for _ in range(8)]
    for thread in threads:
        thread.start()
    reading.wait(60)
    log.append(entries[:10])
    written.set()
    for thread in threads:
        thread.join(60)
    assert len(seen) == 8


def test_a_progress_handler_is_removed_after_the_read(sqlite_log: RunLog) -> None:
    """The time limit of a read does not interrupt later uses of its pooled connection."""
    database = Database(str(sqlite_log.database.url), read_s=0.05)
    with database.read() as connection:
        raw = connection.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)
    time.sleep(0.1)
    counted = raw.execute(f"{ENDLESS.replace('FROM n)', 'FROM n WHERE x < 1000000)')}").fetchone()
    assert counted == (1000000,)
    database.close_connections()
