"""Runs the revisions on the connection that `schema.upgrade` gives."""

from __future__ import annotations

from alembic import context

from packetcloud.domain_controller.state.money_tables import USAGE

METADATA = USAGE.metadata
"""Of all tables: those of money stand in the same one as the others."""

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    transactional_ddl=True,
)
context.run_migrations()
