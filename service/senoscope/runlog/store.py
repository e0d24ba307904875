"""The run log in one database: append and query results, decisions and series."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa

from senoscope.runlog import paging
from senoscope.runlog.database import Database
from senoscope.runlog.entries import (
    Entry,
    LoggedSeries,
    Maps,
    ModelLayout,
    Page,
    ResultFilter,
    SeriesSnapshot,
)
from senoscope.runlog.tables import decisions, kept_values, models, result_counts, results, series
from senoscope_client.models.decision import Decision
from senoscope_client.models.result import Result, Source

# Rows per query of a long read: SQLite cannot truncate its write-ahead log during a query.
_ROWS_PER_QUERY: Final = 500
# Series that may continue after a restart, and results of each that may be newer than its snapshot: many more
# than are logged between two snapshots.
_LATEST_SERIES: Final = 16
_LATEST_RESULTS: Final = 1000
# Snapshots of series that are files of a watched folder, as JSON; quotes within texts are escaped.
_OF_FILE: Final = '%"kind": "file"%'


class RunLog:
    """The run log in one database; may be used from several threads.

    Every method raises ``LogFault`` if the database fails.

    Parameters
    ----------
    url : str
        ``sqlite:///PATH`` or ``postgresql://...``.

    Raises
    ------
    ValueError, LogUnavailable
        If the URL is not valid, or its driver is not installed.
    """

    def __init__(self, url: str) -> None:
        self.database = Database(url)
        # Models and series that are in the log, so that they are not written with every result.
        self._known_models: set[str] = set()
        self._known_series: set[UUID] = set()
        self._layouts: dict[str, ModelLayout] = {}

    def prepare(self) -> None:
        """Create the log or migrate its schema; call it before any other method."""
        self._known_models.clear()
        self._known_series.clear()
        self.database.prepare()

    def close(self) -> None:
        """Close the database; later use opens it again."""
        self.database.close_connections()

    def append(self, entries: Sequence[Entry | Decision]) -> None:
        """Append all results or none, then all decisions or none; existing ones are skipped."""
        self._append_results([one for one in entries if isinstance(one, Entry)])
        made = [_decision_row(one) for one in entries if isinstance(one, Decision)]
        if made:
            self.database.insert_rows(decisions, made)

    def _append_results(self, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        new_models = {
            digest: entry.manifest
            for entry in entries
            if (digest := entry.result.model.digest) not in self._known_models
        }
        new_series = {
            uid: entry.result.source
            for entry in entries
            if (uid := entry.result.source.series_uid) is not None and uid not in self._known_series
        }
        rows = [_result_row(entry) for entry in entries]
        if not new_models and not new_series:
            self.database.insert_rows(results, rows)
            return
        manifests = [{"digest": d, "manifest": m.model_dump_json()} for d, m in new_models.items()]
        snapshots = [_series_row(_snapshot_of(uid, source)) for uid, source in new_series.items()]
        with self.database.write() as connection:
            for table, new in ((models, manifests), (series, snapshots), (results, rows)):
                if new:
                    insert = self.database.dialect.insert_statement(table)
                    connection.execute(insert.on_conflict_do_nothing(), new)
        self._known_models.update(new_models)
        self._known_series.update(new_series)

    def result(self, identifier: UUID) -> tuple[Result, Maps] | None:
        """Return a result and its Grad-CAM maps, or None if it is not in the log."""
        columns = (results.c.document, results.c.gradcam, results.c.model_digest)
        with self.database.read() as connection:
            row = connection.execute(sa.select(*columns).where(results.c.id == identifier)).one_or_none()
            if row is None:
                return None
            layout = self._layout(connection, row.model_digest)
        result = Result.model_validate_json(row.document)
        return result, layout.maps(result, row.gradcam)

    def results(self, wanted: ResultFilter, limit: int, cursor: int | None = None) -> Page:
        """Return a page of results, newest first, older than the cursor."""
        with self.database.read() as connection:
            rows = paging.newest(connection, wanted, limit + 1, cursor)
        found = tuple(Result.model_validate_json(row.document) for row in rows[:limit])
        last = rows[limit - 1] if len(rows) > limit else None
        return Page(found, None if last is None else paging.cursor_of(last.created_ms, last.seq))

    def iterate(self, wanted: ResultFilter) -> Iterator[Result]:
        """Yield all results, newest first; results logged meanwhile are not included."""
        cursor: int | None = None
        while True:
            page = self.results(wanted, _ROWS_PER_QUERY, cursor)
            yield from page.results
            if page.next is None:
                return
            cursor = page.next

    def oldest_first(self, wanted: ResultFilter) -> Iterator[Result]:
        """Yield all results in order of time."""
        time, seq = results.c.created_ms, results.c.seq
        query = sa.select(seq, time, results.c.document).where(*paging.conditions(wanted))
        query = query.order_by(time, seq).limit(_ROWS_PER_QUERY)
        page = query
        while True:
            with self.database.read() as connection:
                rows = connection.execute(page).all()
            yield from (Result.model_validate_json(row.document) for row in rows)
            if len(rows) < _ROWS_PER_QUERY:
                return
            last = rows[-1]
            page = query.where(time >= last.created_ms, sa.or_(time > last.created_ms, seq > last.seq))

    def decisions(
        self, series: UUID | None, limit: int, cursor: int | None = None
    ) -> tuple[tuple[Decision, ...], int | None]:
        """Return decisions, newest first, older than the cursor, and the cursor of the next page or None."""
        c = decisions.c
        query = sa.select(c.seq, c.document).order_by(c.seq.desc()).limit(limit + 1)
        if series is not None:
            query = query.where(c.series_uid == series)
        if cursor is not None:
            query = query.where(c.seq < cursor)
        with self.database.read() as connection:
            rows = connection.execute(query).all()
        found = tuple(Decision.model_validate_json(row.document) for row in rows[:limit])
        return found, rows[limit - 1].seq if len(rows) > limit else None

    def decisions_of(self, series: UUID) -> list[Decision]:
        """Return all decisions on a series, in the order in which they were logged."""
        c = decisions.c
        query = sa.select(c.document).where(c.series_uid == series).order_by(c.seq)
        with self.database.read() as connection:
            return [Decision.model_validate_json(text) for text in connection.execute(query).scalars()]

    def networks(self) -> tuple[str, ...]:
        """Return the names of the networks of all ensembles in the log."""
        with self.database.read() as connection:
            digests = connection.execute(sa.select(models.c.digest)).scalars().all()
            layouts = [self._layout(connection, digest) for digest in digests]
        return tuple(dict.fromkeys(name for layout in layouts for name in layout.grids))

    def save_series(self, snapshots: Sequence[SeriesSnapshot]) -> None:
        """Save the status of series, each as its source reports it."""
        if snapshots:
            insert = self.database.dialect.insert_statement(series)
            with self.database.write() as connection:
                connection.execute(
                    insert.on_conflict_do_update(
                        index_elements=["uid"],
                        set_={
                            "snapshot": insert.excluded.snapshot,
                            "updated_ms": insert.excluded.updated_ms,
                        },
                    ),
                    [_series_row(snapshot) for snapshot in snapshots],
                )
            self._known_series.update(snapshot.series_uid for snapshot in snapshots)

    def series(self, limit: int) -> list[LoggedSeries]:
        """Return the series that were saved last, newest first."""
        return self._select_series(sa.select(series).order_by(series.c.updated_ms.desc()).limit(limit))

    def one_series(self, uid: UUID) -> LoggedSeries | None:
        """Return a series, or None if it is not in the log."""
        return next(iter(self._select_series(sa.select(series).where(series.c.uid == uid))), None)

    def latest_series(self) -> list[tuple[SeriesSnapshot, list[tuple[int, int]]]]:
        """Return the stream's series saved last, newest first, each with frames and times of its results."""
        query = sa.select(series).where(series.c.snapshot.not_like(_OF_FILE))
        query = query.order_by(series.c.updated_ms.desc()).limit(_LATEST_SERIES)
        with self.database.read() as connection:
            return [
                (SeriesSnapshot.model_validate_json(row.snapshot), self._latest_results(connection, row.uid))
                for row in connection.execute(query).all()
            ]

    def get_value(self, key: str) -> Any:
        """Return the stored value of a key, or None."""
        return self.get_values([key]).get(key)

    def get_values(self, keys: Sequence[str]) -> dict[str, Any]:
        """Return the stored values of those keys that have one."""
        found: dict[str, Any] = {}
        for first in range(0, len(keys), _ROWS_PER_QUERY):
            query = sa.select(kept_values).where(kept_values.c.key.in_(keys[first : first + _ROWS_PER_QUERY]))
            with self.database.read() as connection:
                found |= {row.key: json.loads(row.value) for row in connection.execute(query)}
        return found

    def frames_of(self, uid: UUID) -> set[int]:
        """Return the frames of a series that have a result."""
        query = sa.select(results.c.frame).where(results.c.series_uid == uid)
        with self.database.read() as connection:
            return set(connection.execute(query).scalars())

    def set_value(self, key: str, value: Any) -> None:
        """Store a small value that JSON can represent; replaces an earlier value of the key."""
        insert = self.database.dialect.insert_statement(kept_values)
        with self.database.write() as connection:
            connection.execute(
                insert.on_conflict_do_update(index_elements=["key"], set_={"value": insert.excluded.value}),
                {"key": key, "value": json.dumps(value)},
            )

    @staticmethod
    def _latest_results(connection: sa.Connection, uid: UUID) -> list[tuple[int, int]]:
        query = (
            sa.select(results.c.frame, results.c.created_ms)
            .where(results.c.series_uid == uid)
            .order_by(results.c.created_ms.desc(), results.c.seq.desc())
            .limit(_LATEST_RESULTS)
        )
        return [(row.frame, row.created_ms) for row in connection.execute(query)]

    def _layout(self, connection: sa.Connection, digest: str) -> ModelLayout:
        if digest not in self._layouts:
            query = sa.select(models.c.manifest).where(models.c.digest == digest)
            self._layouts[digest] = ModelLayout.of(connection.execute(query).scalar_one())
        return self._layouts[digest]

    def _select_series(self, query: sa.Select[Any]) -> list[LoggedSeries]:
        with self.database.read() as connection:
            rows = connection.execute(query).all()
            counts = connection.execute(counts_query([row.uid for row in rows])).all()
        labels: dict[UUID, dict[str, int]] = {row.uid: {} for row in rows}
        for uid, label, count in counts:
            labels[uid][label] = int(count)
        return [
            LoggedSeries(SeriesSnapshot.model_validate_json(row.snapshot), labels[row.uid], row.updated_ms)
            for row in rows
        ]


