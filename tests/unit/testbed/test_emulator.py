"""One direction of an emulated link on virtual time, and the chances that it takes."""

from __future__ import annotations

import itertools
import math
import random
import struct

import pytest

from packetcloud.testbed.emulator import channel as channels
from packetcloud.testbed.emulator.channel import NEVER, Channel
from packetcloud.testbed.emulator.faults import Chance
from packetcloud.testbed.emulator.honesty import LATE_S, WORST_S, Lateness, objections
from packetcloud.testbed.emulator.link import Emulator, chosen
from packetcloud.testbed.emulator.netem import fault_commands, rate_commands, unfit, way_sums
from packetcloud.testbed.emulator.packets import flip_bit
from packetcloud.testbed.emulator.shape import Shape
from packetcloud.testbed.errors import TestbedError

MEGABIT = 1e6
SIZE = 1250
"""Bytes that take 1 ms at 10 Mbit/s."""


def _packet(number: int = 0, size: int = SIZE) -> bytes:
    return number.to_bytes(4, "big") + bytes(size - 4)


def _number(packet: bytes) -> int:
    return int.from_bytes(packet[:4], "big")


def _arrivals(channel: Channel, until: float = 1e6) -> list[tuple[float, int]]:
    """Run a channel dry; return when each packet was due, and its number."""
    found = []
    while channel.next_due() <= until:
        moment = channel.next_due()
        found += [(due, _number(packet)) for due, packet in channel.take_due(moment)]
    return found


def test_a_packet_takes_its_time_on_the_wire_and_then_the_delay() -> None:
    """1250 bytes at 10 Mbit/s leave after 1 ms; two at once leave one after the other."""
    link = Channel(Shape(rate_bps=10 * MEGABIT, delay_s=0.015), "1", 0.0)
    link.arrive(_packet(1), 0.0)
    link.arrive(_packet(2), 0.0)
    link.arrive(_packet(3), 0.010)
    assert [(round(due, 9), n) for due, n in _arrivals(link)] == [
        (0.016, 1),
        (0.017, 2),
        (0.026, 3),
    ]
    assert link.sums.busy_s == pytest.approx(0.003)
    assert link.next_due() == NEVER


def test_the_queue_drops_its_tail_at_the_cap_and_not_before() -> None:
    """One packet is on its way out, `queue_packets` wait, the next one is dropped."""
    link = Channel(Shape(rate_bps=10 * MEGABIT, queue_packets=3), "1", 0.0)
    for number in range(4):
        link.arrive(_packet(number), 0.0)
    assert link.sums.dropped == {}
    link.arrive(_packet(4), 0.0)
    assert link.sums.dropped == {"queue_full": 1}
    # After 1 ms the first has left, the second is on its way out: room for one.
    link.arrive(_packet(5), 0.001)
    link.arrive(_packet(6), 0.001)
    assert [number for _, number in _arrivals(link)] == [0, 1, 2, 3, 5]
    assert link.sums.longest_queue_packets == 3


def test_a_queue_in_bytes_counts_bytes() -> None:
    """Small packets find room where a large one does not."""
    link = Channel(Shape(rate_bps=10 * MEGABIT, queue_bytes=2 * SIZE), "1", 0.0)
    for number in range(3):
        link.arrive(_packet(number), 0.0)
    link.arrive(_packet(9, 5), 0.0)
    assert link.sums.dropped == {"queue_full": 1}
    link.arrive(_packet(3), 0.001)
    assert [number for _, number in _arrivals(link)] == [0, 1, 2, 3]


def test_who_looks_late_changes_nothing() -> None:
    """Due times follow from arrivals; a caller who slept meanwhile costs the link no capacity."""
    shape = Shape(rate_bps=10 * MEGABIT, delay_s=0.001, queue_packets=50)
    attentive, late = (Channel(shape, "1", 0.0) for _ in range(2))
    found = []
    for number in range(40):
        moment = number * 0.0008
        attentive.arrive(_packet(number), moment)
        late.arrive(_packet(number), moment)
        found += [(due, _number(packet)) for due, packet in attentive.take_due(moment)]
    found += _arrivals(attentive)
    assert found == _arrivals(late)


def test_the_rate_is_the_rate() -> None:
    """Offered twice what it carries, the link carries its rate: to the packet."""
    link = Channel(Shape(rate_bps=10 * MEGABIT, queue_packets=25), "1", 0.0)
    for number in range(4000):
        link.arrive(_packet(number), number * 0.0005)
    assert 2000 <= len(_arrivals(link, 2.0)) <= 2001


