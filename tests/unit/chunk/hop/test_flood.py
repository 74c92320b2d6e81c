"""Floods of strangers: what share is looked at, and what the kernel lets pass."""

from __future__ import annotations

import socket

import pytest

from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.flood import LOOK_S, MAX_SHIFT, STRANGERS_PER_S, FloodGauge
from packetcloud.chunk.hop.shield import MAX_KNOWN_COUNT, program


class Strangers:
    """Strangers who come at some rate, to a process that can take `most_per_s` of them."""

    def __init__(self, most_per_s: float = 1e12) -> None:
        self.gauge = FloodGauge(0.0)
        self.most_per_s = most_per_s
        self.now = self.passed = self.dropped = 0.0

    def come(self, rate_per_s: float, seconds: float) -> None:
        for _ in range(round(seconds / LOOK_S)):
            self.now += LOOK_S
            taken = min(rate_per_s / (1 << self.gauge.shift), self.most_per_s) * LOOK_S
            self.passed += taken
            self.dropped += rate_per_s * LOOK_S - taken
            self.gauge.look(int(self.passed), int(self.dropped), self.now)


@pytest.mark.parametrize("most_per_s", [1e12, 9000.0, 3000.0])
@pytest.mark.parametrize("rate_per_s", [10_000, 50_000, 1_000_000])
def test_few_enough_pass_of_any_flood(rate_per_s: int, most_per_s: float) -> None:
    """From the second look on no more than may be looked at pass, however busy the process is."""
    strangers = Strangers(most_per_s)
    strangers.come(rate_per_s, 2 * LOOK_S)
    before = strangers.passed
    strangers.come(rate_per_s, 10.0)
    assert rate_per_s / (1 << strangers.gauge.shift) <= STRANGERS_PER_S
    assert rate_per_s / (1 << strangers.gauge.shift) > STRANGERS_PER_S / 2.1
    passed = strangers.passed - before
    assert passed <= STRANGERS_PER_S * 10
    assert strangers.gauge.shed_count >= (rate_per_s * 10 - passed) * 0.99


def test_what_is_no_flood_is_not_shed() -> None:
    """As many strangers as may be looked at all pass, also when the socket drops much else."""
    strangers = Strangers()
    strangers.come(STRANGERS_PER_S, 10.0)
    strangers.dropped += 1e6
    strangers.come(100, 10.0)
    assert strangers.gauge.shift == 0 and strangers.gauge.shed_count == 0


def test_the_door_opens_by_steps_when_a_flood_ends() -> None:
    """After a flood all pass again within seconds, but not at once."""
    strangers = Strangers()
    strangers.come(1e9, 1.0)
    assert strangers.gauge.shift == MAX_SHIFT
    strangers.come(0.0, LOOK_S)
    assert strangers.gauge.shift == MAX_SHIFT - 1
    strangers.come(0.0, MAX_SHIFT * LOOK_S)
    assert strangers.gauge.shift == 0


def test_a_look_too_early_changes_nothing() -> None:
    """However often it is called, it measures over a while."""
    gauge = FloodGauge(0.0)
    assert not gauge.look(1_000_000, 0, LOOK_S / 2)
    assert gauge.look(1_000_000, 0, LOOK_S)


def run(code: bytes, datagram: bytes, lot: int) -> bool:
    """Run a filter as the kernel would: the UDP header first, numbers in network order."""
    packet = bytes(8) + datagram
    steps = [
        (int.from_bytes(code[at : at + 2], "little"), code[at + 2], code[at + 3],
         int.from_bytes(code[at + 4 : at + 8], "little"))
        for at in range(0, len(code), 8)
    ]  # fmt: skip
    value, at = 0, 0
    while True:
        kind, if_true, if_false, number = steps[at]
        at += 1
        if kind == 0x20:
            if number >= 0xFFFF_F000:
                value = lot
            elif number + 4 > len(packet):
                return False
            else:
                value = int.from_bytes(packet[number : number + 4], "big")
        elif kind == 0x54:
            value &= number
        elif kind == 0x15:
            at += if_true if value == number else if_false
        else:
            assert kind == 0x06
            return number > 0


def test_the_filter_knows_sessions_and_draws_lots_for_the_rest() -> None:
    """Known ids pass whatever the lot is; of the rest one in eight; too short is dropped."""
    known = [0x1122_3344_5566_7788, 0xFFFF_FFFF_0000_0001]
    code = program(3, {number & 0xFFFF_FFFF for number in known})
    for number in known:
        assert all(
            run(code, wire.PREFIX.pack(wire.DATA_BYTE, 0, 0, number), lot) for lot in range(9)
        )
    stranger = wire.PREFIX.pack(wire.DATA_BYTE, 0, 0, 4711)
    assert [run(code, stranger, lot) for lot in range(16)] == [lot % 8 == 0 for lot in range(16)]
    assert not run(code, stranger[:11], 0)
    assert len(program(1, range(MAX_KNOWN_COUNT))) // 8 <= 4096


def test_the_kernel_takes_the_filter() -> None:
    """On a real socket: a known id passes always, a stranger's now and then."""
    from packetcloud.chunk.hop.shield import Shield

    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind(("127.0.0.1", 0))
        receiver.setblocking(False)
        shield = Shield(receiver)

        def passed(number: int, count: int) -> int:
            for _ in range(count):
                datagram = wire.PREFIX.pack(wire.DATA_BYTE, 0, 0, number)
                sender.sendto(datagram, receiver.getsockname())
            taken = 0
            while True:
                try:
                    receiver.recv(100)
                except BlockingIOError:
                    return taken
                taken += 1

        shield.shed(5, [0xABCD_0000_0000_0007])
        assert passed(0xABCD_0000_0000_0007, 100) == 100
        taken = passed(0xABCD_0000_0000_0008, 200)
        assert taken < 60 and shield.dropped_count() == 200 - taken
        shield.shed(0, ())
        assert passed(0xABCD_0000_0000_0008, 100) == 100
