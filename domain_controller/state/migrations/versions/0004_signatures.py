"""The cloudlets' signatures of usage records; of what came in before there are none."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Give records, and those that are evidence, a place for their signature."""
    for table in ("usage", "evidence"):
        op.add_column(table, sa.Column("signature", sa.LargeBinary()))
        op.add_column(table, sa.Column("signed_by", sa.LargeBinary()))
