"""The tables of money: what was used, what that costs, what was billed. Amounts: millionths."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
)

from packetcloud.domain_controller.state.tables import METADATA

USAGE = Table(
    "usage",
    METADATA,
    Column("cloudlet", String(64), primary_key=True),
    Column("meter", String(64), primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("previous", LargeBinary, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("reservation", String(64), nullable=False),
    Column("terms", BigInteger, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("begin_ms", BigInteger, nullable=False),
    Column("end_ms", BigInteger, nullable=False),
    Column("quantity", BigInteger, nullable=False),
    Column("received_ms", BigInteger, nullable=False),
    Column("owner", String(64)),  # none: there is no such reservation
    Column("not_billed", String(32)),  # why, if not all of it is
    Column("bill", BigInteger),  # the number of its owner's bill
    Column("signature", LargeBinary),  # none: it came before signatures were kept
    Column("signed_by", LargeBinary),  # public key
    Index(None, "owner", "bill", "end_ms"),
    Index(None, "reservation", "cloudlet", "meter", "number"),
)

EVIDENCE = Table(
    "evidence",
    METADATA,
    Column("cloudlet", String(64), primary_key=True),
    Column("meter", String(64), primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("digest", LargeBinary, primary_key=True),
    Column("record", LargeBinary, nullable=False),  # as it was signed
    Column("received_ms", BigInteger, nullable=False),
    Column("signature", LargeBinary),
    Column("signed_by", LargeBinary),
)

METERS = Table(
    "meters",
    METADATA,
    Column("cloudlet", String(64), primary_key=True),
    Column("meter", String(64), primary_key=True),
    Column("owner", String(64)),
    Column("records_count", BigInteger, nullable=False),
    Column("last_number", BigInteger, nullable=False),  # more than the count: there are gaps
    Index(None, "owner"),
)

TALLIES = Table(
    "tallies",
    METADATA,
    Column("reservation", String(64), primary_key=True),
    Column("cloudlet", String(64), primary_key=True),
    Column("terms", BigInteger, primary_key=True, autoincrement=False),
    Column("meter", String(16), primary_key=True),
    Column("band", Integer, primary_key=True, autoincrement=False),
    Column("quantity", BigInteger, nullable=False),
    Column("billed", BigInteger, nullable=False),  # the quantity on bills so far
    Column("price_micros", BigInteger, nullable=False),
    Column("price_units", BigInteger, nullable=False),
    CheckConstraint("billed <= quantity", name="billed_most"),
)

POSTINGS = Table(
    "postings",
    METADATA,
    Column("reference", String(256), primary_key=True),  # one record or bill posts once
    Column("debit", String(96), nullable=False),
    Column("credit", String(96), nullable=False),
    Column("micros", BigInteger, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    CheckConstraint("debit <> credit", name="two_accounts"),
    Index(None, "debit"),
    Index(None, "credit"),
)

BILLS = Table(
    "bills",
    METADATA,
    Column("owner", ForeignKey("principals.name"), primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("begin_ms", BigInteger, nullable=False),
    Column("end_ms", BigInteger, nullable=False),
    Column("total_micros", BigInteger, nullable=False),
    Column("made_ms", BigInteger, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("document", Text, nullable=False),
    Index(None, "made_ms"),
)
