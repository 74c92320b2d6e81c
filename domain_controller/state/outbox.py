"""Directives to cloudlets: written with what decided them, sent by the owner until answered.

For each reservation a cloudlet has one directive, the last; a newer one takes its place. Its
number grows with each, so a cloudlet knows an old one. Sending and answering depend on the owner's
epoch: a controller that was stopped and goes on does neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, bindparam, delete, select, update

from packetcloud.domain_controller.core.reservations import Directive
from packetcloud.domain_controller.state.documents import dump, load
from packetcloud.domain_controller.state.ownership import Ownership, require
from packetcloud.domain_controller.state.rows import upserting
from packetcloud.domain_controller.state.tables import DIRECTIVES
from packetcloud.domain_controller.state.transaction import Transaction

MAX_SENT_COUNT = 256
"""Directives that one reading returns."""
_NAMES_AT_ONCE = 500


def replace(
    transaction: Transaction,
    reservation: str,
    before: Iterable[Directive],
    after: Iterable[Directive],
) -> None:
    """Have these directives of a reservation in place of those."""
    old = {one.cloudlet: one for one in before}
    new = {one.cloudlet: one for one in after}
    for cloudlet, one in sorted(new.items()):
        if old.get(cloudlet) == one:
            continue
        row = {
            "cloudlet": cloudlet,
            "reservation": reservation,
            "number": one.number,
            "is_answered": one.is_answered,
            "made_ms": transaction.now_ms,
            "epoch": None,
            "sent_ms": None,
            "document": dump(one),
        }
        transaction.add(upserting(transaction.dialect, DIRECTIVES, tuple(row)), row)
    for cloudlet in sorted(old.keys() - new.keys()):
        transaction.connection.execute(_FORGET, {"cl": cloudlet, "r": reservation})


def unanswered(
    connection: Connection, cloudlet: str, sent_before_ms: int
) -> list[tuple[str, Directive]]:
    """Return (reservation, directive) of what waits for its answer, the oldest first.

    Args:
        sent_before_ms: without what was sent since; it may still be answered.
    """
    was_sent = DIRECTIVES.c.sent_ms >= sent_before_ms
    query = (
        select(DIRECTIVES.c.reservation, DIRECTIVES.c.document)
        .where(DIRECTIVES.c.cloudlet == cloudlet, DIRECTIVES.c.is_answered.is_(False))
        .where(DIRECTIVES.c.sent_ms.is_(None) | ~was_sent)
        .order_by(DIRECTIVES.c.made_ms, DIRECTIVES.c.reservation)
        .limit(MAX_SENT_COUNT)
    )
    return [(row.reservation, load(Directive, row.document)) for row in connection.execute(query)]


def waiting(
    connection: Connection, cloudlets: Sequence[str], sent_before_ms: int
) -> frozenset[str]:
    """Return which of these cloudlets have a directive that waits for its answer.

    Args:
        sent_before_ms: as of `unanswered`.
    """
    found: set[str] = set()
    for start in range(0, len(cloudlets), _NAMES_AT_ONCE):
        query = (
            select(DIRECTIVES.c.cloudlet)
            .distinct()
            .where(DIRECTIVES.c.cloudlet.in_(cloudlets[start : start + _NAMES_AT_ONCE]))
            .where(DIRECTIVES.c.is_answered.is_(False))
            .where(DIRECTIVES.c.sent_ms.is_(None) | (DIRECTIVES.c.sent_ms < sent_before_ms))
        )
        found.update(connection.execute(query).scalars())
    return frozenset(found)


def note_sent(
    transaction: Transaction, owner: Ownership, cloudlet: str, reservations: Sequence[str]
) -> None:
    """Note that the directives of these reservations are about to be sent.

    Raises:
        StaleOwnerError: another controller owns the cloudlet.
    """
    require(transaction, owner)
    transaction.connection.execute(
        update(DIRECTIVES)
        .where(DIRECTIVES.c.cloudlet == cloudlet, DIRECTIVES.c.reservation.in_(reservations))
        .values(sent_ms=transaction.now_ms, epoch=owner.epoch)
    )


_FORGET = delete(DIRECTIVES).where(
    DIRECTIVES.c.cloudlet == bindparam("cl"), DIRECTIVES.c.reservation == bindparam("r")
)
