"""The channel between cloudlets and domain controllers, with everything going wrong with it.

Two controllers share a database; frames are lost, doubled, out of order or stale, channels are cut,
either side is killed between any two steps, a controller is stopped and goes on too late. A judge
reads the journals afterwards.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from packetcloud.cloudlet.core import commands as do
from packetcloud.cloudlet.core import metering, rule_sets
from packetcloud.cloudlet.core.events import Directed
from packetcloud.cloudlet.core.reserved import Reservations
from packetcloud.cloudlet.core.saved import Saved
from packetcloud.domain_controller.api import changes as to
from packetcloud.domain_controller.api.port import Page
from packetcloud.domain_controller.channel import kept
from packetcloud.domain_controller.core.calendar import Calendar
from packetcloud.domain_controller.core.life import LifeLimits
from packetcloud.domain_controller.core.prices import Meter
from packetcloud.domain_controller.core.reservations import Reservation, State
from packetcloud.domain_controller.core.slots import DAY_MS, Slot
from packetcloud.domain_controller.core.usage import FIRST_PREVIOUS, Taken, UsageRecord
from packetcloud.domain_controller.core.wishes import Wish
from packetcloud.domain_controller.state import (
    backup,
    bills,
    outbox,
    ownership,
    reservations,
    rule_outbox,
    usage,
)
from packetcloud.domain_controller.state.database import Database
from packetcloud.domain_controller.state.transaction import Transaction
from tests.functional.channel_world import (
    CLOUDLET,
    PRICES,
    RIVAL,
    TENANT,
    TYPE,
    ChannelFaults,
    ChannelWorld,
)
from tests.unit.cloudlet.core.world import settings

ALL = ChannelFaults(
    cut=0.03, doubled=0.05, reordered=0.05, stale=0.05, killed=0.03, stopped=0.01, router=0.3
)
CRASHES = 0.02
SEEDS = 4
SEEDS_OF_A_HUNT = 24
CHAOS_S, CALM_S = 40.0, 80.0


@pytest.fixture(autouse=True)
def _short_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let there be many records: a minute is nearly all of the time that there is here.

    What controllers read in other threads they read at once: their threads know no made-up time.
    """

    async def at_once(work: Callable[..., object], *given: object) -> object:
        return work(*given)

    monkeypatch.setattr(asyncio, "to_thread", at_once)
    monkeypatch.setattr(metering, "RECORD_MS", 4000)
    monkeypatch.setattr(metering, "CHECKPOINT_MS", 4000)
    monkeypatch.setattr(rule_sets, "SAY_ALL_EVERY_MS", 10_000)


def _run(
    world: ChannelWorld,
    faults: ChannelFaults | None = None,
    crashes: float = 0.0,
    *,
    has_rules: bool = True,
) -> None:
    """Wish things while everything goes wrong; then let it come to rest."""
    world.has_rules = has_rules
    world.run(5)
    world.channel_faults, world.faults.crash = faults or ChannelFaults(), crashes
    while world.now < CHAOS_S:
        world.wish_something()
        if has_rules:
            world.publish_something()
        world.run(world.random.uniform(0.5, 4.0))
    world.channel_faults, world.faults.crash = ChannelFaults(), 0.0
    world.run(CALM_S)


@pytest.mark.parametrize("seed", range(1))
def test_what_is_reserved_runs_and_is_charged(tmp_path: Path, seed: int) -> None:
    """Without faults: every reservation comes to its end, and all VI time but its edges counts."""
    world = ChannelWorld(seed, folder=tmp_path)
    _run(world)
    assert world.judge() == []
    states = Counter(one.state for one in world.kept())
    assert states[State.SETTLED] >= 3
    assert states[State.ENDED] == 0, "the last record of each is known to be the last"
    assert world.charged_ms() > 0.8 * world.ran_ms
    assert world.charged_ms() <= world.ran_ms
    world.close()


