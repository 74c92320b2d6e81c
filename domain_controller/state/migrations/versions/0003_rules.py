"""What cloudlets are to have of sets of rules, and what they say of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the table. What was kept before goes to no router until a newer document comes."""
    op.add_column("rule_sets", sa.Column("until_ms", sa.BigInteger()))
    op.create_table(
        "rule_directives",
        sa.Column("cloudlet", sa.String(64), sa.ForeignKey("cloudlets.name"), primary_key=True),
        sa.Column("rule_set", sa.String(64), sa.ForeignKey("rule_sets.id"), primary_key=True),
        sa.Column("serial", sa.BigInteger(), nullable=False),
        sa.Column("is_answered", sa.Boolean(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("changed_ms", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.BigInteger()),
        sa.Column("sent_ms", sa.BigInteger()),
        sa.Column("document", sa.Text(), nullable=False),
    )
    op.create_index(
        "ix_rule_directives_is_answered_cloudlet", "rule_directives", ["is_answered", "cloudlet"]
    )
    op.create_index("ix_rule_directives_rule_set", "rule_directives", ["rule_set"])
