"""What was published: documents of rules with their proofs, and versions of price lists."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    exists,
    func,
    insert,
    literal,
    select,
    tuple_,
    update,
)

from packetcloud.domain_controller.core.installations import RulesState
from packetcloud.domain_controller.core.prices import PriceList
from packetcloud.domain_controller.core.slots import DAY_MS
from packetcloud.domain_controller.state.documents import dump, load
from packetcloud.domain_controller.state.errors import ConflictError
from packetcloud.domain_controller.state.tables import PRICE_LISTS, RULE_DIRECTIVES, RULE_SETS
from packetcloud.domain_controller.state.transaction import Transaction

MAX_SETS_COUNT = 256
"""Documents of rules in force, of one owner."""
MAX_LISTED_COUNT = 1000
WITHDRAWAL_MS = 30 * DAY_MS
"""A router that was away for longer may have a set again that was withdrawn meanwhile."""


@dataclass(frozen=True, slots=True)
class RuleSet:
    """A signed document of rules that was proven, and the cloudlets that it goes to."""

    id: str
    """Stays over newer documents of the set."""
    owner: str
    signer: str
    name: str
    serial: int
    items_count: int
    cloudlets: tuple[str, ...]
    """These, and those of `regions`; both empty: all."""
    digest: bytes
    made_ms: int
    regions: tuple[str, ...] = ()
    rules_count: int = 1
    """0: the set is withdrawn."""
    until_ms: int | None = None
    """From then on nothing of it holds, nor of what was in its place; None: never."""

    @property
    def is_withdrawn(self) -> bool:
        return self.rules_count == 0

    def goes_to(self, cloudlet: str, region: str) -> bool:
        """Tell whether a cloudlet's router is to have it."""
        is_named = cloudlet in self.cloudlets or region in self.regions
        return is_named or not (self.cloudlets or self.regions)


@dataclass(frozen=True, slots=True)
class _Sent:
    items_count: int
    cloudlets: tuple[str, ...]
    regions: tuple[str, ...] = ()
    rules_count: int = 0
    is_distributed: bool = False
    """Sets that came before there was distribution are not."""


def put_rule_set(transaction: Transaction, rule_set: RuleSet, text: str) -> RuleSet:
    """Keep a document of rules, in place of an older one of the same signer and name.

    Returns it with the id that the set has, and with an end that covers what it replaces.

    Raises:
        ConflictError: it is not newer than the one that is known, or there are too many; or it
            withdraws what is not there.
    """
    connection = transaction.connection
    of_name = (RULE_SETS.c.signer == rule_set.signer) & (RULE_SETS.c.name == rule_set.name)
    known = connection.execute(
        select(
            *(RULE_SETS.c.id, RULE_SETS.c.serial, RULE_SETS.c.owner, RULE_SETS.c.until_ms)
        ).where(of_name)
    ).one_or_none()
    if known is not None and known.serial >= rule_set.serial:
        raise ConflictError(
            f"set {rule_set.name!r} has serial {known.serial} already; allowed: a higher one"
        )
    if known is not None and known.owner != rule_set.owner:
        raise ConflictError(f"set {rule_set.name!r} of this key belongs to another tenant")
    if known is None and rule_set.is_withdrawn:
        raise ConflictError(
            f"there is no set {rule_set.name!r} of this key to withdraw; see: packetcloud domain "
            "rule list"
        )
    query = select(func.count()).select_from(RULE_SETS)
    in_force = (RULE_SETS.c.owner == rule_set.owner) & _in_force(transaction.now_ms)
    count = connection.execute(query.where(in_force, ~of_name)).scalar_one()
    if count >= MAX_SETS_COUNT and not rule_set.is_withdrawn:
        raise ConflictError(
            f"{rule_set.owner!r} has {MAX_SETS_COUNT} sets of rules, as many as it may"
        )
    if known is not None:
        rule_set = replace(rule_set, id=known.id, until_ms=_later(rule_set, known.until_ms))
    if rule_set.is_withdrawn:
        longest_ms = transaction.now_ms + WITHDRAWAL_MS
        rule_set = replace(rule_set, until_ms=min(rule_set.until_ms or longest_ms, longest_ms))
    sent = _Sent(
        rule_set.items_count, rule_set.cloudlets, rule_set.regions, rule_set.rules_count, True
    )
    row = {
        "id": rule_set.id,
        "owner": rule_set.owner,
        "signer": rule_set.signer,
        "name": rule_set.name,
        "serial": rule_set.serial,
        "made_ms": transaction.now_ms,
        "is_withdrawn": rule_set.is_withdrawn,
        "digest": rule_set.digest,
        "document": dump(sent),
        "text": text,
        "until_ms": rule_set.until_ms,
    }
    if known is None:
        connection.execute(insert(RULE_SETS), row)
    else:
        connection.execute(update(RULE_SETS).where(RULE_SETS.c.id == known.id).values(**row))
    return rule_set


def _later(rule_set: RuleSet, until_ms: int | None) -> int | None:
    """Return the later of two ends; what has no rules adds none."""
    if rule_set.is_withdrawn or until_ms is None:
        return until_ms
    return None if rule_set.until_ms is None else max(rule_set.until_ms, until_ms)


def _in_force(now_ms: int) -> ColumnElement[bool]:
    lasts = RULE_SETS.c.until_ms.is_(None) | (RULE_SETS.c.until_ms > now_ms)
    return RULE_SETS.c.is_withdrawn.is_(False) & lasts


def rule_sets_for(
    connection: Connection, cloudlet: str, region: str, now_ms: int
) -> dict[str, int]:
    """Return the serials of the sets that a new cloudlet is to have, by id."""
    columns = [column for column in RULE_SETS.c if column.name != "text"]
    rows = connection.execute(select(*columns).where(_in_force(now_ms)))
    return {
        row.id: row.serial
        for row in rows
        if load(_Sent, row.document).is_distributed and _rule_set(row).goes_to(cloudlet, region)
    }


def find_rule_set(
    connection: Connection, id_: str, owner: str | None = None
) -> tuple[RuleSet, str] | None:
    """Return the newest document of a set, and its text; also one that withdraws it."""
    query = select(RULE_SETS).where(RULE_SETS.c.id == id_)
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
    """Return sets that are in force or that routers still may have, the newest first.

    Args:
        before: (made_ms, id) of the last one that was read.
    """
    columns = [column for column in RULE_SETS.c if column.name != "text"]
    is_somewhere = exists().where(
        RULE_DIRECTIVES.c.rule_set == RULE_SETS.c.id,
        RULE_DIRECTIVES.c.state != RulesState.INSTALLED.value,
    )
    query = select(*columns).where(RULE_SETS.c.is_withdrawn.is_(False) | is_somewhere)
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
        sent.regions,
        sent.rules_count,
        row.until_ms,
    )
