"""Logs of earlier versions are brought up to date, those of later ones refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from senoscope.engine.manifest import Manifest
from senoscope.runlog.database import Database
from senoscope.runlog.entries import ResultFilter
from senoscope.runlog.faults import LogFault
from senoscope.runlog.schema import VERSION_TABLE, migrate
from senoscope.runlog.store import RunLog
from senoscope.runlog.tables import metadata, models, results
from support.run_logs import entry


def test_the_migrations_lead_to_the_tables_that_the_code_uses(log: RunLog) -> None:
    with log.database.read() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, metadata) == []


def test_a_log_of_an_earlier_version_keeps_its_results(url: str, manifest: Manifest) -> None:
    old = Database(url)
    if old.is_sqlite:
        Path(old.url.database).parent.mkdir()
    earlier = entry(manifest, 0)
    with old.write() as connection:
        migrate(connection, "0001")
        connection.execute(models.insert(), {"digest": "0" * 64, "manifest": manifest.model_dump_json()})
        connection.execute(
            results.insert(),
            {
                "id": earlier.result.id,
                "kind": "stream",
                "created_ms": earlier.created_ms,
                "label": "control",
                "probability": 0.25,
                "model_digest": "0" * 64,
                "document": earlier.document,
                "gradcam": earlier.gradcam,
            },
        )
        assert not sa.inspect(connection).has_table("series")
    log = RunLog(url)
    log.prepare()
    log.append([entry(manifest, 1)])
    assert [found.source.frame for found in log.iterate(ResultFilter())] == [1, 0]
    assert log.series(10)


def test_a_log_of_a_later_version_is_refused_and_left_alone(log: RunLog, manifest: Manifest) -> None:
    log.append([entry(manifest, 0)])
    with log.database.write() as connection:
        connection.exec_driver_sql(f"UPDATE {VERSION_TABLE} SET version_num = '9000'")
    with pytest.raises(LogFault, match=r"newer version of Senoscope.*9000") as caught:
        RunLog(log.database.engine.url.render_as_string(False)).prepare()
    assert caught.value.state == "newer_schema"
    assert len(log.results(ResultFilter(), 10).results) == 1


def test_a_migration_that_fails_leaves_the_log_as_it_was(url: str) -> None:
    database = Database(url)
    if database.is_sqlite:
        Path(database.url.database).parent.mkdir()

    def fail() -> None:
        with database.write() as connection:
            migrate(connection)
            raise RuntimeError("the process ends here")

    with pytest.raises(RuntimeError):
        fail()
    with database.read() as connection:
        assert sa.inspect(connection).get_table_names() == []
    database.prepare()
