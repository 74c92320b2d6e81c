"""Chunks and bytes of reservations: what the router counted is charged, once, who ever restarts."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from packetcloud.cloudlet.core import metering, records
from packetcloud.cloudlet.core.events import DomainUp, Metered, UsageTaken
from packetcloud.domain_controller.core.prices import Meter
from packetcloud.domain_controller.core.usage import UsageRecord, check_chain
from tests.unit.cloudlet.core.test_reserved import AT_MS, TOLD, _World
from tests.unit.cloudlet.core.world import CHUNK_BYTES


class _Traffic(_World):
    """A cloudlet with a reservation of two VIs, whose slot is long, and chunks for them."""

    def __init__(self) -> None:
        super().__init__()
        self.at_ms = AT_MS
        self.taken: list[UsageRecord] = []
        """Records that a domain controller took, in the order in which they came."""
        self.answer(replace(TOLD, occurrences=((AT_MS, AT_MS + 3_600_000),)))
        self.run(5)
        self.instances = [vi.instance for vi in self.core.reservations.running("r-1")]
        assert len(self.instances) == 2

    def give(self, count: int, which: int = 0) -> None:
        instance = self.instances[which]
        self.chunks[instance] = self.chunks.get(instance, 0) + count

    def meter(self, seconds: int = 1) -> None:
        """Let the router be looked at and the meters tick, each second."""
        for _ in range(seconds):
            self.run(1)
            self.at_ms += 1000
            self.tell(Metered(self.at_ms), self.life)

    def take(self) -> None:
        """Take what is there."""
        for key in sorted(self.saved.records):
            self.taken.append(self.saved.records[key])
        taken = tuple((*key, "new") for key in self.saved.records)
        self.tell(UsageTaken(self.saved.domain_epoch, taken), self.life)

    def begin_anew(self, epoch: int) -> None:
        """Kill the controller; the next one has the channel with this epoch."""
        self.crash()
        self.run(5)
        self.tell(DomainUp(epoch, self.at_ms), self.life)

    def finish(self) -> None:
        """Give the reservation back and take all that is left."""
        self.answer(replace(TOLD, epoch=self.saved.domain_epoch, number=9, is_gone=True))
        self.run(10)
        self.meter(3)
        self.take()
        assert not self.saved.traffic and not self.saved.records

    def charged(self) -> tuple[int, int]:
        """Return all chunks and bytes; every chain is whole."""
        chains: dict[str, list[UsageRecord]] = {}
        for one in self.taken:
            if one.kind is not Meter.VI_TIME:
                chains.setdefault(one.meter, []).append(one)
        for chain in chains.values():
            assert check_chain(sorted(chain, key=lambda one: one.number)) is None
        records = [one for chain in chains.values() for one in chain]
        return tuple(  # type: ignore[return-value]
            sum(one.quantity for one in records if one.kind is kind)
            for kind in (Meter.CHUNKS, Meter.BYTES)
        )


def test_what_the_router_counted_is_charged(monkeypatch: pytest.MonkeyPatch) -> None:
    """A meter for each VI, chunks and bytes; what came in the last moment of the slot, too."""
    monkeypatch.setattr(metering, "RECORD_MS", 10_000)
    world = _Traffic()
    world.give(3)
    world.give(5, which=1)
    world.meter(15)
    meters = {one.meter for one in world.saved.records.values() if one.kind is Meter.CHUNKS}
    assert len(meters) == 2
    world.give(7)
    world.finish()
    assert world.charged() == (15, 15 * CHUNK_BYTES)


def test_nothing_is_counted_twice_or_lost_by_a_controller_that_is_killed() -> None:
    """Whatever was written down last: the router's counts go on, and so does what is charged."""
    world = _Traffic()
    for epoch in range(4, 9):
        world.give(10)
        world.meter(2)
        world.give(1)
        world.begin_anew(epoch)
        world.give(2)
    world.meter(70)
    world.finish()
    assert world.charged() == (65, 65 * CHUNK_BYTES)


def test_a_router_that_begins_anew_counts_from_zero() -> None:
    """What it had counted since the last look is gone, in the tenant's favour; no more is."""
    world = _Traffic()
    world.give(10)
    world.meter(2)
    world.restart_router()
    world.run(5)
    world.give(4)
    world.meter(2)
    world.give(100)
    world.restart_router()  # before anybody looked
    world.give(20)
    world.meter(2)
    world.finish()
    assert world.charged() == (34, 34 * CHUNK_BYTES)


@pytest.mark.parametrize("seed", range(6))
def test_any_order_of_kills_and_looks(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Without a restart of the router all is charged, with one never more than there was."""
    monkeypatch.setattr(metering, "RECORD_MS", 4000)
    monkeypatch.setattr(metering, "CHECKPOINT_MS", 3000)
    chance = random.Random(seed)
    world, given, epoch = _Traffic(), 0, 4
    for _ in range(40):
        count = chance.randrange(5)
        world.give(count, which=chance.randrange(2))
        given += count
        match chance.randrange(6):
            case 0:
                world.begin_anew(epoch)
                epoch += 1
            case 1:
                world.take()
            case 2 if seed % 2:
                world.restart_router()
                world.run(2)
            case _:
                world.meter(chance.randrange(1, 4))
    world.meter(1)
    world.finish()
    chunks, size_bytes = world.charged()
    assert size_bytes == chunks * CHUNK_BYTES
    assert 0 < chunks <= given if seed % 2 else chunks == given


def test_a_clock_that_is_set_back_delays_and_doubles_nothing() -> None:
    world = _Traffic()
    world.give(5)
    world.meter(20)
    world.at_ms -= 10_000
    world.give(5)
    world.meter(30)
    world.finish()
    assert world.charged() == (10, 10 * CHUNK_BYTES)
    spans = sorted((one.begin_ms, one.end_ms) for one in world.taken if one.kind is Meter.CHUNKS)
    assert all(begin < end for begin, end in spans)


def test_new_terms_begin_a_record() -> None:
    """Each record names the terms under which its chunks ran."""
    world = _Traffic()
    world.give(5)
    world.meter(3)
    world.answer(replace(TOLD, number=6, terms=2, occurrences=((AT_MS, AT_MS + 3_600_000),)))
    world.give(7)
    world.meter(3)
    world.finish()
    counted = {one.terms: one.quantity for one in world.taken if one.kind is Meter.CHUNKS}
    assert counted == {1: 5, 2: 7}


def test_traffic_outside_of_the_slot_is_free() -> None:
    """A controller that nobody tells anything stops its VIs when the slot is over; what they got
    afterwards is charged to nobody."""
    world = _Traffic()
    world.answer(replace(TOLD, number=6, occurrences=((AT_MS, AT_MS + 10_000),)))
    world.give(5)
    world.meter(8)
    world.at_ms = AT_MS + 30_000
    world.give(7)
    world.meter(2)
    world.finish()
    assert world.charged() == (5, 5 * CHUNK_BYTES)


def test_records_that_nobody_takes_have_a_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond it chunks are lost, counted and told of, and the chain goes on."""
    monkeypatch.setattr(metering, "RECORD_MS", 1000)
    monkeypatch.setattr(records, "MAX_KEPT_COUNT", 8)
    world = _Traffic()
    for _ in range(10):
        world.give(2)
        world.meter()
    lost = world.core.traffic.lost_chunks
    assert len(world.saved.records) == 8 and lost
    assert len([note for note in world.notes if "more traffic is lost" in note]) == 1
    world.take()
    world.finish()
    assert world.charged()[0] == 20 - world.core.traffic.lost_chunks
