"""Bringing a database to the schema that this code knows."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

VERSION_TABLE: Final = "runlog_version"
_MIGRATIONS: Final = Path(__file__).parent / "migrations"
# Any number will do, as long as every service that opens the same database takes the same.
_ADVISORY_LOCK: Final = 0x5E05C09E


class NewerSchema(Exception):
    """The database was brought to a schema that this code does not know."""


def migrate(connection: sa.Connection, revision: str = "head") -> None:
    """Bring a database to a revision, inside the transaction that the connection is in.

    Raises
    ------
    NewerSchema
        If the database is at a revision that this code does not have; nothing is changed.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes.update(connection=connection, version_table=VERSION_TABLE)
    script = ScriptDirectory.from_config(config)
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    current = context.get_current_revision()
    if current == script.get_current_head():
        return
    if current is not None and current not in {step.revision for step in script.walk_revisions()}:
        raise NewerSchema(current)
    command.upgrade(config, revision)
