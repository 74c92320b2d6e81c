"""The schema's version: brought up to date when a database is opened, refused when it is newer."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from packetcloud.domain_controller.state.errors import StateConfigError

FOLDER = Path(__file__).parent / "migrations"
_LOCK = 0x7063_6C64
"""PostgreSQL's advisory lock: two controllers that start together do not migrate together."""


def schema_version(connection: Connection) -> str:
    """Return the revision that the database has; empty: it has no tables of ours."""
    return MigrationContext.configure(connection).get_current_revision() or ""


def newest_version() -> str:
    """Return the revision that this version of the program makes."""
    return ScriptDirectory(str(FOLDER)).get_current_head() or ""


def check_schema(connection: Connection, name: str) -> None:
    """Refuse a schema that a newer version of the program made.

    Raises:
        StateConfigError: names both versions.
    """
    found = schema_version(connection)
    known = {script.revision for script in ScriptDirectory(str(FOLDER)).walk_revisions()}
    connection.rollback()
    if found and found not in known:
        raise StateConfigError(
            f"{name} has schema {found}, this version knows none after {newest_version()}; run "
            "the version that wrote it, or restore a backup made before it"
        )


def upgrade(connection: Connection, to: str = "head") -> None:
    """Bring the tables to a revision, in one transaction; cheap when they are there already."""
    config = Config()
    # Alembic reads options as configparser does.
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    with connection.begin():
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SET LOCAL lock_timeout = '60s'")
            # Alembic reads its scripts between two statements: slow on a busy machine.
            connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = '60s'")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
        command.upgrade(config, to)