def test_a_change_of_rate_holds_for_what_waits() -> None:
    """What is being sent goes on at the old rate, what waits goes at the new one."""
    link = Channel(Shape(rate_bps=10 * MEGABIT), "1", 0.0)
    for number in range(3):
        link.arrive(_packet(number), 0.0)
    link.change(Shape(rate_bps=1 * MEGABIT), 0.0005)
    assert [round(due, 9) for due, _ in _arrivals(link)] == [0.001, 0.011, 0.021]


def test_without_a_rate_nothing_waits() -> None:
    """A change to no rate lets the queue go at once."""
    link = Channel(Shape(rate_bps=1 * MEGABIT), "1", 0.0)
    for number in range(3):
        link.arrive(_packet(number), 0.0)
    link.change(Shape(delay_s=0.001), 0.002)
    assert [round(due, 9) for due, _ in _arrivals(link)] == [0.003, 0.003, 0.010]


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3])
def test_random_loss_is_of_the_size_asked_for(share: float) -> None:
    """Within four standard deviations of the share, for a fixed seed; and the sums add up."""
    count = 20_000
    link = Channel(Shape(loss=share), "7", 0.0)
    for number in range(count):
        link.arrive(_packet(number, 40), 0.0)
    lost = link.sums.dropped["lost"]
    assert abs(lost - share * count) < 4 * math.sqrt(share * (1 - share) * count)
    assert len(_arrivals(link)) == count - lost


def test_a_seed_gives_the_same_fate_whatever_the_timing() -> None:
    """Which packets are lost depends on the seed and their order, not on when they come."""
    fates = []
    for seed, pause_s in (("1", 0.0), ("1", 0.01), ("2", 0.0)):
        link = Channel(Shape(loss=0.3, delay_s=0.005), seed, 0.0)
        for number in range(200):
            link.arrive(_packet(number), number * pause_s)
        fates.append(sorted(number for _, number in _arrivals(link)))
    assert fates[0] == fates[1] != fates[2]


def test_one_fault_more_does_not_shift_the_others() -> None:
    """Every kind of fault has a random source of its own."""
    seen = []
    for duplication in (0.0, 0.5):
        link = Channel(Shape(loss=0.2, duplication=duplication), "1", 0.0)
        for number in range(500):
            link.arrive(_packet(number), 0.0)
        seen.append({number for _, number in _arrivals(link)})
    assert seen[0] == seen[1]


def _runs(picked: list[bool]) -> list[int]:
    return [len(list(group)) for is_picked, group in itertools.groupby(picked) if is_picked]


def test_bursts_have_the_share_and_the_length_asked_for() -> None:
    """Gilbert's chain: 5 % of all packets, four in a row on average."""
    chance = Chance(0.05, random.Random(3), mean_run=4.0)
    picked = [chance.picks() for _ in range(200_000)]
    runs = _runs(picked)
    assert sum(picked) / len(picked) == pytest.approx(0.05, rel=0.1)
    assert sum(runs) / len(runs) == pytest.approx(4.0, rel=0.1)
    assert max(runs) > 8


@pytest.mark.parametrize("mean_run", [1.0, 4.0])
def test_no_run_is_longer_than_its_cap(mean_run: float) -> None:
    """Three in a row and no four, however high the share."""
    chance = Chance(0.6, random.Random(3), mean_run, longest_run=3)
    assert max(_runs([chance.picks() for _ in range(20_000)])) == 3


def test_all_and_none() -> None:
    """A share of 1 takes every packet, 0 none."""
    everything, nothing = Chance(1.0, random.Random(1)), Chance(0.0, random.Random(1))
    assert all(everything.picks() for _ in range(100))
    assert not any(nothing.picks() for _ in range(100))


def test_jitter_keeps_within_bounds_and_order() -> None:
    """Delays spread over the whole width, and nobody overtakes."""
    link = Channel(Shape(delay_s=0.020, jitter_s=0.005), "1", 0.0)
    for number in range(500):
        link.arrive(_packet(number), number * 0.1)
    arrivals = _arrivals(link)
    delays = [due - number * 0.1 for due, number in arrivals]
    assert [number for _, number in arrivals] == list(range(500))
    assert 0.015 <= min(delays) < 0.0155
    assert 0.0245 < max(delays) <= 0.025 + 1e-9

    for number in range(500):
        link.arrive(_packet(number), 100.0 + number * 1e-5)
    assert [number for _, number in _arrivals(link)] == list(range(500))


def test_reordered_packets_are_overtaken() -> None:
    """Those held back arrive late, the others in order; none is lost."""
    link = Channel(Shape(delay_s=0.010, reordering=0.1, reordering_s=0.005), "1", 0.0)
    for number in range(1000):
        link.arrive(_packet(number), number * 0.001)
    order = [number for _, number in _arrivals(link)]
    assert sorted(order) == list(range(1000))
    inversions = sum(left > right for left, right in itertools.pairwise(order))
    assert 0 < inversions <= link.sums.reordered
    assert 60 <= link.sums.reordered <= 140


