"""Creation of the database schema and its migration to the current version."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import sqlalchemy as sa

from senoscope.runlog.dialects import DIALECTS
from senoscope.runlog.tables import metadata

HEAD: Final = "0005"
"""The newest migration; it results in the tables of `tables`."""

VERSION_TABLE: Final = "runlog_version"
_MIGRATIONS: Final = Path(__file__).parent / "migrations"

# As Alembic creates it for its revision.
_version: Final = sa.Table(
    VERSION_TABLE,
    sa.MetaData(),
    sa.Column("version_num", sa.String(32), nullable=False),
    sa.PrimaryKeyConstraint("version_num", name=f"{VERSION_TABLE}_pkc"),
)


class NewerSchema(Exception):
    """The database has a schema that this version does not know."""


def prepare_schema(connection: sa.Connection) -> None:
    """Create or migrate the schema within the current transaction of the connection.

    Alembic is imported only for a migration.

    Raises
    ------
    NewerSchema
        If the database has an unknown revision; nothing is changed.
    """
    DIALECTS[connection.dialect.name].lock_schema(connection)
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        metadata.create_all(connection, checkfirst=False)
        _version.create(connection)
        connection.execute(_version.insert(), {"version_num": HEAD})
    elif connection.execute(sa.select(_version)).scalars().all() != [HEAD]:
        migrate(connection)


def migrate(connection: sa.Connection, revision: str = "head") -> None:
    """Migrate the schema to a revision within the current transaction of the connection.

    Raises
    ------
    NewerSchema
        If the database has an unknown revision; nothing is changed.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    DIALECTS[connection.dialect.name].lock_schema(connection)
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
