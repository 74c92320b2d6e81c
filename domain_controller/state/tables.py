"""The tables of promises: who there is, what is reserved, who owns what. Times: ms since 1970, UTC.

Values that only the core reads are JSON text of its making (`document`); what a query or a
constraint looks at has a column. Amounts are integers everywhere.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _at_least(column: str, least: int) -> CheckConstraint:
    return CheckConstraint(f"{column} >= {least}", name=f"{column}_least")


PRINCIPALS = Table(
    "principals",
    METADATA,
    Column("name", String(64), primary_key=True),  # of a cloudlet's principal: the cloudlet's
    Column("role", String(16), nullable=False),
    Column("made_ms", BigInteger, nullable=False),
    Column("document", Text, nullable=False),
    Index(None, "role", "name"),
)

KEYS = Table(
    "keys",
    METADATA,
    Column("id", String(128), primary_key=True),
    Column("principal", ForeignKey("principals.name"), nullable=False),
    Column("public_key", LargeBinary, nullable=False),
    Column("from_ms", BigInteger, nullable=False),
    Column("until_ms", BigInteger, nullable=False),
    Column("revoked_ms", BigInteger),
    Index(None, "principal"),
)

VI_TYPES = Table(
    "vi_types",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("changed_ms", BigInteger, nullable=False),
    Column("document", Text, nullable=False),
)

CLOUDLETS = Table(
    "cloudlets",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("region", String(64)),
    Column("made_ms", BigInteger, nullable=False),
    Column("document", Text, nullable=False),
    # Every change of a hold gets the next number: what a reader knows is old if this is higher.
    Column("change", BigInteger, nullable=False, server_default=text("0")),
)

REPORTS = Table(
    "reports",
    METADATA,
    Column("cloudlet", ForeignKey("cloudlets.name"), primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("document", Text, nullable=False),
)

SERVICES = Table(
    "services",
    METADATA,
    Column("sid", String(40), primary_key=True),
    Column("owner", ForeignKey("principals.name"), nullable=False),
    Column("name", String(64), nullable=False),
    Column("made_ms", BigInteger, nullable=False),
    Column("until_ms", BigInteger, nullable=False),
    Column("document", Text, nullable=False),
    UniqueConstraint("owner", "name"),
)

RULE_SETS = Table(
    "rule_sets",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("owner", ForeignKey("principals.name"), nullable=False),
    Column("signer", String(40), nullable=False),
    Column("name", String(64), nullable=False),
    Column("serial", BigInteger, nullable=False),
    Column("made_ms", BigInteger, nullable=False),
    Column("is_withdrawn", Boolean, nullable=False, server_default=false()),
    Column("digest", LargeBinary, nullable=False),
    Column("document", Text, nullable=False),
    Column("text", Text, nullable=False),  # as it was signed
    Column("until_ms", BigInteger),  # when nothing of it holds any more; none: never
    UniqueConstraint("signer", "name"),
    Index(None, "owner"),
)

PRICE_LISTS = Table(
    "price_lists",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("digest", LargeBinary, nullable=False),
    Column("from_ms", BigInteger, nullable=False),
    Column("document", Text, nullable=False),
)

RESERVATIONS = Table(
    "reservations",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("owner", ForeignKey("principals.name"), nullable=False),
    Column("state", String(16), nullable=False),
    Column("due_ms", BigInteger),  # when its deadline passes; none: never
    Column("made_ms", BigInteger, nullable=False),
    Column("version", Integer, nullable=False),
    Column("document", Text, nullable=False),
    Index(None, "owner", "made_ms"),
    Index(None, "due_ms"),
    Index(None, "made_ms"),
)

HOLDS = Table(
    "holds",
    METADATA,
    Column("cloudlet", ForeignKey("cloudlets.name"), primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("reservation", ForeignKey("reservations.name"), nullable=False),
    Column("owner", String(64), nullable=False),
    Column("is_third_party", Boolean, nullable=False),
    Column("begin_ms", BigInteger, nullable=False),
    Column("end_ms", BigInteger, nullable=False),
    Column("vi_type", String(64), nullable=False),
    Column("vis_count", Integer, nullable=False),
    Column("is_released", Boolean, nullable=False, server_default=false()),
    Column("change", BigInteger, nullable=False),
    CheckConstraint("begin_ms < end_ms", name="slot"),
    _at_least("vis_count", 1),
    Index(None, "cloudlet", "change"),
    Index(None, "reservation"),
)

EVENTS = Table(
    "events",
    METADATA,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("subject", String(128), nullable=False),
    Column("owner", String(64)),
    Column("document", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Index(None, "subject", "number"),
    Index(None, "owner", "number"),
)

HEADS = Table(
    "heads",
    METADATA,
    Column("name", String(32), primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("digest", LargeBinary, nullable=False),
)

OPERATIONS = Table(
    "operations",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("owner", String(64)),
    Column("kind", String(32), nullable=False),
    Column("subject", String(128), nullable=False),
    Column("state", String(16), nullable=False),
    Column("text", Text, nullable=False),  # why it failed
    Column("made_ms", BigInteger, nullable=False),
    Column("changed_ms", BigInteger, nullable=False),
    Index(None, "subject", "made_ms"),
    Index(None, "state", "changed_ms"),
)

ANSWERS = Table(
    "answers",
    METADATA,
    Column("principal", String(64), primary_key=True),
    Column("key", String(128), primary_key=True),
    Column("digest", LargeBinary, nullable=False),
    Column("status", Integer, nullable=False),
    Column("body", Text, nullable=False),
    Column("made_ms", BigInteger, nullable=False),
    Index(None, "made_ms"),
)

NONCES = Table(
    "nonces",
    METADATA,
    Column("key", String(128), primary_key=True),
    Column("nonce", String(128), primary_key=True),
    Column("until_ms", BigInteger, nullable=False),
    Index(None, "until_ms"),
)

OWNERSHIPS = Table(
    "ownerships",
    METADATA,
    Column("name", String(128), primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("until_ms", BigInteger),  # a lease's end; none: until somebody else takes it
    _at_least("epoch", 1),
)

DIRECTIVES = Table(
    "directives",
    METADATA,
    Column("cloudlet", ForeignKey("cloudlets.name"), primary_key=True),
    Column("reservation", ForeignKey("reservations.name"), primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("is_answered", Boolean, nullable=False),
    Column("made_ms", BigInteger, nullable=False),
    Column("epoch", BigInteger),  # of the owner that sent it last
    Column("sent_ms", BigInteger),
    Column("document", Text, nullable=False),
    Index(None, "cloudlet", "is_answered", "made_ms"),
    Index(None, "reservation"),
)

RULE_DIRECTIVES = Table(
    "rule_directives",
    METADATA,
    Column("cloudlet", ForeignKey("cloudlets.name"), primary_key=True),
    Column("rule_set", ForeignKey("rule_sets.id"), primary_key=True),
    Column("serial", BigInteger, nullable=False),  # of the document that it is to have
    Column("is_answered", Boolean, nullable=False),
    Column("state", String(16), nullable=False),
    Column("changed_ms", BigInteger, nullable=False),
    Column("epoch", BigInteger),  # of the owner that sent it last
    Column("sent_ms", BigInteger),
    Column("document", Text, nullable=False),  # what the cloudlet said last; empty: nothing
    Index(None, "is_answered", "cloudlet"),
    Index(None, "rule_set"),
)
