"""Reservations in one transaction each: held with the offer, told to cloudlets, given back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from packetcloud.domain_controller.core.events import Answered, Cancelled, Event, Tick
from packetcloud.domain_controller.core.reservations import Reservation, State, Wanted
from packetcloud.domain_controller.core.slots import HOUR_MS
from packetcloud.domain_controller.core.wishes import Wish
from packetcloud.domain_controller.errors import InvalidValueError, LifeError
from packetcloud.domain_controller.state import (
    booking,
    holds,
    journal,
    operations,
    outbox,
    ownership,
    reservations,
)
from packetcloud.domain_controller.state.database import Database
from packetcloud.domain_controller.state.errors import ConflictError, StaleOwnerError
from packetcloud.domain_controller.state.operations import OperationState
from packetcloud.domain_controller.state.transaction import Transaction
from packetcloud.domain_controller.state.writer import Writer
from packetcloud.testbed.private_postgresql import PrivatePostgresql
from tests.system.domain_databases import url
from tests.system.domain_world import BEGIN_MS, NOW_MS, PLACES, register, wish, world

__all__ = ["url"]


class Desk:
    """A controller: its database, its writer, its time."""

    def __init__(self, url: str) -> None:
        self.now_ms = NOW_MS
        self.database = Database(url)
        self.writer = Writer(self.database, lambda: self.now_ms)

    def request(self, name: str, asked: Wish, tenant: str = "acme") -> Reservation:
        surroundings = world(now_ms=self.now_ms)
        return self.writer.do_blocking(
            lambda work: booking.request(work, surroundings, name, tenant, True, asked),
            surroundings.could_take(asked),
        )

    def handle(self, name: str, event: Event) -> Reservation:
        def work(transaction: Transaction) -> Reservation:
            kept = reservations.lock(transaction, name)
            assert kept is not None
            return booking.handle(transaction, world(now_ms=self.now_ms), kept, event)

        return self.writer.do_blocking(work)

    def answer_all(self, name: str, is_accepted: bool = True) -> Reservation:
        reservation = self.find(name)
        for one in reservation.pending:
            reservation = self.handle(
                name, Answered(one.cloudlet, one.number, is_accepted, "no room")
            )
        return reservation

    def find(self, name: str) -> Reservation:
        with self.database.reading() as connection:
            kept = reservations.find(connection, name)
        assert kept is not None
        return kept.reservation

    def told(self, cloudlet: str) -> list[tuple[str, Wanted]]:
        with self.database.reading() as connection:
            found = outbox.unanswered(connection, cloudlet, sent_before_ms=self.now_ms)
        return [(name, directive.wanted) for name, directive in found]

    def held(self, name: str) -> dict[str, int]:
        with self.database.reading() as connection:
            return {hold.cloudlet: hold.count for hold in holds.of_reservation(connection, name)}

    def close(self) -> None:
        self.writer.close()
        self.database.close()


@pytest.fixture
def desk(url: str) -> Iterator[Desk]:
    made = Desk(url)
    made.writer.do_blocking(register)
    yield made
    made.close()


def test_a_life_from_request_to_its_end(desk: Desk) -> None:
    """Offered and held at once; confirmed, active, ended as cloudlet and clock say; told what to
    do each time; every change in the journal, with the holds and directives it brought."""
    made = desk.request("r1", wish(2))
    assert made.state is State.OFFERED and made.terms[0].parts[0].count == 2
    assert desk.held("r1") == {"c1": 2} and desk.told("c1") == [("r1", Wanted.HELD)]
    assert desk.find("r1") == made
    assert desk.answer_all("r1").state is State.CONFIRMED
    assert desk.told("c1") == []
    with desk.database.reading() as connection:
        assert reservations.next_due_ms(connection) == BEGIN_MS
        assert reservations.due(connection, BEGIN_MS - 1) == []
        assert reservations.due(connection, BEGIN_MS) == ["r1"]
    desk.now_ms = BEGIN_MS
    assert desk.handle("r1", Tick()).state is State.ACTIVE
    assert desk.told("c1") == [("r1", Wanted.RUNNING)]
    desk.answer_all("r1")
    desk.now_ms = BEGIN_MS + HOUR_MS
    assert desk.handle("r1", Tick()).state is State.ENDED
    assert desk.told("c1") == [("r1", Wanted.GONE)]
    assert desk.answer_all("r1").directives == ()
    with desk.database.reading() as connection:
        events = journal.read(connection, subject="r1", owner="acme")
        assert [event.note.document.split('"')[7] for event in events] == [
            *("offered", "confirmed", "active", "ended")
        ]
        assert journal.read(connection, owner="other") == []
        assert journal.verify(connection) is None


def test_what_is_held_is_nobody_elses(desk: Desk) -> None:
    """Both cloudlets fill up; then there is no place, until something is given back."""
    for number in range(2 * PLACES):
        assert desk.request(f"r{number}", wish(), "other").state is State.OFFERED
    late = desk.request("late", wish())
    assert late.state is State.REFUSED and "not enough" in late.text
    assert desk.request("later", wish(begin_ms=BEGIN_MS + HOUR_MS)).state is State.OFFERED
    desk.handle("r0", Cancelled("not needed"))
    assert desk.held("r0") == {} and desk.find("r0").state is State.CANCELLED
    assert desk.request("again", wish()).state is State.OFFERED


def test_a_cloudlet_that_refuses_is_not_asked_again(desk: Desk) -> None:
    """The places move to the other one, in one transaction; the first is told to forget it."""
    desk.request("r1", wish(3))
    assert desk.answer_all("r1", is_accepted=False).state is State.OFFERED
    assert desk.held("r1") == {"c2": 3}
    assert desk.told("c1") == [("r1", Wanted.GONE)] and desk.told("c2") == [("r1", Wanted.HELD)]
    (number,) = [one.number for one in desk.find("r1").pending if one.cloudlet == "c2"]
    assert desk.handle("r1", Answered("c2", number, False, "no")).state is State.REFUSED
    assert desk.held("r1") == {}


def test_a_new_start_knows_what_is_held(desk: Desk, url: str) -> None:
    """What was held before is in the calendar of the next process."""
    desk.request("r1", wish(PLACES, cloudlet="c1"))
    desk.close()
    again = Desk(url)
    try:
        refused = again.request("r2", wish(1, cloudlet="c1"))
        assert refused.state is State.REFUSED
        assert again.request("r3", wish(PLACES, cloudlet="c2")).state is State.OFFERED
    finally:
        again.close()


def test_two_controllers_see_each_others_holds(postgresql: PrivatePostgresql) -> None:
    """Each keeps by heart what is held, and learns what the other did."""
    url = postgresql.make_database()
    one, other = Desk(url), Desk(url)
    try:
        one.writer.do_blocking(register)
        for number in range(PLACES):
            made = (one, other)[number % 2].request(f"r{number}", wish(cloudlet="c1"))
            assert made.state is State.OFFERED
        assert one.request("late", wish(cloudlet="c1")).state is State.REFUSED
        other.handle("r0", Cancelled("not needed"))
        assert one.request("again", wish(cloudlet="c1")).state is State.OFFERED
        assert other.request("late-again", wish(cloudlet="c1")).state is State.REFUSED
    finally:
        one.close()
        other.close()


def test_what_is_refused_leaves_nothing(desk: Desk) -> None:
    """An unknown VI type, an event that the state does not allow: no row, no hold, no event."""
    with pytest.raises(InvalidValueError, match="small"):
        desk.request("r1", Wish("huge", 1, wish().slot))
    desk.request("r2", wish())
    desk.handle("r2", Cancelled("not needed"))
    with pytest.raises(LifeError, match="cancelled"):
        desk.handle("r2", Cancelled("again"))
    with desk.database.reading() as connection:
        assert reservations.find(connection, "r1") is None
        assert len(journal.read(connection)) == 2
        assert reservations.find(connection, "r2", owner="other") is None
        assert [kept.reservation.name for kept in reservations.listed(connection, "acme")] == ["r2"]
        assert reservations.listed(connection, "acme", [State.OFFERED]) == []


def test_a_tenant_has_so_many_reservations_and_no_more(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the cap one is taken, one more is refused, by name and cap; one that ended counts not."""
    monkeypatch.setattr(reservations, "MAX_OPEN_COUNT", 2)
    desk.request("r1", wish())
    desk.request("r2", wish())
    with pytest.raises(ConflictError, match="'acme' has 2 reservations"):
        desk.request("r3", wish())
    assert desk.request("r3", wish(), "other").state is State.OFFERED
    desk.handle("r1", Cancelled("not needed"))
    assert desk.request("r4", wish()).state is State.OFFERED