def test_duplicates_arrive_twice_and_cost_the_link_nothing() -> None:
    """The link has sent each packet once."""
    link = Channel(Shape(rate_bps=10 * MEGABIT, duplication=1.0), "1", 0.0)
    link.arrive(_packet(1), 0.0)
    link.arrive(_packet(2), 0.0)
    assert [number for _, number in _arrivals(link)] == [1, 1, 2, 2]
    assert link.sums.busy_s == pytest.approx(0.002)


def test_larger_packets_vanish() -> None:
    """A black hole of 1280: 1280 pass, 1281 do not."""
    link = Channel(Shape(largest_bytes=1280), "1", 0.0)
    link.arrive(_packet(1, 1280), 0.0)
    link.arrive(_packet(2, 1281), 0.0)
    assert [number for _, number in _arrivals(link)] == [1]
    assert link.sums.dropped == {"too_large": 1}


def test_the_link_goes_up_and_down_by_the_clock() -> None:
    """Five seconds up, two down, counted from the change of shape; what flies arrives."""
    link = Channel(Shape(), "1", 0.0)
    link.change(Shape(up_s=5.0, down_s=2.0, delay_s=1.0), 100.0)
    for second in range(14):
        link.arrive(_packet(second), 100.5 + second)
    assert [number for _, number in _arrivals(link)] == [0, 1, 2, 3, 4, 7, 8, 9, 10, 11]
    assert link.sums.dropped == {"down": 4}


