"""Places of one cloudlet, reserved by the state's own parts, and the judge of what came of it.

`naive` is how it must not be done: one transaction looks, another one inserts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import insert, select, update

from packetcloud.domain_controller.core.calendar import Demand, Hold
from packetcloud.domain_controller.core.cloudlets import Cloudlet
from packetcloud.domain_controller.core.packing import NodeRoom
from packetcloud.domain_controller.core.principals import Principal, Role
from packetcloud.domain_controller.core.reservations import Reservation, State
from packetcloud.domain_controller.core.resources import Resources, ViType
from packetcloud.domain_controller.core.slots import Slot
from packetcloud.domain_controller.core.wishes import Wish
from packetcloud.domain_controller.state import answers, documents, holds, journal, registry
from packetcloud.domain_controller.state.answers import Answer, Asked
from packetcloud.domain_controller.state.database import Database
from packetcloud.domain_controller.state.tables import ANSWERS, HOLDS, RESERVATIONS
from packetcloud.domain_controller.state.transaction import Transaction, Work
from packetcloud.domain_controller.state.writer import Writer

CLOUDLET = "c1"
TENANT = "acme"
CAPACITY = 50
ROUND_MS = 10_000
FIRST_MS = 2_000_000_000_000
SMALL = ViType("small", Resources(1000, 1 << 30, 1 << 30))
ROOMS = (NodeRoom(*[SMALL.resources.times(CAPACITY // 2)] * 2),) * 2
"""Two nodes that have 50 places together."""
TYPES = {SMALL.name: SMALL}
RESERVED = 201
FULL = 409
GONE = 404


@dataclass(frozen=True)
class Place:
    """One place that somebody wants in a round."""

    name: str
    round_: int = 0

    @property
    def hold(self) -> Hold:
        begin_ms = FIRST_MS + self.round_ * ROUND_MS
        return Hold(CLOUDLET, self.name, TENANT, begin_ms, begin_ms + ROUND_MS, SMALL.name, 1)

    @property
    def wish(self) -> Wish:
        return Wish(SMALL.name, 1, Slot(self.hold.begin_ms, self.hold.end_ms))


def set_up(transaction: Transaction) -> None:
    """Make the cloudlet and the tenant."""
    if registry.find_cloudlet(transaction.connection, CLOUDLET) is None:
        registry.add_cloudlet(transaction, Cloudlet(CLOUDLET, "north"))
        registry.add_principal(transaction, Principal(TENANT, Role.TENANT))


def reserve(place: Place, key: str) -> Work[Answer]:
    """Reserve a place in one transaction, under an idempotency key."""

    def work(transaction: Transaction) -> Answer:
        def act() -> Answer:
            if not has_room(transaction, place):
                return Answer(FULL, place.name)
            return insert_place(transaction, place)

        return answers.once(transaction, asked("reserve", place, key), act)

    return work


def cancel(place: Place, key: str) -> Work[Answer]:
    """Give a place back, under an idempotency key."""

    def work(transaction: Transaction) -> Answer:
        def act() -> Answer:
            if not holds.of_reservation(transaction.connection, place.name):
                return Answer(GONE, place.name)
            holds.replace(transaction, [place.hold], [])
            of_name = RESERVATIONS.c.name == place.name
            transaction.connection.execute(
                update(RESERVATIONS).where(of_name).values(state="cancelled")
            )
            transaction.note("cancelled", place.name, TENANT, str(place.round_))
            return Answer(200, place.name)

        return answers.once(transaction, asked("cancel", place, key), act)

    return work


def naive(writer: Writer, place: Place) -> Answer:
    """Look in one transaction, insert in another: what oversells."""
    if not writer.do_blocking(lambda transaction: has_room(transaction, place)):
        return Answer(FULL, place.name)
    return writer.do_blocking(lambda transaction: insert_place(transaction, place))


def has_room(transaction: Transaction, place: Place) -> bool:
    """Ask the core's calendar."""
    calendar = holds.held(transaction, CLOUDLET).calendar(ROOMS, TYPES)
    slot = Slot(place.hold.begin_ms, place.hold.end_ms)
    return calendar.conflict(Demand(SMALL.name, 1), slot) is None


def insert_place(transaction: Transaction, place: Place) -> Answer:
    transaction.connection.execute(
        insert(RESERVATIONS),
        {
            "name": place.name,
            "owner": TENANT,
            "state": "offered",
            "made_ms": transaction.now_ms,
            "version": 1,
            "document": documents.dump(
                Reservation(place.name, TENANT, True, place.wish, transaction.now_ms, State.OFFERED)
            ),
        },
    )
    holds.replace(transaction, [], [place.hold])
    transaction.note("reserved", place.name, TENANT, str(place.round_))
    return Answer(RESERVED, place.name)


def asked(verb: str, place: Place, key: str) -> Asked:
    digest = hashlib.sha256(f"{verb} {place.name} {place.round_}".encode()).digest()
    return Asked(TENANT, key, digest)


def judge(database: Database, check: Callable[[int, int], bool] = int.__le__) -> dict[int, int]:
    """Return how many places each round has in the end, by what is stored alone.

    Raises:
        AssertionError: at some time more places were taken than there are; a place is held
            without its reservation, or the other way round; the journal is not what it was; an
            answer says "reserved" and there is no reservation.
    """
    with database.reading() as connection:
        assert journal.verify(connection) is None
        running: dict[str, int] = {}
        after = 0
        while events := journal.read(connection, after):
            for event in events:
                round_ = event.note.document
                change = {"reserved": 1, "cancelled": -1}[event.note.kind]
                running[round_] = running.get(round_, 0) + change
                assert check(running[round_], CAPACITY), f"round {round_}: oversold"
            after = events[-1].number
        rows = connection.execute(select(HOLDS).where(HOLDS.c.is_released.is_(False))).all()
        held = {row.reservation for row in rows}
        assert len(held) == len(rows), "a place is held twice"
        offered = select(RESERVATIONS.c.name).where(RESERVATIONS.c.state == "offered")
        assert set(connection.execute(offered).scalars()) == held
        everything = set(connection.execute(select(RESERVATIONS.c.name)).scalars())
        said = select(ANSWERS.c.body).where(ANSWERS.c.status == RESERVED)
        assert set(connection.execute(said).scalars()) <= everything
        counts: dict[int, int] = {}
        for row in rows:
            round_number = (row.begin_ms - FIRST_MS) // ROUND_MS
            counts[round_number] = counts.get(round_number, 0) + 1
        assert {int(name): count for name, count in running.items() if count} == counts
        assert all(count <= CAPACITY for count in counts.values())
    return counts