def counts_query(uids: Sequence[UUID]) -> sa.Select[Any]:
    """Return the query for the number of results of each label in these series."""
    c = result_counts.c
    return (
        sa.select(c.series_uid, c.label, sa.func.sum(c.count).label("count"))
        .where(c.series_uid.in_(uids))
        .group_by(c.series_uid, c.label)
    )


def _result_row(entry: Entry) -> dict[str, Any]:
    result = entry.result
    return {
        "id": result.id,
        "kind": result.source.kind,
        "series_uid": result.source.series_uid,
        "frame": result.source.frame,
        "created_ms": entry.created_ms,
        "label": result.label,
        "probability": result.probability,
        "model_digest": result.model.digest,
        "document": entry.document,
        "gradcam": entry.gradcam,
    }


def _decision_row(decision: Decision) -> dict[str, Any]:
    return {
        "id": decision.id,
        "series_uid": decision.series_uid,
        "created_ms": decision.id.int >> 80,
        "action": decision.action,
        "document": decision.model_dump_json(exclude_none=True),
    }


def _snapshot_of(uid: UUID, source: Source) -> SeriesSnapshot:
    """Return what a frame shows of its series, to be stored until the status of its source is saved."""
    return SeriesSnapshot(
        kind=source.kind,
        series_uid=uid,
        series_id=source.series_id,
        instrument=source.instrument,
        state="open",
    )


def _series_row(snapshot: SeriesSnapshot) -> dict[str, Any]:
    document = snapshot.model_dump(mode="json", exclude_unset=True)
    return {
        "uid": snapshot.series_uid,
        "snapshot": json.dumps(document),
        "updated_ms": time.time_ns() // 1_000_000,
    }
