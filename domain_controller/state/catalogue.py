"""What was published: documents of rules with their proofs, and versions of price lists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, insert, literal, select, tuple_, update

from packetcloud.domain_controller.core.prices import PriceList
from packetcloud.domain_controller.state.documents import dump, load
from packetcloud.domain_controller.state.errors import ConflictError
from packetcloud.domain_controller.state.tables import PRICE_LISTS, RULE_SETS
from packetcloud.domain_controller.state.transaction import Transaction

MAX_SETS_COUNT = 256
"""Documents of rules in force, of one owner."""
MAX_LISTED_COUNT = 1000


@dataclass(frozen=True, slots=True)
class RuleSet:
    """A signed document of rules that was proven, and the cloudlets that it goes to."""

    id: str
    owner: str
    signer: str
    name: str
    serial: int
    items_count: int
    cloudlets: tuple[str, ...]
    """Empty: all on which its owner has places."""
    digest: bytes
    made_ms: int


@dataclass(frozen=True, slots=True)
class _Sent:
    items_count: int
    cloudlets: tuple[str, ...]


def put_rule_set(transaction: Transaction, rule_set: RuleSet, text: str) -> None:
    """Keep a document of rules, in place of an older one of the same signer and name.

    Raises:
        ConflictError: it is not newer than the one that is known, or there are too many.
    """
    connection = transaction.connection
    of_name = (RULE_SETS.c.signer == rule_set.signer) & (RULE_SETS.c.name == rule_set.name)
    known = connection.execute(
        select(RULE_SETS.c.id, RULE_SETS.c.serial, RULE_SETS.c.owner).where(of_name)
    ).one_or_none()
    if known is not None and known.serial >= rule_set.serial:
        raise ConflictError(
            f"set {rule_set.name!r} has serial {known.serial} already; allowed: a higher one"
        )
    if known is not None and known.owner != rule_set.owner:
        raise ConflictError(f"set {rule_set.name!r} of this key belongs to another tenant")
    query = select(func.count()).select_from(RULE_SETS)
    in_force = (RULE_SETS.c.owner == rule_set.owner) & RULE_SETS.c.is_withdrawn.is_(False)
    count = connection.execute(query.where(in_force, ~of_name)).scalar_one()
    if count >= MAX_SETS_COUNT:
        raise ConflictError(
            f"{rule_set.owner!r} has {MAX_SETS_COUNT} sets of rules, as many as it may"
        )
    row = {
        "id": rule_set.id,
        "owner": rule_set.owner,
        "signer": rule_set.signer,
        "name": rule_set.name,
        "serial": rule_set.serial,
        "made_ms": transaction.now_ms,
        "is_withdrawn": False,
        "digest": rule_set.digest,
        "document": dump(_Sent(rule_set.items_count, rule_set.cloudlets)),
        "text": text,
    }
    if known is None:
        connection.execute(insert(RULE_SETS), row)
    else:
        connection.execute(update(RULE_SETS).where(RULE_SETS.c.id == known.id).values(**row))


def withdraw_rule_set(transaction: Transaction, id_: str, owner: str | None) -> bool:
    """Let a set be in force no more; its serial stays known. Tell whether it was in force."""
    change = update(RULE_SETS).where(RULE_SETS.c.id == id_, RULE_SETS.c.is_withdrawn.is_(False))
    if owner is not None:
        change = change.where(RULE_SETS.c.owner == owner)
    return transaction.connection.execute(change.values(is_withdrawn=True)).rowcount == 1


def find_rule_set(
    connection: Connection, id_: str, owner: str | None = None
) -> tuple[RuleSet, str] | None:
    """Return a set that is in force, and its text."""
    query = select(RULE_SETS).where(RULE_SETS.c.id == id_, RULE_SETS.c.is_withdrawn.is_(False))
    if owner is not None:
        query = query.where(RULE_SETS.c.owner == owner)
    row = connection.execute(query).one_or_none()
    return (_rule_set(row), row.text) if row else None


def rule_sets(
    connection: Connection,
    owner: str | None = None,
    before: tuple[int, str] | None = None,
    limit: int = MAX_LISTED_COUNT,
) -> list[RuleSet]:
    """Return sets that are in force, the newest first.

    Args:
        before: (made_ms, id) of the last one that was read.
    """
    columns = [column for column in RULE_SETS.c if column.name != "text"]
    query = select(*columns).where(RULE_SETS.c.is_withdrawn.is_(False))
    if owner is not None:
        query = query.where(RULE_SETS.c.owner == owner)
    if before is not None:
        query = query.where(
            tuple_(RULE_SETS.c.made_ms, RULE_SETS.c.id) < tuple_(*map(literal, before))
        )
    newest_first = RULE_SETS.c.made_ms.desc(), RULE_SETS.c.id.desc()
    rows = connection.execute(query.order_by(*newest_first).limit(min(limit, MAX_LISTED_COUNT)))
    return [_rule_set(row) for row in rows]


def put_price_list(transaction: Transaction, prices: PriceList, from_ms: int) -> bool:
    """Let a price list be valid from a time; False: it is known already.

    Raises:
        ConflictError: this version has other prices, or is not the newest, or is in another
            currency than the domain's accounts.
    """
    of_name = PRICE_LISTS.c.name == prices.name
    query = select(PRICE_LISTS.c.version, PRICE_LISTS.c.digest).where(of_name)
    known = {row.version: bytes(row.digest) for row in transaction.connection.execute(query)}
    if known.get(prices.version) == prices.digest:
        return False
    if known and prices.version <= max(known):
        raise ConflictError(
            f"price list {prices.name!r} has version {max(known)}, and what is published does not "
            f"change; publish it as version {max(known) + 1}"
        )
    other = price_list_at(transaction.connection, from_ms)
    if other is not None and other.currency.code != prices.currency.code:
        raise ConflictError(
            f"price list {prices.name!r} is in {prices.currency.code}, and {other.name!r} is in "
            f"{other.currency.code}: a domain's accounts and bills have one currency"
        )
    transaction.connection.execute(
        insert(PRICE_LISTS),
        {
            "name": prices.name,
            "version": prices.version,
            "digest": prices.digest,
            "from_ms": from_ms,
            "document": dump(prices),
        },
    )
    return True


def find_price_list(connection: Connection, name: str, version: int) -> PriceList | None:
    query = select(PRICE_LISTS.c.document)
    of_version = (PRICE_LISTS.c.name == name) & (PRICE_LISTS.c.version == version)
    text = connection.execute(query.where(of_version)).scalar_one_or_none()
    return None if text is None else load(PriceList, text)


def price_list_at(connection: Connection, at_ms: int) -> PriceList | None:
    """Return the list that is valid at a time: the one that began last.

    Before all of them it is the first one: a clock that was ahead then must not stop all sales.
    """
    query = select(PRICE_LISTS.c.document)
    newest_first = PRICE_LISTS.c.from_ms.desc(), PRICE_LISTS.c.version.desc()
    valid = query.where(PRICE_LISTS.c.from_ms <= at_ms).order_by(*newest_first)
    text = connection.execute(valid.limit(1)).scalar_one_or_none()
    if text is None:
        oldest_first = PRICE_LISTS.c.from_ms, PRICE_LISTS.c.version
        text = connection.execute(query.order_by(*oldest_first).limit(1)).scalar_one_or_none()
    return None if text is None else load(PriceList, text)


def _rule_set(row: Any) -> RuleSet:
    sent = load(_Sent, row.document)
    return RuleSet(
        row.id,
        row.owner,
        row.signer,
        row.name,
        row.serial,
        sent.items_count,
        sent.cloudlets,
        bytes(row.digest),
        row.made_ms,
    )
