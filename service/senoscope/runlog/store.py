"""The run log: appending results, and asking for them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from senoscope.runlog import decided, paging
from senoscope.runlog.database import Database
from senoscope.runlog.entries import Entry, LoggedSeries, Maps, ModelLayout, Page, ResultFilter
from senoscope.runlog.tables import kept_values, models, result_counts, results, series
from senoscope_client.models.decision import Decision
from senoscope_client.models.result import Result, Source

# Rows that a long read takes at once: SQLite cannot shorten its write-ahead log while anybody reads.
_CHUNK: Final = 500
# Series that may go on after a restart, and results of each that may be younger than its snapshot: far more
# than are made from one snapshot to the next.
_LATEST_SERIES: Final = 16
_LATEST_RESULTS: Final = 1000

_INSERT: Final = str(
    sqlite.insert(results)
    .on_conflict_do_nothing(index_elements=["id"])
    .compile(dialect=sqlite.dialect(), column_keys=[c.name for c in results.c if c.name != "seq"])
)


class RunLog:
    """The log in one database; may be used from many threads.

    Every method raises ``LogFault`` where the database fails.

    Parameters
    ----------
    url : str
        ``sqlite:///PATH`` or ``postgresql://...``.

    Raises
    ------
    ValueError, LogUnavailable
        If there can be no log at such an address.
    """

    def __init__(self, url: str) -> None:
        self.database = Database(url)
        # What is in the log for certain, so that it need not be written with every result.
        self._known_models: set[str] = set()
        self._known_series: set[UUID] = set()
        self._layouts: dict[str, ModelLayout] = {}

    def prepare(self) -> None:
        """Make the log if there is none, and bring its schema up to date; before anything else."""
        self._known_models.clear()
        self._known_series.clear()
        self.database.prepare()

    def close(self) -> None:
        """Let go of the database; later use opens it again."""
        self.database.release()

    def append(self, made: Sequence[Entry | Decision]) -> None:
        """Add results, all or none of them, then decisions; those that are there already are left alone."""
        self._append_results([one for one in made if isinstance(one, Entry)])
        decided.append(self.database, [one for one in made if isinstance(one, Decision)])

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
        if self.database.is_sqlite and not new_models and not new_series:
            self.database.insert_into_sqlite(_INSERT, [_sqlite_row(entry) for entry in entries])
            return
        with self.database.write() as connection:
            if new_models:
                rows = [{"digest": d, "manifest": m.model_dump_json()} for d, m in new_models.items()]
                connection.execute(self.database.insert_statement(models).on_conflict_do_nothing(), rows)
            if new_series:
                glimpses = [
                    {"uid": uid, "snapshot": json.dumps(_glimpse(source)), "updated_ms": _now_ms()}
                    for uid, source in new_series.items()
                ]
                connection.execute(self.database.insert_statement(series).on_conflict_do_nothing(), glimpses)
            connection.execute(
                self.database.insert_statement(results).on_conflict_do_nothing(index_elements=["id"]),
                [_row(entry) for entry in entries],
            )
        self._known_models.update(new_models)
        self._known_series.update(new_series)

    def result(self, identifier: UUID) -> tuple[Result, Maps] | None:
        """A result and its Grad-CAM maps; None if it is not in the log."""
        columns = (results.c.document, results.c.gradcam, results.c.model_digest)
        with self.database.read() as connection:
            row = connection.execute(sa.select(*columns).where(results.c.id == identifier)).one_or_none()
            if row is None:
                return None
            layout = self._layout(connection, row.model_digest)
        result = Result.model_validate_json(row.document)
        return result, layout.maps(result, row.gradcam)

    def results(self, wanted: ResultFilter, limit: int, cursor: int | None = None) -> Page:
        """Results, newest first, older than the cursor."""
        with self.database.read() as connection:
            rows = paging.newest(connection, wanted, limit + 1, cursor)
        found = tuple(Result.model_validate_json(row.document) for row in rows[:limit])
        last = rows[limit - 1] if len(rows) > limit else None
        return Page(found, None if last is None else paging.cursor_of(last.created_ms, last.seq))

    def iterate(self, wanted: ResultFilter) -> Iterator[Result]:
        """All results, newest first; those that come while it runs are left out."""
        cursor: int | None = None
        while True:
            page = self.results(wanted, _CHUNK, cursor)
            yield from page.results
            if page.next is None:
                return
            cursor = page.next

    def oldest_first(self, wanted: ResultFilter) -> Iterator[Result]:
        """All results, in the order in which they were made."""
        time, seq = results.c.created_ms, results.c.seq
        query = sa.select(seq, time, results.c.document).where(*paging.conditions(wanted))
        query = query.order_by(time, seq).limit(_CHUNK)
        page = query
        while True:
            with self.database.read() as connection:
                rows = connection.execute(page).all()
            yield from (Result.model_validate_json(row.document) for row in rows)
            if len(rows) < _CHUNK:
                return
            last = rows[-1]
            page = query.where(time >= last.created_ms, sa.or_(time > last.created_ms, seq > last.seq))

    def decisions(
        self, series: UUID | None, limit: int, cursor: int | None = None
    ) -> tuple[tuple[Decision, ...], int | None]:
        """Decisions, newest first, older than the cursor; and the next page's cursor, None at the end."""
        return decided.page(self.database, series, limit, cursor)

    def decisions_of(self, series: UUID) -> list[Decision]:
        """All decisions on a series, in the order in which they were made."""
        return decided.of_series(self.database, series)

    def networks(self) -> tuple[str, ...]:
        """The names of the networks of all ensembles that the log knows."""
        with self.database.read() as connection:
            digests = connection.execute(sa.select(models.c.digest)).scalars().all()
            layouts = [self._layout(connection, digest) for digest in digests]
        return tuple(dict.fromkeys(name for layout in layouts for name in layout.grids))

    def save_series(self, snapshots: Iterable[dict[str, Any]]) -> None:
        """Keep how series are now, each as the receiver describes it (with its ``series_uid``)."""
        rows = [
            {"uid": UUID(snapshot["series_uid"]), "snapshot": json.dumps(snapshot), "updated_ms": _now_ms()}
            for snapshot in snapshots
        ]
        if rows:
            insert = self.database.insert_statement(series)
            with self.database.write() as connection:
                connection.execute(
                    insert.on_conflict_do_update(
                        index_elements=["uid"],
                        set_={
                            "snapshot": insert.excluded.snapshot,
                            "updated_ms": insert.excluded.updated_ms,
                        },
                    ),
                    rows,
                )
            self._known_series.update(row["uid"] for row in rows)  # type: ignore[misc]

    def series(self, limit: int) -> list[LoggedSeries]:
        """The series seen last, newest first."""
        return self._series(sa.select(series).order_by(series.c.updated_ms.desc()).limit(limit))

    def one_series(self, uid: UUID) -> LoggedSeries | None:
        """A series, or None if the log knows none of that uid."""
        return next(iter(self._series(sa.select(series).where(series.c.uid == uid))), None)

    def latest_series(self) -> list[tuple[dict[str, Any], list[tuple[int, int]]]]:
        """The snapshots of the series seen last, newest first, each with its newest results.

        Returns
        -------
        list of (snapshot, list of (frame, created_ms))
        """
        query = sa.select(series).order_by(series.c.updated_ms.desc()).limit(_LATEST_SERIES)
        with self.database.read() as connection:
            return [
                (json.loads(row.snapshot), self._latest_results(connection, row.uid))
                for row in connection.execute(query).all()
            ]

    def get_value(self, key: str) -> Any:
        """A value that was kept; None if there is none."""
        with self.database.read() as connection:
            text = connection.execute(
                sa.select(kept_values.c.value).where(kept_values.c.key == key)
            ).scalar_one_or_none()
        return None if text is None else json.loads(text)

    def set_value(self, key: str, value: Any) -> None:
        """Keep a small value, whatever JSON can tell, in place of the earlier one."""
        insert = self.database.insert_statement(kept_values)
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

    def _series(self, query: sa.Select[Any]) -> list[LoggedSeries]:
        with self.database.read() as connection:
            rows = connection.execute(query).all()
            counts = connection.execute(counts_query([row.uid for row in rows])).all()
        labels: dict[UUID, dict[str, int]] = {row.uid: {} for row in rows}
        for uid, label, count in counts:
            labels[uid][label] = int(count)
        return [LoggedSeries(json.loads(row.snapshot), labels[row.uid], row.updated_ms) for row in rows]


def counts_query(uids: Sequence[UUID]) -> sa.Select[Any]:
    """The query for how many results of each of these series carry which label."""
    c = result_counts.c
    return (
        sa.select(c.series_uid, c.label, sa.func.sum(c.count).label("count"))
        .where(c.series_uid.in_(uids))
        .group_by(c.series_uid, c.label)
    )


def _row(entry: Entry) -> dict[str, Any]:
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


def _sqlite_row(entry: Entry) -> tuple[Any, ...]:
    """The same as SQLAlchemy would write it: UUIDs in hexadecimal."""
    return tuple(value.hex if isinstance(value, UUID) else value for value in _row(entry).values())


def _glimpse(source: Source) -> dict[str, Any]:
    """As much of a series as one of its frames tells, until the receiver's account of it is saved."""
    return {
        "series_uid": str(source.series_uid),
        "series_id": source.series_id,
        "instrument": source.instrument,
        "state": "open",
    }


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