def test_what_the_emulator_itself_cannot_hold_is_dropped_and_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At the cap nothing is dropped, one above it is: under a reason that no report calls valid."""
    monkeypatch.setattr(channels, "MOST_HELD_PACKETS", 10)
    link = Channel(Shape(delay_s=1.0), "1", 0.0)
    for number in range(10):
        link.arrive(_packet(number), 0.0)
    assert link.sums.dropped == {}
    link.arrive(_packet(10), 0.0)
    assert link.sums.dropped == {channels.OVERFLOW: 1}


def _ip(protocol: int, transport: bytes, fragment: int = 0) -> bytes:
    total = 20 + len(transport)
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, total, 1, fragment, 64, protocol, 0, b"a", b"b")
    return head + transport


def _changed_bits(before: bytes, after: bytes) -> int:
    return sum((left ^ right).bit_count() for left, right in zip(before, after, strict=True))


@pytest.mark.parametrize("chosen", [0.0, 0.5, 0.999999])
def test_one_bit_of_a_datagram_is_flipped_and_its_checksum_given_up(chosen: float) -> None:
    """The application gets it; ports and length are as they were."""
    packet = _ip(17, struct.pack(">HHHH", 1, 2, 28, 0xABCD) + bytes(20))
    altered = flip_bit(packet, chosen)
    assert altered[:26] == packet[:26]
    assert altered[26:28] == b"\0\0"
    assert _changed_bits(packet[28:], altered[28:]) == 1


def test_a_segment_keeps_its_checksum() -> None:
    """The kernel drops it, as TCP promises: neither header nor checksum is touched."""
    header = struct.pack(">HHIIBBHHH", 1, 2, 3, 4, 8 << 4, 0, 100, 0xABCD, 0) + bytes(12)
    packet = _ip(6, header + bytes(30))
    altered = flip_bit(packet, 0.3)
    assert altered[: 20 + 32] == packet[: 20 + 32]
    assert _changed_bits(packet, altered) == 1


@pytest.mark.parametrize(
    "packet",
    [b"", b"\x45", bytes([0x60]) + bytes(60), _ip(17, bytes(8)), _ip(6, bytes(12) + b"\x50" * 8)],
    ids=["empty", "cut", "IPv6", "no payload", "no data"],
)
def test_what_has_no_payload_stays_as_it_is(packet: bytes) -> None:
    """Nothing to flip."""
    assert flip_bit(packet, 0.5) == packet


def test_a_later_fragment_is_payload_from_the_start() -> None:
    """It has no ports and no checksum of its own."""
    packet = _ip(17, bytes(40), fragment=185)
    altered = flip_bit(packet, 0.0)
    assert _changed_bits(packet, altered) == 1
    assert altered[20] != packet[20]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"loss": 1.1}, "loss is a share"),
        ({"delay_s": -1}, "delay_s is negative"),
        ({"delay_s": 0.001, "jitter_s": 0.002}, "jitter_s is larger"),
        ({"loss_burst": 0.5}, "loss_burst"),
        ({"loss": 0.9, "loss_burst": 2}, "too short"),
        ({"queue_packets": 5}, "needs rate_bps"),
        ({"lsos": 1}, "unknown lsos; allowed: .*loss"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(values: dict[str, float], says: str) -> None:
    """The error names the field and what is allowed."""
    with pytest.raises(TestbedError, match=says):
        Shape.from_json(values)


def test_shapes_pass_through_json() -> None:
    """What the control pipe carries is what was meant."""
    shape = Shape(rate_bps=1e6, loss=0.6, up_s=5.0, down_s=2.0)
    assert Shape.from_json(shape.to_json()) == shape


def _report(lateness: Lateness, **overruns: int) -> dict[str, object]:
    return {"lateness": lateness.to_json(), "overruns": overruns}


def test_an_emulator_in_time_raises_no_objection() -> None:
    """One late packet in a hundred is allowed, one more is not."""
    lateness = Lateness.empty()
    for _ in range(990):
        lateness.add(LATE_S / 10)
    for _ in range(10):
        lateness.add(2 * LATE_S)
    assert objections(_report(lateness, dropped=0)) == []
    assert lateness.percentile_s(0.5) <= 128e-6
    assert lateness.percentile_s(1.0) == pytest.approx(2 * LATE_S)
    lateness.add(2 * LATE_S)
    assert len(objections(_report(lateness))) == 1


def test_one_long_pause_or_one_drop_spoils_a_run() -> None:
    """The worst packet counts, and what was dropped for want of time."""
    lateness = Lateness.empty()
    for _ in range(1000):
        lateness.add(0.0)
    assert objections(_report(lateness, unread=1))[0].startswith("1 packets dropped")
    lateness.add(WORST_S * 1.01)
    assert "ms late" in objections(_report(lateness))[0]


def test_an_idle_link_is_not_late() -> None:
    """No packet, no objection."""
    assert objections(_report(Lateness.empty())) == []


def _text(commands: list[list[str]]) -> str:
    return "\n".join(" ".join(command) for command in commands)


def test_the_kernel_is_given_rate_and_queue() -> None:
    """tbf counts 1514 bytes where a shape counts 1500; the queue is in packets or bytes."""
    packets = _text(rate_commands("eth9", Shape(rate_bps=15e6, queue_packets=25)))
    assert "dev eth9 root handle 2: tbf rate 15140000bit burst 3028b" in packets
    assert packets.endswith("parent 2: handle 3: pfifo limit 25")
    in_bytes = _text(rate_commands("eth9", Shape(rate_bps=15e6, queue_bytes=30_000)))
    assert in_bytes.endswith("limit 30000b")
    assert "tbf" not in _text(rate_commands("eth9", Shape()))


def test_the_kernel_is_given_delay_and_faults() -> None:
    """Random loss or Gilbert's, by the same two probabilities as our own chance."""
    plain = _text(fault_commands("eth9", Shape(delay_s=0.015, loss=0.02, duplication=0.1)))
    assert plain.endswith("netem limit 200000 delay 15000us loss random 2% duplicate 10%")
    bursts = _text(fault_commands("eth9", Shape(loss=0.2, loss_burst=4.0)))
    assert bursts.endswith("loss gemodel 6.25% 25%")
    assert "netem" not in _text(fault_commands("eth9", Shape()))


def test_what_the_kernel_cannot_do_is_named() -> None:
    """Corruption must reach the application, and jitter must keep order: netem's do not."""
    assert unfit(Shape(rate_bps=1e6, delay_s=0.1, loss=0.5, loss_burst=2.0)) == ""
    assert unfit(Shape(corruption=0.1), Shape(down_s=1.0)) == "netem has no corruption, down_s"


def test_what_is_wanted_is_taken_and_auto_never_asks_the_kernel_for_too_much() -> None:
    """A shape that netem cannot make is made by TUN, whatever the kernel has."""
    assert chosen(Emulator.NETEM) is Emulator.NETEM
    assert chosen(Emulator.TUN) is Emulator.TUN
    assert chosen(Emulator.AUTO, [Shape(corruption=0.1)]) is Emulator.TUN


def test_the_sums_of_a_way_are_those_of_the_root() -> None:
    """Inner queues count the same packets once more."""
    shown = [
        {"kind": "pfifo", "parent": "2:", "packets": 5, "bytes": 50, "drops": 7},
        {"kind": "tbf", "root": True, "packets": 6, "bytes": 60, "drops": 7},
    ]
    assert way_sums(shown) == {"packets": 6, "bytes": 60, "drops": 7}
    assert way_sums([{"kind": "noqueue", "root": True}])["drops"] == 0