def test_a_reservation_says_since_when_its_cloudlet_is_away(tmp_path: Path) -> None:
    """Not while it reports, and not when it is over; the reservation itself stays as it is."""
    world = ChannelWorld(1, folder=tmp_path)
    world.run(5)
    slot = Slot(world.clock_ms() + 1000, world.clock_ms() + DAY_MS)
    assert world.ask(to.Reserve(TENANT, True, Wish(TYPE.name, 2, slot, service="beta"))) is None
    world.run(5)
    domain = world.controllers[0].domain
    page = Page(10, None)

    def shown() -> tuple[str, int | None]:
        (one,) = domain.reservations(TENANT, [], page).reservations
        assert one == domain.reservation(TENANT, one.id)
        return one.state, one.places[0].away_since_ms

    assert shown() == ("active", None)
    last_ms = max(one.reports.all()[CLOUDLET].received_at_ms for one in world.controllers)
    world.now += 40
    state, since_ms = shown()
    assert state == "active" and since_ms is not None and 0 <= last_ms - since_ms < 20_000
    world.run(5)
    assert shown() == ("active", None)
    (found,) = world.kept()
    assert world.ask(to.CancelReservation(found.name)) is None
    world.now += 40
    assert shown() == ("ended", None)
    world.close()


def test_no_terms_have_the_number_of_others_of_before_a_restore(tmp_path: Path) -> None:
    """Nor after a second restore of the same backup: usage under the lost terms stays unbilled."""
    world = ChannelWorld(1, folder=tmp_path)
    world.run(5)
    slot = Slot(world.clock_ms() + 1000, world.clock_ms() + DAY_MS)
    assert world.ask(to.Reserve(TENANT, True, Wish(TYPE.name, 2, slot, service="beta"))) is None
    world.run(5)
    url, file = f"sqlite:///{tmp_path / 'domain.sqlite3'}", tmp_path / "backup"
    backup.backup(url, file)
    (before,) = world.kept()
    assert world.ask(to.Resize(before.name, 1)) is None
    world.run(5)
    (changed,) = world.kept()
    assert changed.terms[-1].number > before.last_number
    world.close()
    last = changed.last_number
    for at_ms in (world.clock_ms(), world.clock_ms() + 1000):
        target = tmp_path / f"restored-{at_ms}"
        backup.restore(file, f"sqlite:///{target}", lambda at_ms=at_ms: at_ms)  # type: ignore[misc]
        database = Database(f"sqlite:///{target}")
        with database.reading() as connection:
            (one,) = reservations.listed(connection)
        database.close()
        assert one.reservation == dataclasses.replace(
            before, last_number=one.reservation.last_number
        )
        assert one.reservation.last_number > last
        last = one.reservation.last_number + 100  # some were given after it


def test_a_bill_leaves_out_what_came_in_under_terms_that_nobody_knew(tmp_path: Path) -> None:
    """Also when terms of that number are there by now, with usage of their own; it is closed."""
    world = ChannelWorld(1, folder=tmp_path)
    world.run(5)
    begin_ms = world.clock_ms() + 60_000
    slot = Slot(begin_ms, begin_ms + 60_000)
    assert world.ask(to.Reserve(TENANT, True, Wish(TYPE.name, 1, slot))) is None
    world.run(5)
    (held,) = world.kept()
    number = held.last_number + 5
    lost, known = (
        UsageRecord(
            *(CLOUDLET, meter, 1, FIRST_PREVIOUS, held.name, number),
            *(Meter.VI_TIME, begin_ms, begin_ms + 10_000, 10_000),
        )
        for meter in ("m-1", "m-2")
    )

    def take(record: UsageRecord) -> None:
        def work(transaction: Transaction) -> list[Taken]:
            owner = ownership.take(transaction, ownership.cloudlet_channel(CLOUDLET), "test")
            return usage.take(transaction, owner, [record])

        assert world.writer.do_blocking(work) == [Taken.NEW]

    def agree(transaction: Transaction) -> None:
        found = reservations.lock(transaction, held.name)
        assert found is not None
        terms = dataclasses.replace(held.terms[-1], number=number)
        after = dataclasses.replace(found.reservation, terms=(*held.terms, terms))
        reservations.save(transaction, found, after, [], LifeLimits())

    take(lost)
    world.writer.do_blocking(agree)
    take(known)
    with world.database.reading() as connection:
        made = bills.draft(connection, TENANT, (0, slot.end_ms), PRICES.currency)
    world.writer.do_blocking(lambda transaction: bills.close(transaction, made))
    assert [line.quantity for line in made.bill.lines] == [10_000]
    world.close()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_everything_goes_wrong(tmp_path: Path, seed: int) -> None:
    """Nothing that was acknowledged is lost, nothing is done twice, nobody commands too late."""
    world = ChannelWorld(seed, folder=tmp_path)
    _run(world, ALL, CRASHES)
    assert world.judge() == [], f"seed {seed}: {world.changes}"
    assert sum(world.happened.values()) + world.kills_count + world.crashes >= 3
    world.close()


