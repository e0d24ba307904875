"""Logs of earlier versions are migrated, those of later versions are refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from senoscope.engine.manifest import Manifest
from senoscope.runlog import schema
from senoscope.runlog.database import Database
from senoscope.runlog.entries import Entry, ResultFilter
from senoscope.runlog.faults import LogFault
from senoscope.runlog.schema import HEAD, VERSION_TABLE, migrate, prepare_schema
from senoscope.runlog.store import RunLog
from senoscope.runlog.tables import metadata, models, results
from support.run_logs import entry

SQLITE_CATALOGUE = ("SELECT type, name, tbl_name, sql FROM sqlite_master",)
POSTGRES_CATALOGUE = (
    "SELECT table_name, column_name, ordinal_position, column_default, is_nullable, data_type, "
    "character_maximum_length FROM information_schema.columns WHERE table_schema = 'public'",
    "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint "
    "WHERE connamespace = 'public'::regnamespace",
    "SELECT event_object_table, trigger_name, event_manipulation, action_timing, action_statement "
    "FROM information_schema.triggers WHERE trigger_schema = 'public'",
    "SELECT proname, prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace",
    "SELECT sequencename, data_type::text, increment_by FROM pg_sequences WHERE schemaname = 'public'",
)


def catalogue(connection: sa.Connection) -> list[tuple]:
    """Return the complete schema of the database, independent of the order of its creation."""
    queries = SQLITE_CATALOGUE if connection.dialect.name == "sqlite" else POSTGRES_CATALOGUE
    rows = [tuple(row) for query in queries for row in connection.exec_driver_sql(query)]
    # SQLite stores statements verbatim, with their whitespace.
    return sorted(
        (tuple(" ".join(cell.split()) if isinstance(cell, str) else cell for cell in row) for row in rows),
        key=str,
    )


def schema_made_by(make: Callable[[sa.Connection], None], database: Database) -> list[tuple]:
    """Return the schema that a function creates in an empty database; the database remains empty."""
    if database.dialect.file is not None:
        Path(database.url.database).parent.mkdir(exist_ok=True)
    with database.write() as connection:
        assert catalogue(connection) == []
        make(connection)
        made = catalogue(connection)
        assert connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}").all() == [(HEAD,)]
        connection.rollback()
    return made


def add_result(connection: sa.Connection, made: Entry, manifest: Manifest) -> None:
    """Add a result with the columns that every version of the schema has."""
    connection.execute(models.insert(), {"digest": "0" * 64, "manifest": manifest.model_dump_json()})
    connection.execute(
        results.insert(),
        {
            "id": made.result.id,
            "series_uid": made.result.source.series_uid,
            "frame": made.result.source.frame,
            "kind": "stream",
            "created_ms": made.created_ms,
            "label": "control",
            "probability": 0.25,
            "model_digest": "0" * 64,
            "document": made.document,
            "gradcam": made.gradcam,
        },
    )


def test_a_new_log_has_the_schema_of_the_migrations(url: str) -> None:
    database = Database(url)
    by_migrations = schema_made_by(migrate, database)
    assert len(by_migrations) >= 10
    assert schema_made_by(prepare_schema, database) == by_migrations


def test_the_head_is_the_newest_migration() -> None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(schema.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD


def test_the_migrations_result_in_the_tables_of_the_code(log: RunLog) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with log.database.read() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, metadata) == []


@pytest.mark.parametrize(
    "url",
    ["sqlite", pytest.param("postgres", marks=[pytest.mark.system("postgres"), pytest.mark.full])],
    indirect=True,
)
def test_alembic_is_imported_only_to_migrate(url: str, manifest: Manifest) -> None:
    """It is not imported for a new log, nor for one at the newest revision."""
    prepare = (
        "import sys; from senoscope.runlog.store import RunLog; "
        "RunLog(sys.argv[1]).prepare(); print('alembic' in sys.modules)"
    )

    def imported() -> str:
        command = [sys.executable, "-c", prepare, url]
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()

    assert imported() == "False", "new"
    assert imported() == "False", "at the newest revision"
    old = Database(url)
    if old.dialect.file is not None:
        Path(old.url.database).unlink()
    else:
        with old.write() as connection:
            connection.exec_driver_sql("DROP SCHEMA public CASCADE")
            connection.exec_driver_sql("CREATE SCHEMA public")
    with old.write() as connection:
        migrate(connection, "0003")
        add_result(connection, entry(manifest, 0), manifest)
    old.close_connections()
    assert imported() == "True", "at an earlier revision"
    assert len(RunLog(url).results(ResultFilter(), 10).results) == 1


def test_a_log_of_an_earlier_version_keeps_its_results(url: str, manifest: Manifest) -> None:
    old = Database(url)
    if old.dialect.file is not None:
        Path(old.url.database).parent.mkdir()
    earlier = entry(manifest, 0)
    with old.write() as connection:
        migrate(connection, "0001")
        add_result(connection, earlier, manifest)
        assert not sa.inspect(connection).has_table("series")
    log = RunLog(url)
    log.prepare()
    log.append([entry(manifest, 1)])
    assert [found.source.frame for found in log.iterate(ResultFilter())] == [1, 0]
    assert [found.source.frame for found in log.iterate(ResultFilter(label="control"))] == [1, 0]
    assert [one.labels for one in log.series(10)] == [{"control": 2}], "earlier results are counted"


def test_a_log_of_a_later_version_is_refused_and_left_unchanged(log: RunLog, manifest: Manifest) -> None:
    log.append([entry(manifest, 0)])
    with log.database.write() as connection:
        connection.exec_driver_sql(f"UPDATE {VERSION_TABLE} SET version_num = '9000'")
    with pytest.raises(LogFault, match=r"newer version of Senoscope.*9000") as caught:
        RunLog(log.database.engine.url.render_as_string(False)).prepare()
    assert caught.value.state == "newer_schema"
    assert len(log.results(ResultFilter(), 10).results) == 1


@pytest.mark.parametrize("make", [migrate, prepare_schema])
def test_a_failed_migration_leaves_the_log_unchanged(url: str, make: Callable[[sa.Connection], None]) -> None:
    database = Database(url)
    if database.dialect.file is not None:
        Path(database.url.database).parent.mkdir()

    def fail() -> None:
        with database.write() as connection:
            make(connection)
            raise RuntimeError("the process ends here")

    with pytest.raises(RuntimeError):
        fail()
    with database.read() as connection:
        assert sa.inspect(connection).get_table_names() == []
    database.prepare()
