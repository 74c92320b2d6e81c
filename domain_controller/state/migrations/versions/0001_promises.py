"""Who there is, what is reserved, who owns what."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the first tables."""
    _registry()
    _promises()
    _duties()
    heads = sa.table("heads", sa.column("name"), sa.column("number"), sa.column("digest"))
    op.bulk_insert(heads, [{"name": "events", "number": 0, "digest": bytes(32)}])


def _registry() -> None:
    op.create_table(
        "cloudlets",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("region", sa.String(64)),
        sa.Column("made_ms", sa.BigInteger(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("change", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
    )
    op.create_table(
        "price_lists",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("version", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("from_ms", sa.BigInteger(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
    )
    op.create_table(
        "principals",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("made_ms", sa.BigInteger(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
    )
    op.create_index("ix_principals_role_name", "principals", ["role", "name"])
    op.create_table(
        "vi_types",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("changed_ms", sa.BigInteger(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
    )
    op.create_table(
        "keys",
        sa.Column("id", sa.String(128), primary_key=True),
        sa.Column("principal", sa.String(64), sa.ForeignKey("principals.name"), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("from_ms", sa.BigInteger(), nullable=False),
        sa.Column("until_ms", sa.BigInteger(), nullable=False),
        sa.Column("revoked_ms", sa.BigInteger()),
    )
    op.create_index("ix_keys_principal", "keys", ["principal"])
    op.create_table(
        "reports",
        sa.Column("cloudlet", sa.String(64), sa.ForeignKey("cloudlets.name"), primary_key=True),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
    )
    op.create_table(
        "rule_sets",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("owner", sa.String(64), sa.ForeignKey("principals.name"), nullable=False),
        sa.Column("signer", sa.String(40), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("serial", sa.BigInteger(), nullable=False),
        sa.Column("made_ms", sa.BigInteger(), nullable=False),
        sa.Column("is_withdrawn", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.UniqueConstraint("signer", "name"),
    )
    op.create_index("ix_rule_sets_owner", "rule_sets", ["owner"])
    op.create_table(
        "services",
        sa.Column("sid", sa.String(40), primary_key=True),
        sa.Column("owner", sa.String(64), sa.ForeignKey("principals.name"), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("made_ms", sa.BigInteger(), nullable=False),
        sa.Column("until_ms", sa.BigInteger(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.UniqueConstraint("owner", "name"),
    )


def _promises() -> None:
    op.create_table(
        "answers",
        sa.Column("principal", sa.String(64), primary_key=True),
        sa.Column("key", sa.String(128), primary_key=True),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("made_ms", sa.BigInteger(), nullable=False),
    )
    op.create_index("ix_answers_made_ms", "answers", ["made_ms"])
    op.create_table(
        "events",
        sa.Column("number", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("subject", sa.String(128), nullable=False),
        sa.Column("owner", sa.String(64)),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
    )
    op.create_index("ix_events_owner_number", "events", ["owner", "number"])
    op.create_index("ix_events_subject_number", "events", ["subject", "number"])
    op.create_table(
        "heads",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "reservations",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("owner", sa.String(64), sa.ForeignKey("principals.name"), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("due_ms", sa.BigInteger()),
        sa.Column("made_ms", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
    )
    op.create_index("ix_reservations_due_ms", "reservations", ["due_ms"])
    op.create_index("ix_reservations_made_ms", "reservations", ["made_ms"])
    op.create_index("ix_reservations_owner_made_ms", "reservations", ["owner", "made_ms"])
    op.create_table(
        "holds",
        sa.Column("cloudlet", sa.String(64), sa.ForeignKey("cloudlets.name"), primary_key=True),
        sa.Column("number", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("reservation", sa.String(64), sa.ForeignKey("reservations.name"), nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("is_third_party", sa.Boolean(), nullable=False),
        sa.Column("begin_ms", sa.BigInteger(), nullable=False),
        sa.Column("end_ms", sa.BigInteger(), nullable=False),
        sa.Column("vi_type", sa.String(64), nullable=False),
        sa.Column("vis_count", sa.Integer(), nullable=False),
        sa.Column("is_released", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("change", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("begin_ms < end_ms", name="slot"),
        sa.CheckConstraint("vis_count >= 1", name="vis_count_least"),
    )
    op.create_index("ix_holds_cloudlet_change", "holds", ["cloudlet", "change"])
    op.create_index("ix_holds_reservation", "holds", ["reservation"])


def _duties() -> None:
    op.create_table(
        "nonces",
        sa.Column("key", sa.String(128), primary_key=True),
        sa.Column("nonce", sa.String(128), primary_key=True),
        sa.Column("until_ms", sa.BigInteger(), nullable=False),
    )
    op.create_index("ix_nonces_until_ms", "nonces", ["until_ms"])
    op.create_table(
        "operations",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("owner", sa.String(64)),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("subject", sa.String(128), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("made_ms", sa.BigInteger(), nullable=False),
        sa.Column("changed_ms", sa.BigInteger(), nullable=False),
    )
    op.create_index("ix_operations_state_changed_ms", "operations", ["state", "changed_ms"])
    op.create_index("ix_operations_subject_made_ms", "operations", ["subject", "made_ms"])
    op.create_table(
        "ownerships",
        sa.Column("name", sa.String(128), primary_key=True),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("until_ms", sa.BigInteger()),
        sa.CheckConstraint("epoch >= 1", name="epoch_least"),
    )
    op.create_table(
        "directives",
        sa.Column("cloudlet", sa.String(64), sa.ForeignKey("cloudlets.name"), primary_key=True),
        sa.Column(
            "reservation", sa.String(64), sa.ForeignKey("reservations.name"), primary_key=True
        ),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("is_answered", sa.Boolean(), nullable=False),
        sa.Column("made_ms", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.BigInteger()),
        sa.Column("sent_ms", sa.BigInteger()),
        sa.Column("document", sa.Text(), nullable=False),
    )
    op.create_index(
        "ix_directives_cloudlet_is_answered_made_ms",
        "directives",
        ["cloudlet", "is_answered", "made_ms"],
    )
    op.create_index("ix_directives_reservation", "directives", ["reservation"])