def test_directives_are_sent_by_the_owner_alone(desk: Desk) -> None:
    """Whoever lost the cloudlet can note nothing; what was sent is due again after a while."""
    desk.request("r1", wish(cloudlet="c1"))
    name = ownership.cloudlet_channel("c1")
    old = desk.writer.do_blocking(lambda work: ownership.take(work, name, "a"))
    new = desk.writer.do_blocking(lambda work: ownership.take(work, name, "b"))
    assert (old.epoch, new.epoch) == (1, 2)
    with pytest.raises(StaleOwnerError, match="b has it as of epoch 2"):
        desk.writer.do_blocking(lambda work: outbox.note_sent(work, old, "c1", ["r1"]))
    desk.writer.do_blocking(lambda work: outbox.note_sent(work, new, "c1", ["r1"]))
    assert desk.told("c1") == []
    desk.now_ms += 1
    assert desk.told("c1") == [("r1", Wanted.HELD)]


def test_a_lease_is_one_owners_until_its_end(desk: Desk) -> None:
    """Prolonged by its owner under the same epoch; taken by another one after it ended."""

    def take(owner: str) -> ownership.Ownership | None:
        return desk.writer.do_blocking(lambda work: ownership.take_lease(work, "bills", owner, 10))

    first = take("a")
    assert first is not None and first.epoch == 1
    assert take("b") is None
    desk.now_ms += 9
    longer = take("a")
    assert longer is not None and (longer.epoch, longer.until_ms) == (1, desk.now_ms + 10)
    desk.now_ms += 10
    second = take("b")
    assert second is not None and second.epoch == 2
    with pytest.raises(StaleOwnerError):
        desk.writer.do_blocking(lambda work: ownership.require(work, first))
    desk.writer.do_blocking(lambda work: ownership.give_back(work, second))
    third = take("a")
    assert third is not None and third.epoch == 3


def test_a_clock_that_is_set_back_does_not_keep_a_lease(desk: Desk) -> None:
    """An owner that ended just before is not waited for until its clock's end."""

    def take(owner: str) -> ownership.Ownership | None:
        return desk.writer.do_blocking(lambda work: ownership.take_lease(work, "bills", owner, 10))

    first = take("a")
    desk.now_ms -= ownership.MAX_SKEW_MS
    assert first is not None and take("b") is None, "two clocks may be so far apart"
    desk.now_ms -= 1
    second = take("b")
    assert second is not None and second.epoch == 2


def test_an_operation_ends_once(desk: Desk) -> None:
    """Its end is kept, whatever is said of it later; others do not see it."""
    begin = desk.writer.do_blocking
    begin(lambda work: operations.begin(work, "o1", "acme", "extend", "r1"))
    assert begin(lambda work: operations.end(work, "o1", OperationState.FAILED, "no room"))
    assert not begin(lambda work: operations.end(work, "o1", OperationState.DONE))
    with desk.database.reading() as connection:
        found = operations.find(connection, "o1", "acme")
        assert found is not None and found == operations.last_of(connection, "r1")
        assert (found.state, found.text) == (OperationState.FAILED, "no room")
        assert operations.find(connection, "o1", "other") is None
