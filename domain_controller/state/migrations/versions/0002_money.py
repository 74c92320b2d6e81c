"""What was used, what that costs, what was billed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the tables of money."""
    op.create_table(
        "evidence",
        sa.Column("cloudlet", sa.String(64), primary_key=True),
        sa.Column("meter", sa.String(64), primary_key=True),
        sa.Column("number", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("digest", sa.LargeBinary(), primary_key=True),
        sa.Column("record", sa.LargeBinary(), nullable=False),
        sa.Column("received_ms", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "meters",
        sa.Column("cloudlet", sa.String(64), primary_key=True),
        sa.Column("meter", sa.String(64), primary_key=True),
        sa.Column("owner", sa.String(64)),
        sa.Column("records_count", sa.BigInteger(), nullable=False),
        sa.Column("last_number", sa.BigInteger(), nullable=False),
    )
    op.create_index("ix_meters_owner", "meters", ["owner"])
    op.create_table(
        "postings",
        sa.Column("reference", sa.String(256), primary_key=True),
        sa.Column("debit", sa.String(96), nullable=False),
        sa.Column("credit", sa.String(96), nullable=False),
        sa.Column("micros", sa.BigInteger(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("debit <> credit", name="two_accounts"),
    )
    op.create_index("ix_postings_credit", "postings", ["credit"])
    op.create_index("ix_postings_debit", "postings", ["debit"])
    op.create_table(
        "tallies",
        sa.Column("reservation", sa.String(64), primary_key=True),
        sa.Column("cloudlet", sa.String(64), primary_key=True),
        sa.Column("terms", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("meter", sa.String(16), primary_key=True),
        sa.Column("band", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("quantity", sa.BigInteger(), nullable=False),
        sa.Column("billed", sa.BigInteger(), nullable=False),
        sa.Column("price_micros", sa.BigInteger(), nullable=False),
        sa.Column("price_units", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("billed <= quantity", name="billed_most"),
    )
    op.create_table(
        "usage",
        sa.Column("cloudlet", sa.String(64), primary_key=True),
        sa.Column("meter", sa.String(64), primary_key=True),
        sa.Column("number", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("previous", sa.LargeBinary(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("reservation", sa.String(64), nullable=False),
        sa.Column("terms", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("begin_ms", sa.BigInteger(), nullable=False),
        sa.Column("end_ms", sa.BigInteger(), nullable=False),
        sa.Column("quantity", sa.BigInteger(), nullable=False),
        sa.Column("received_ms", sa.BigInteger(), nullable=False),
        sa.Column("owner", sa.String(64)),
        sa.Column("not_billed", sa.String(32)),
        sa.Column("bill", sa.BigInteger()),
    )
    op.create_index("ix_usage_owner_bill_end_ms", "usage", ["owner", "bill", "end_ms"])
    op.create_index(
        "ix_usage_reservation_cloudlet_meter_number",
        "usage",
        ["reservation", "cloudlet", "meter", "number"],
    )
    op.create_table(
        "bills",
        sa.Column("owner", sa.String(64), sa.ForeignKey("principals.name"), primary_key=True),
        sa.Column("number", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("begin_ms", sa.BigInteger(), nullable=False),
        sa.Column("end_ms", sa.BigInteger(), nullable=False),
        sa.Column("total_micros", sa.BigInteger(), nullable=False),
        sa.Column("made_ms", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
    )
    op.create_index("ix_bills_made_ms", "bills", ["made_ms"])
