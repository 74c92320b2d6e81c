"""The life of a reservation: each way through it, and a world in which everything goes wrong."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from pathlib import Path

import pytest

from packetcloud.domain_controller.core import life
from packetcloud.domain_controller.core.life import (
    MAX_JUMP,
    Answered,
    Cancelled,
    ChangeCancelled,
    ChangeEnded,
    ChangeWished,
    Choose,
    Chosen,
    LifeLimits,
    NotChosen,
    StateChanged,
    Tell,
    Tick,
    UsageComplete,
    handle,
    next_timeout,
    request,
)
from packetcloud.domain_controller.core.quotes import Share, Terms, make_terms
from packetcloud.domain_controller.core.reservations import (
    FINAL,
    HOLDING,
    MAX_ASKED_COUNT,
    MAX_CHANGES_COUNT,
    NEXT,
    Reservation,
    State,
    Wanted,
)
from packetcloud.domain_controller.core.slots import DAY_MS, HOUR_MS, Every, Repeat, Slot
from packetcloud.domain_controller.core.wishes import Constraints, Wish
from packetcloud.domain_controller.errors import LifeError
from tests.unit.domain_controller.core.domain_world import (
    PRICES,
    START_MS,
    TYPES,
    Faults,
    S,
    World,
)

LIMITS = LifeLimits()
SLOT = Slot(HOUR_MS, 2 * HOUR_MS)
WISH = Wish("small", 2, SLOT)


def _terms(*parts: tuple[str, int], slot: Slot = SLOT) -> Terms:
    shares = [Share(name, count) for name, count in parts or (("c1", 2),)]
    return make_terms(PRICES, TYPES["small"], slot, shares)


def _in(state: State, wish: Wish = WISH) -> Reservation:
    """Return a reservation that came into a state the usual way."""
    reservation, _ = request("r1", "ann", True, wish, 0)
    if state is State.REQUESTED:
        return reservation
    if state is State.REFUSED:
        return handle(reservation, NotChosen("full"), 0, LIMITS)[0]
    if state is State.EXPIRED:
        return handle(reservation, Tick(), LIMITS.request_ms, LIMITS)[0]
    if state is State.CANCELLED:
        return handle(reservation, Cancelled("no"), 0, LIMITS)[0]
    reservation, _ = handle(reservation, Chosen(_terms(slot=wish.slot)), 0, LIMITS)
    if state is State.OFFERED:
        return reservation
    reservation = _accept(reservation, 0)
    if state is State.CONFIRMED:
        return reservation
    reservation, _ = handle(reservation, Tick(), HOUR_MS, LIMITS)
    reservation = _accept(reservation, HOUR_MS)
    if state is State.ACTIVE:
        return reservation
    reservation, _ = handle(reservation, Tick(), wish.slot.last_end_ms, LIMITS)
    reservation = _accept(reservation, wish.slot.last_end_ms)
    if state is State.ENDED:
        return reservation
    return handle(reservation, UsageComplete("c1", 99), wish.slot.last_end_ms, LIMITS)[0]


def _accept(reservation: Reservation, now: int, limits: LifeLimits = LIMITS) -> Reservation:
    for one in reservation.pending:
        answer = Answered(one.cloudlet, one.number, True)
        reservation, _ = handle(reservation, answer, now, limits)
    return reservation


def _accepted_by(cloudlet: str, reservation: Reservation) -> life.Step:
    told = reservation.directive(cloudlet)
    assert told is not None
    return handle(reservation, Answered(cloudlet, told.number, True), LIMITS.answer_ms, LIMITS)


def _now(reservation: Reservation) -> int:
    return reservation.since_ms


def test_every_state_can_be_reached_and_left() -> None:
    """The table of transitions covers every state; final ones have no way out."""
    assert [_in(state).state for state in State] == list(State)
    assert set(NEXT) == set(State)
    assert {state for state in State if not NEXT[state]} == FINAL


def test_the_page_has_every_transition_and_limit() -> None:
    """docs/reference/reservations.md: each state's row names where it leads to, and no other."""
    page = Path(__file__).parents[4] / "docs" / "reference" / "reservations.md"
    section = page.read_text().split("\n## Life\n", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| (`\w.*?) \| (.*?) \| (.*?) \|$", section, re.MULTILINE)
    listed = {
        State(name): {State(word) for word in re.findall(r"`(\w+)`", ways)}
        for states, _, ways in rows
        for name in re.findall(r"`(\w+)`", states)
    }
    assert listed == NEXT
    for text, value in (
        ("expired` (60 s)", LIMITS.request_ms == 60 * S),
        ("no answer within 10 s", LIMITS.answer_ms == 10 * S),
        ("or a day passed", LIMITS.settle_ms == DAY_MS),
        ("or 16 said no", MAX_ASKED_COUNT == 16),
    ):
        assert text in section and value


def test_the_usual_way_asks_starts_and_stops_the_vis() -> None:
    """Held when offered, running when the slot begins, gone at its end, then settled."""
    reservation, commands = request("r1", "ann", True, WISH, 0)
    assert commands == [Choose()] and reservation.holds == ()
    reservation, commands = handle(reservation, Chosen(_terms()), 0, LIMITS)
    assert [c.directive.wanted for c in commands if isinstance(c, Tell)] == [Wanted.HELD]
    assert [(hold.begin_ms, hold.end_ms, hold.count) for hold in reservation.holds] == [
        (HOUR_MS, 2 * HOUR_MS, 2)
    ]
    reservation = _accept(reservation, 1)
    assert reservation.state is State.CONFIRMED
    assert next_timeout(reservation, 1, LIMITS) == HOUR_MS
    reservation, commands = handle(reservation, Tick(), HOUR_MS, LIMITS)
    assert [c.directive.wanted for c in commands if isinstance(c, Tell)] == [Wanted.RUNNING]
    reservation, commands = handle(reservation, Tick(), 2 * HOUR_MS, LIMITS)
    assert [c.directive.wanted for c in commands if isinstance(c, Tell)] == [Wanted.GONE]
    assert (reservation.state, reservation.holds) == (State.ENDED, ())
    reservation = _accept(reservation, 2 * HOUR_MS)
    assert reservation.directives == ()
    reservation, _ = handle(reservation, UsageComplete("c1", 99), 2 * HOUR_MS + 1, LIMITS)
    assert reservation.state is State.SETTLED
    assert next_timeout(reservation, 2 * HOUR_MS + 1, LIMITS) is None


def test_it_is_settled_when_each_of_its_cloudlets_said_its_last_usage() -> None:
    """One cloudlet, one that has no part, or a word of before it was asked again, is not enough."""
    reservation, _ = request("r1", "ann", True, WISH, 0)
    reservation, _ = handle(reservation, Chosen(_terms(("c1", 1), ("c2", 1))), 0, LIMITS)
    reservation = _accept(reservation, 0)
    for now in (HOUR_MS, 2 * HOUR_MS):
        reservation, _ = handle(reservation, Tick(), now, LIMITS)
        if reservation.state is State.ACTIVE:
            early, _ = handle(reservation, UsageComplete("c1", 99), now, LIMITS)
            assert early == reservation, "it is not over"
    assert reservation.state is State.ENDED
    for event in (UsageComplete("c1", 0), UsageComplete("c9", 99), *[UsageComplete("c1", 99)] * 2):
        reservation, _ = handle(reservation, event, 2 * HOUR_MS, LIMITS)
        assert reservation.state is State.ENDED
    reservation, _ = handle(reservation, UsageComplete("c2", 99), 2 * HOUR_MS, LIMITS)
    assert (reservation.state, reservation.text) == (State.SETTLED, "all usage is in")


def test_a_slot_that_repeats_runs_within_its_occurrences() -> None:
    """Between two of them the places are kept and nothing runs."""
    wish = replace(WISH, slot=Slot(HOUR_MS, 2 * HOUR_MS, Repeat(Every.DAY, 2)))
    reservation = _in(State.CONFIRMED, wish)
    wanted = []
    for now in (HOUR_MS, 2 * HOUR_MS, DAY_MS + HOUR_MS, DAY_MS + 2 * HOUR_MS):
        assert next_timeout(reservation, now - 1, LIMITS) == now
        reservation, commands = handle(reservation, Tick(), now, LIMITS)
        wanted += [c.directive.wanted for c in commands if isinstance(c, Tell)]
        reservation = _accept(reservation, now)
    assert wanted == [Wanted.RUNNING, Wanted.HELD, Wanted.RUNNING, Wanted.GONE]
    assert reservation.state is State.ENDED


@pytest.mark.parametrize("state", list(State))
def test_cancel_ends_whatever_has_not_ended(state: State) -> None:
    """Before the slot nothing is owed; after its begin it ends, to be billed; later: an error."""
    reservation = _in(state)
    now = _now(reservation)
    if state in FINAL or state is State.ENDED:
        verb = "has" if state is State.ENDED else "is"
        with pytest.raises(LifeError, match=f" {verb} {state.value}; it can be cancelled while"):
            handle(reservation, Cancelled("no"), now, LIMITS)
        return
    reservation, commands = handle(reservation, Cancelled("no"), now, LIMITS)
    assert reservation.state is (State.ENDED if state is State.ACTIVE else State.CANCELLED)
    assert reservation.holds == ()
    told = [c.directive.wanted for c in commands if isinstance(c, Tell)]
    assert told == ([Wanted.GONE] if state in HOLDING else [])


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize(
    "event",
    [
        Chosen(_terms()),
        NotChosen("full"),
        Answered("c1", 1, True),
        Answered("c1", 999, False),
        Answered("c9", 1, False),
        UsageComplete("c1", 99),
        Tick(),
        life.Forgotten("c9"),
    ],
    ids=lambda event: type(event).__name__,
)
def test_late_and_doubled_events_change_nothing(state: State, event: life.Event) -> None:
    """An event that does not belong to a state is no error and no second step."""
    reservation = _in(state)
    now = _now(reservation)
    once, _ = handle(reservation, event, now, LIMITS)
    twice, commands = handle(once, event, now, LIMITS)
    assert twice == once
    assert commands == []


def test_a_cloudlet_that_refuses_is_not_asked_again() -> None:
    """What it holds is taken back, the reservation is looked for anew."""
    reservation = _in(State.OFFERED)
    number = reservation.pending[0].number
    answer = Answered("c1", number, False, "no room")
    reservation, commands = handle(reservation, answer, 1, LIMITS)
    assert (reservation.state, reservation.passed) == (State.REQUESTED, ("c1",))
    assert "no room" in reservation.text and Choose() in commands
    assert [one.wanted for one in reservation.pending] == [Wanted.GONE]
    again, commands = handle(reservation, answer, 1, LIMITS)
    assert again == reservation and commands == []


def test_a_silent_cloudlet_makes_room_for_the_next_and_then_the_request_expires() -> None:
    """After `answer_ms` another one is asked; after `request_ms` nobody is."""
    reservation = _in(State.OFFERED)
    assert next_timeout(reservation, 0, LIMITS) == LIMITS.answer_ms
    same, commands = handle(reservation, Tick(), LIMITS.answer_ms - 1, LIMITS)
    assert same == reservation and commands == []
    reservation, _ = handle(reservation, Tick(), LIMITS.answer_ms, LIMITS)
    assert (reservation.state, reservation.passed) == (State.REQUESTED, ("c1",))
    reservation, _ = handle(reservation, Chosen(_terms(("c2", 2))), LIMITS.answer_ms, LIMITS)
    assert next_timeout(reservation, LIMITS.answer_ms, LIMITS) == 2 * LIMITS.answer_ms
    reservation, _ = handle(reservation, Tick(), LIMITS.request_ms, LIMITS)
    assert (reservation.state, reservation.holds) == (State.EXPIRED, ())
    assert {one.wanted for one in reservation.pending} == {Wanted.GONE}


@pytest.mark.parametrize("asked", [MAX_ASKED_COUNT - 1, MAX_ASKED_COUNT])
def test_so_many_cloudlets_are_asked_and_no_more(asked: int) -> None:
    """At the cap the reservation is refused."""
    reservation = _in(State.REQUESTED)
    for number in range(asked):
        assert reservation.state is State.REQUESTED
        reservation, _ = handle(reservation, Chosen(_terms((f"c{number}", 2))), 0, LIMITS)
        told = reservation.directive(f"c{number}")
        assert told is not None
        answer = Answered(f"c{number}", told.number, False, "no")
        reservation, _ = handle(reservation, answer, 0, LIMITS)
    assert reservation.state is (State.REFUSED if asked == MAX_ASKED_COUNT else State.REQUESTED)


def test_parts_are_confirmed_together_or_not_at_all() -> None:
    """One of two cloudlets refuses: the other one is told to forget it too."""
    wish = replace(WISH, constraints=Constraints(spread=2))
    reservation, _ = request("r1", "ann", True, wish, 0)
    reservation, _ = handle(reservation, Chosen(_terms(("c1", 1), ("c2", 1))), 0, LIMITS)
    first, second = reservation.pending
    reservation, _ = handle(reservation, Answered("c1", first.number, True), 1, LIMITS)
    assert reservation.state is State.OFFERED
    reservation, _ = handle(reservation, Answered("c2", second.number, False), 1, LIMITS)
    assert reservation.state is State.REQUESTED
    assert [(one.cloudlet, one.wanted) for one in reservation.pending] == [
        ("c1", Wanted.GONE),
        ("c2", Wanted.GONE),
    ]
    assert reservation.passed == ("c2",)


def test_a_cloudlet_that_gives_up_what_runs_ends_the_reservation() -> None:
    """What was used until then is billed."""
    reservation = _in(State.CONFIRMED)
    reservation, _ = handle(reservation, Tick(), HOUR_MS, LIMITS)
    answer = Answered("c1", reservation.pending[0].number, False, "no node")
    reservation, _ = handle(reservation, answer, HOUR_MS + 1, LIMITS)
    assert reservation.state is State.ENDED and "no node" in reservation.text


def test_a_resize_holds_both_until_it_is_accepted() -> None:
    """While a cloudlet is asked, neither what is nor what will be can be sold to others."""
    reservation = _in(State.ACTIVE)
    larger = replace(WISH, count=3, slot=Slot(HOUR_MS, 3 * HOUR_MS))
    terms = _terms(("c1", 3), slot=larger.slot)
    wished = ChangeWished("o1", larger, terms)
    reservation, commands = handle(reservation, wished, HOUR_MS, LIMITS)
    assert [c.directive.count for c in commands if isinstance(c, Tell)] == [3]
    assert [(hold.end_ms, hold.count) for hold in reservation.holds] == [(3 * HOUR_MS, 3)]
    with pytest.raises(LifeError, match="being changed by o1"):
        handle(reservation, wished, HOUR_MS, LIMITS)
    told = reservation.pending[0]
    done, commands = handle(reservation, Answered("c1", told.number, True), HOUR_MS, LIMITS)
    assert commands == [ChangeEnded("o1", True, "")]
    assert done.wish == larger and done.terms[-1].number == told.terms
    smaller = ChangeWished("o2", WISH, _terms())
    asked, _ = handle(done, smaller, HOUR_MS, LIMITS)
    assert [(hold.end_ms, hold.count) for hold in asked.holds] == [(3 * HOUR_MS, 3)]
    done = _accept(asked, HOUR_MS)
    assert [(hold.end_ms, hold.count) for hold in done.holds] == [(2 * HOUR_MS, 2)]


@pytest.mark.parametrize("is_silent", [False, True])
def test_a_change_that_is_refused_or_not_answered_leaves_everything_as_it_was(
    is_silent: bool,
) -> None:
    """The cloudlet is told again what holds, as it may have taken the change."""
    before = _in(State.CONFIRMED)
    larger = replace(WISH, count=3)
    wished = ChangeWished("o1", larger, _terms(("c1", 3)))
    asked, _ = handle(before, wished, 1, LIMITS)
    if is_silent:
        after, commands = handle(asked, Tick(), 1 + LIMITS.answer_ms, LIMITS)
    else:
        answer = Answered("c1", asked.pending[0].number, False, "no room")
        after, commands = handle(asked, answer, 2, LIMITS)
    assert [c.is_done for c in commands if isinstance(c, ChangeEnded)] == [False]
    assert (after.wish, after.terms, after.holds) == (before.wish, before.terms, before.holds)
    told = after.directive("c1")
    assert told is not None and (told.count, told.terms) == (2, before.terms[-1].number)


def test_a_cloudlet_that_was_passed_over_and_is_away_holds_up_no_change() -> None:
    """It never says that it forgot the offer; the one that has the places accepts a resize."""
    reservation = _in(State.OFFERED)
    reservation, _ = handle(reservation, Tick(), LIMITS.answer_ms, LIMITS)
    reservation, _ = handle(reservation, Chosen(_terms(("c2", 2))), LIMITS.answer_ms, LIMITS)
    reservation = _accepted_by("c2", reservation)[0]
    assert reservation.state is State.CONFIRMED
    wished = ChangeWished("o1", replace(WISH, count=3), _terms(("c2", 3)))
    reservation, _ = handle(reservation, wished, LIMITS.answer_ms, LIMITS)
    reservation, commands = _accepted_by("c2", reservation)
    assert ChangeEnded("o1", True, "") in commands and reservation.wish.count == 3
    assert [(one.cloudlet, one.wanted) for one in reservation.pending] == [("c1", Wanted.GONE)]


def test_a_change_that_is_taken_back_leaves_everything_as_it_was() -> None:
    """The cloudlet is told what holds; what it says of the change afterwards changes nothing."""
    before = _in(State.CONFIRMED)
    wished = ChangeWished("o1", replace(WISH, count=3), _terms(("c1", 3)))
    asked, _ = handle(before, wished, 1, LIMITS)
    other, _ = handle(asked, ChangeCancelled("o2", "no"), 2, LIMITS)
    assert other == asked
    after, commands = handle(asked, ChangeCancelled("o1", "no"), 2, LIMITS)
    assert ChangeEnded("o1", False, "no") in commands
    assert (after.wish, after.terms, after.holds) == (before.wish, before.terms, before.holds)
    late, _ = handle(after, Answered("c1", asked.pending[0].number, True), 3, LIMITS)
    assert late == after


def test_an_extension_asked_for_at_the_end_is_waited_for() -> None:
    """Its places are held, so the VIs go on until the cloudlet answers."""
    reservation = _in(State.ACTIVE)
    longer = replace(WISH, slot=Slot(HOUR_MS, 3 * HOUR_MS))
    wished = ChangeWished("o1", longer, _terms(slot=longer.slot))
    reservation, _ = handle(reservation, wished, 2 * HOUR_MS - 1, LIMITS)
    reservation, commands = handle(reservation, Tick(), 2 * HOUR_MS + 1, LIMITS)
    assert reservation.state is State.ACTIVE and commands == []
    kept = _accept(reservation, 2 * HOUR_MS + 2)
    assert kept.state is State.ACTIVE
    ended, _ = handle(reservation, Tick(), 2 * HOUR_MS + LIMITS.answer_ms, LIMITS)
    assert ended.state is State.ENDED


@pytest.mark.parametrize(
    ("wish", "text"),
    [
        (replace(WISH, vi_type="large"), "vi_type"),
        (replace(WISH, slot=Slot(HOUR_MS + 1, 2 * HOUR_MS)), "begin_ms"),
        (replace(WISH, slot=Slot(HOUR_MS, 2 * HOUR_MS, Repeat(Every.DAY, 2))), "every"),
        (replace(WISH, constraints=Constraints(region="south")), "constraints"),
    ],
)
def test_what_a_change_cannot_change_is_named(wish: Wish, text: str) -> None:
    """A reservation keeps its type, its begin and its places."""
    with pytest.raises(LifeError, match=text):
        handle(_in(State.CONFIRMED), ChangeWished("o1", wish, _terms()), 1, LIMITS)


@pytest.mark.parametrize("state", [s for s in State if s not in (State.CONFIRMED, State.ACTIVE)])
def test_only_what_is_confirmed_or_active_can_be_changed(state: State) -> None:
    """The error says so."""
    with pytest.raises(LifeError, match="confirmed or active"):
        handle(_in(state), ChangeWished("o1", WISH, _terms()), 0, LIMITS)


def test_changes_are_bounded() -> None:
    """At the cap a change is refused; one fewer is taken."""
    reservation = _in(State.CONFIRMED)
    terms = reservation.terms * (MAX_CHANGES_COUNT - 1)
    taken, _ = handle(
        replace(reservation, terms=terms), ChangeWished("o", WISH, _terms()), 1, LIMITS
    )
    assert taken.change is not None
    full = replace(reservation, terms=reservation.terms * MAX_CHANGES_COUNT)
    with pytest.raises(LifeError, match="make a new one"):
        handle(full, ChangeWished("o", WISH, _terms()), 1, LIMITS)


def test_a_clock_that_is_set_back_does_not_stop_deadlines() -> None:
    """An offer made in the year 3000 is given up a few seconds after the clock is right again."""
    future = 1000 * 366 * DAY_MS
    wish = replace(WISH, slot=Slot(future, future + HOUR_MS))
    reservation, _ = request("r1", "ann", True, wish, future)
    reservation, _ = handle(reservation, Chosen(_terms(slot=wish.slot)), future, LIMITS)
    reservation, _ = handle(reservation, Tick(), 0, LIMITS)
    assert next_timeout(reservation, 0, LIMITS) == LIMITS.answer_ms


def test_a_change_that_was_asked_in_the_future_is_given_up_soon() -> None:
    """Its deadline is never further away than an answer may take."""
    wished = ChangeWished("o1", replace(WISH, count=3), _terms(("c1", 3)))
    asked, _ = handle(_in(State.CONFIRMED), wished, HOUR_MS - 1, LIMITS)
    asked, _ = handle(asked, Tick(), 0, LIMITS)
    dropped, commands = handle(asked, Tick(), LIMITS.answer_ms, LIMITS)
    assert dropped.change is None and any(isinstance(c, ChangeEnded) for c in commands)


@pytest.mark.parametrize("text", ["\x1b[2J", "a\nb", "x" * 5000, "\ud800"])
def test_whatever_a_cloudlet_writes_is_kept_as_a_line(text: str) -> None:
    """Controls become blanks, long texts are cut: they are shown to people."""
    reservation = _in(State.OFFERED)
    answer = Answered("c1", reservation.pending[0].number, False, text)
    reservation, commands = handle(reservation, answer, 1, LIMITS)
    changes = [c for c in commands if isinstance(c, StateChanged)]
    assert reservation.text.isprintable() and 0 < len(reservation.text) <= 1000
    assert changes[0].text == reservation.text


@pytest.mark.parametrize(
    ("ahead", "now_ms", "is_told_again"),
    [
        (MAX_JUMP, 1, True),
        (MAX_JUMP + 1, 1, False),
        (8 * DAY_MS, 9 * DAY_MS, True),
        (9 * DAY_MS, 9 * DAY_MS, False),
    ],
)
def test_after_a_restore_numbers_go_on_above_what_a_cloudlet_has_seen(
    ahead: int, now_ms: int, is_told_again: bool
) -> None:
    """It is told the same under a higher number; a jump too far is a refusal as any other.

    What an earlier restore began with was the time then.
    """
    wish = replace(WISH, slot=Slot(10 * DAY_MS, 11 * DAY_MS))
    reservation, _ = request("r1", "ann", True, wish, now_ms)
    reservation, _ = handle(reservation, Chosen(_terms(slot=wish.slot)), now_ms, LIMITS)
    told = reservation.pending[0]
    answer = Answered("c1", told.number, False, "an older directive", told.number + ahead)
    reservation, commands = handle(reservation, answer, now_ms, LIMITS)
    assert (reservation.state is State.OFFERED) is is_told_again
    if is_told_again:
        again = reservation.pending[0]
        assert again == replace(told, number=told.number + ahead + 1)
        assert commands == [Tell(again)]


def test_after_a_restore_what_is_over_is_taken_back_under_a_higher_number() -> None:
    """A cloudlet that has seen more does not keep VIs of a reservation that is gone."""
    reservation, _ = handle(_in(State.CONFIRMED), Cancelled("no"), 1, LIMITS)
    told = reservation.pending[0]
    answer = Answered("c1", told.number, False, "an older directive", told.number + 5)
    reservation, _ = handle(reservation, answer, 1, LIMITS)
    assert [(one.wanted, one.number) for one in reservation.pending] == [
        (Wanted.GONE, told.number + 6)
    ]


def test_a_controller_that_was_away_for_a_day_catches_up_in_one_step() -> None:
    """Confirmed, over and settled at once; the cloudlet is told to forget."""
    reservation = _in(State.CONFIRMED)
    reservation, _ = handle(reservation, Tick(), 3 * HOUR_MS, LIMITS)
    assert reservation.state is State.ENDED
    assert [one.wanted for one in reservation.pending] == [Wanted.GONE]


def _wish(chance: random.Random, now: int) -> Wish:
    begin = now + chance.randrange(0, 120) * S
    repeat = Repeat(Every.DAY, chance.randrange(2, 4)) if chance.random() < 0.15 else None
    slot = Slot(begin, begin + chance.randrange(5, 300) * S, repeat)
    count = chance.randrange(1, 4)
    spread = chance.randrange(1, min(count, 3) + 1) if chance.random() < 0.3 else 1
    return Wish(chance.choice(["small", "small", "large"]), count, slot, Constraints(spread=spread))


def _now_on(wish: Wish, world: World) -> Slot:
    """Return a slot that begins now and meets what others have."""
    return replace(wish.slot, begin_ms=world.clock, end_ms=world.clock + 400 * S, repeat=None)


def test_without_faults_everything_that_fits_is_confirmed_and_settled() -> None:
    """A world in which nothing goes wrong sells all its places and no more."""
    world = World(1)
    names = [
        world.ask("ann", Wish("small", 1, Slot(START_MS + 10 * S, START_MS + 60 * S)))
        for _ in range(20)
    ]
    world.run(20 * S)
    states = [world.load(name).state for name in names]
    assert (
        states.count(State.ACTIVE) == 12
    )  # 4 of each cloudlet: 3 on the large node, 1 on the small
    assert states.count(State.REFUSED) == 8
    world.run(120 * S)
    assert {world.load(name).state for name in names} == {State.SETTLED, State.REFUSED}
    assert world.end_wrongs() == []


@pytest.mark.parametrize("seed", range(60))
def test_whatever_fails_nothing_is_oversold_and_nothing_is_left_over(seed: int) -> None:
    """L6 with lost and doubled commands, refusals, silence, kills between any two commands."""
    world = World(seed, Faults(lost=0.25, doubled=0.3, refused=0.03, killed=0.02))
    chance = random.Random(seed)
    names: list[str] = []
    for _ in range(60):
        world.run(chance.randrange(100, 8 * S))
        name = chance.choice(names) if names else ""
        match chance.randrange(10) if names else 0:
            case 0 | 1 | 2 | 3:
                names.append(world.ask(chance.choice(["ann", "bob"]), _wish(chance, world.clock)))
            case 4:
                world.cancel(name)
            case 5 | 6:
                wish = world.load(name).wish
                slot = replace(wish.slot, end_ms=wish.slot.end_ms + chance.randrange(-3, 90) * S)
                least = wish.constraints.spread
                count = chance.randrange(least, least + 3)
                world.change(name, replace(wish, slot=slot, count=count))
                # Somebody else asks before the cloudlets can have answered.
                names.append(
                    world.ask("bob", replace(wish, count=least, slot=_now_on(wish, world)))
                )
            case 7:
                cloudlet = world.cloudlets[chance.choice(list(world.cloudlets))]
                cloudlet.is_silent = not cloudlet.is_silent
            case 8:
                if chance.random() < 0.5:
                    world.forget(chance.choice(list(world.cloudlets)))
                else:
                    world.kill()
            case 9:
                world.skew = chance.choice([0, 0, -HOUR_MS, 20 * S, -20 * S])
    world.skew = 0
    world.faults = Faults()
    for cloudlet in world.cloudlets.values():
        cloudlet.is_silent = False
    world.run(15 * S)
    assert world.wrongs_now() == []
    world.run(10 * 60 * S)
    assert world.end_wrongs() == []
    final = [world.load(name) for name in names]
    late = [one for one in final if one.wish.slot.repeat is None and one.state not in FINAL]
    assert [one for one in late if one.state is not State.ENDED] == []