@pytest.mark.parametrize("at", (1, 20, 40, 60))
def test_a_cut_at_each_message(tmp_path: Path, at: int) -> None:
    """One cut at that message, and nothing else: what was under way comes to its end."""
    world = ChannelWorld(7, folder=tmp_path)
    world.cut_at = at
    _run(world)
    assert world.judge() == []
    assert world.happened["cut"] == 1
    world.close()


def _race(seed: int, folder: Path, has_own: bool) -> tuple[list[Reservation], int]:
    """Have two tenants ask two controllers for one last place, over a channel that loses frames.

    Args:
        has_own: the cloudlet has a VI that no reservation is for, of which the domain knows
            nothing: then both are offered the place, and the cloudlet takes one of them.

    Returns what became of both, and how many VIs the cloudlet holds places for.
    """
    plain = settings(name_at_domain=CLOUDLET)
    if not has_own:
        alone = {"alpha": plain.services["alpha"]}
        plain = dataclasses.replace(plain, services=alone)
    world = ChannelWorld(seed, folder=folder, settings=plain)
    world.run(8)
    begin_ms = world.clock_ms() + 60_000
    slot = Slot(begin_ms, begin_ms + 10_000)
    assert world.ask(to.Reserve(TENANT, True, Wish(TYPE.name, 10 if has_own else 11, slot))) is None
    world.run(10)
    assert [one.state for one in world.kept()] == [State.CONFIRMED]
    world.channel_faults = ChannelFaults(cut=0.03, doubled=0.2, reordered=0.3, stale=0.1)
    controllers = world.random.sample(world.controllers, 2)
    for tenant, controller in zip((TENANT, RIVAL), controllers, strict=True):
        world.ask(to.Reserve(tenant, True, Wish(TYPE.name, 1, slot)), tenant, controller)
    world.run(30)
    both = [one for one in world.kept() if one.wish.count == 1]
    held = sum(one.count for one in world.saved.reserved.values())
    world.channel_faults = ChannelFaults()
    world.run(60)
    assert world.judge() == []
    world.close()
    return both, held


@pytest.mark.parametrize("has_own", (False, True))
@pytest.mark.parametrize("seed", range(3))
def test_two_tenants_race_for_the_last_place(tmp_path: Path, seed: int, has_own: bool) -> None:
    """Exactly one has it; the other is told that there is no room."""
    both, held = _race(seed, tmp_path, has_own)
    states = sorted(one.state.value for one in both)
    assert states == ["confirmed", "refused"], f"seed {seed}: {both}"
    (loser,) = (one for one in both if one.state is State.REFUSED)
    assert "not enough" in loser.text or "no room" in loser.text
    assert held == (11 if has_own else 12)


def test_without_calendar_and_check_both_have_the_last_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The race is one: where nobody looks for room, both win."""
    monkeypatch.setattr(Calendar, "conflict", lambda *_: None)
    monkeypatch.setattr(Reservations, "_why_no_room", lambda *_: "")
    both, held = _race(0, tmp_path, False)
    assert [one.state for one in both] == [State.CONFIRMED] * 2
    assert held == 13


def _answers_before_it_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the cloudlet do what is to be done, and write it down after that."""

    def carry_out(world: ChannelWorld, commands: list[do.Command], life: int) -> None:
        before = world.kept_on_disk()
        for command in commands:
            if world.chance(world.faults.crash):
                world.saved = before
                world.crash()
                return
            world.begin(command, life)
            world.saved = before
        world.saved = world.core.saved
        world.saved = world.kept_on_disk()

    monkeypatch.setattr(ChannelWorld, "carry_out", carry_out)


