"""Usage as a cloudlet reports it: only for places that it holds, or held.

Whoever could report for others could not only be paid for nothing: a number far ahead in a meter
of somebody's reservation is a gap, and that tenant's bills would wait for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, select

from packetcloud.domain_controller.core.reservations import Reservation
from packetcloud.domain_controller.core.usage import Taken, UsageRecord
from packetcloud.domain_controller.state import usage
from packetcloud.domain_controller.state.money_tables import USAGE
from packetcloud.domain_controller.state.ownership import Ownership
from packetcloud.domain_controller.state.transaction import Transaction


def take_from(
    transaction: Transaction,
    owner: Ownership,
    cloudlet: str,
    records: Sequence[UsageRecord],
    signatures: usage.Signatures = usage.NO_SIGNATURES,
) -> list[Taken | None]:
    """Take the records of a cloudlet; return for each, in order, what became of it.

    None: its terms are asked for and not agreed on yet, so whether it is billed is not known; it
    is to come again.

    Args:
        signatures: that were found right.

    Raises:
        StaleOwnerError: another controller owns the cloudlet's channel.
    """
    connection = transaction.connection
    known = usage.known_reservations(connection, {one.reservation for one in records})
    counted_for = _reservations_of(connection, cloudlet, {one.meter for one in records})
    outcomes: list[Taken | None] = []
    right = []
    for record in records:
        reservation = known.get(record.reservation)
        if not (
            record.cloudlet == cloudlet
            and reservation is not None
            and _had_a_place(reservation, cloudlet)
            and counted_for.setdefault(record.meter, record.reservation) == record.reservation
        ):
            outcomes.append(Taken.REFUSED)
        elif _is_asked_for(reservation, record.terms):
            outcomes.append(None)
        else:
            outcomes.append(Taken.NEW)
            right.append(record)
    taken = iter(usage.take(transaction, owner, right, signatures) if right else [])
    return [next(taken) if one is Taken.NEW else one for one in outcomes]


def _had_a_place(reservation: Reservation, cloudlet: str) -> bool:
    """Tell whether a cloudlet is, or was, told to hold places of a reservation."""
    asked = (reservation.change.terms,) if reservation.change is not None else ()
    return any(terms.part(cloudlet) is not None for terms in (*reservation.terms, *asked))


def _is_asked_for(reservation: Reservation, terms: int) -> bool:
    """Tell whether a change to these terms is under way: it may still be given up.

    What was posted by then would be on no bill, which knows agreed terms alone.
    """
    return reservation.change is not None and reservation.change.terms.number == terms


def _reservations_of(
    connection: Connection, cloudlet: str, meters: Iterable[str]
) -> dict[str, str]:
    """Return for which reservation each of these meters counts, as far as it did before."""
    found: dict[str, str] = {}
    for meter in meters:
        query = select(USAGE.c.reservation)
        query = query.where(USAGE.c.cloudlet == cloudlet, USAGE.c.meter == meter).limit(1)
        if (reservation := connection.execute(query).scalar_one_or_none()) is not None:
            found[meter] = reservation
    return found