def _nobody_asks_for_the_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a controller that was stopped go on as if nothing had happened."""
    for module in (outbox, usage):
        monkeypatch.setattr(module, "require", lambda *_: None)
    monkeypatch.setattr(ownership, "require", lambda *_: None)
    assert kept.ownership is ownership


def _usage_is_sent_and_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the cloudlet believe that what it sent has come."""
    send = Reservations._send_usage

    def send_and_forget(self: Reservations) -> list[do.Command]:
        commands = send(self)
        for command in commands:
            if isinstance(command, do.SayUsage):
                for record in command.records:
                    self._saved.records.pop((record.meter, record.number), None)
        self._sent_ms = None
        return commands

    monkeypatch.setattr(Reservations, "_send_usage", send_and_forget)


def _old_directives_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the cloudlet do what it is told last, whatever it was told before."""
    directed = Reservations._directed

    def forgetful(self: Reservations, event: Directed) -> list[do.Command]:
        saved: Saved = self._saved
        saved.answered.pop(event.reservation, None)
        return directed(self, event)

    monkeypatch.setattr(Reservations, "_directed", forgetful)


@pytest.mark.parametrize(
    ("break_it", "words", "first_seed"),
    [
        (_answers_before_it_writes, "the cloudlet's disk has", 0),
        (_nobody_asks_for_the_epoch, "a controller of epoch", 0),
        (_usage_is_sent_and_forgotten, "is lost", 0),
        (_old_directives_count, "directive", 10),
    ],
)
def test_the_judge_sees_what_is_broken(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    break_it: Callable[[pytest.MonkeyPatch], None],
    words: str,
    first_seed: int,
) -> None:
    """Each protection is needed: without it, some seed ends in a broken promise.

    One of about eight shows that old directives count; the hunt begins where one does.
    """
    break_it(monkeypatch)
    for seed in range(first_seed, first_seed + SEEDS_OF_A_HUNT):
        folder = tmp_path / str(seed)
        folder.mkdir()
        world = ChannelWorld(seed, folder=folder)
        _run(world, ChannelFaults(0.05, 0.1, 0.2, 0.0, 0.02, 0.03), 0.05, has_rules=False)
        found = world.judge()
        world.close()
        if any(words in one for one in found):
            return
    raise AssertionError(f"nothing was seen: {found}")


def _nobody_looks_at_the_router(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the cloudlet believe that rules stay where they were installed."""
    monkeypatch.setattr(rule_sets.RuleSets, "seen", lambda self, event: [])


def _the_sum_of_all_sets_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the domain believe that what was said once has come."""
    hear = rule_outbox.hear

    def hear_parts(*given: Any, is_whole: bool) -> Any:
        return hear(*given, is_whole=False)

    monkeypatch.setattr(rule_outbox, "hear", hear_parts)
    monkeypatch.setattr(rule_sets, "SAY_ALL_EVERY_MS", 10**9)


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (_nobody_looks_at_the_router, "the router has"),
        (_the_sum_of_all_sets_says_nothing, "is said"),
    ],
)
def test_the_judge_sees_lost_rules(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    break_it: Callable[[pytest.MonkeyPatch], None],
    words: str,
) -> None:
    """Each protection is needed: without it, some seed ends with other rules than are wanted."""
    break_it(monkeypatch)
    for seed in range(SEEDS_OF_A_HUNT):
        folder = tmp_path / str(seed)
        folder.mkdir()
        world = ChannelWorld(seed, folder=folder)
        world.channel_faults = ChannelFaults(0.05, 0.1, 0.2, 0.05, 0.02, 0.03, router=0.5)
        while world.now < 20:
            world.publish_something()
            world.run(world.random.uniform(0.5, 4.0))
        world.channel_faults = ChannelFaults()
        world.rule_router.is_up = True
        world.run(40)
        found = world.judge()
        world.close()
        if any(words in one for one in found):
            return
    raise AssertionError(f"nothing was seen: {found}")
