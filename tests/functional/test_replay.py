"""Everything that was said in a session's life, said again after a restart, in any order."""

from __future__ import annotations

import random
from typing import Any

import pytest

from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.core import HopCore
from packetcloud.chunk.hop.stamps import MAX_JUMP, PEERS_COUNT, Stamps
from packetcloud.chunk.messages import BodyKind
from packetcloud.chunk.names import GUID
from tests.unit.chunk.hop.hop_link import A, B, Link, Upper

NOW_NS = 1_700_000_000 * 10**9
DAY_NS = 24 * 3600 * 10**9


class Life(Link):
    """Two nodes whose stamps can be kept, and everything that they said to each other."""

    def __init__(self, seed: int = 1) -> None:
        self.clock_ns = NOW_NS
        self.files: dict[Any, bytes] = {}
        super().__init__(seed)
        for address in (A, B):
            self.restart(address, keep=False)
        self.said: list[tuple[Any, bytes]] = []
        self.on_datagram = lambda source, datagram: not self.said.append((source, datagram))

    def restart(self, address: Any, *, keep: bool) -> HopCore:
        """The process ends without a word, and begins again with the same key."""
        old = self.cores[address]
        self.uppers[address] = Upper()
        saved = old.stamps.to_bytes() if keep else None
        self.cores[address] = HopCore(
            old.identity, old.role, old.config, self.uppers[address], self.random.randbytes,
            lambda _: 1472, 1 << 20, None, lambda: None,
            stamps=Stamps(lambda: self.clock_ns, saved),
        )  # fmt: skip
        return self.cores[address]

    def live(self) -> None:
        """A session with bodies of all kinds in both directions, refused ones, and a farewell."""
        ours = self.connect()
        (theirs,) = self.uppers[B].up
        for number, size in enumerate((10, 1430, 5000, 200_000)):
            ours.send(BodyKind.CHUNK, b"", bytes([number]) * size, number)
            theirs.send(BodyKind.VERDICT, b"", bytes([number]) * size, number)
        self.run(lambda: len(self.uppers[A].settled) == len(self.uppers[B].settled) == 4)
        ours.close("good bye")
        self.run(lambda: bool(self.uppers[B].down))


def orders(said: list[tuple[Any, bytes]]) -> list[list[tuple[Any, bytes]]]:
    """As it was, backwards, each twice, and shuffled."""
    found = [said, said[::-1], [one for one in said for _ in range(2)]]
    for seed in range(20):
        mixed = said[:]
        random.Random(seed).shuffle(mixed)
        found.append(mixed)
    return found


def replay(link: Life, said: list[tuple[Any, bytes]]) -> None:
    """Say it all again, to both nodes, from where it came."""
    for source, datagram in said:
        address = B if source == A else A
        link.receive(address, source, [datagram])
        for _ in link.cores[address].datagrams_to_send(link.now):
            pass
        link.now += 0.001


@pytest.mark.parametrize("clock_step_ns", [0, -DAY_NS])
@pytest.mark.parametrize("restarted", [(A,), (B,), (A, B)])
def test_a_recorded_life_changes_nothing(restarted: tuple[Any, ...], clock_step_ns: int) -> None:
    """No session, nothing half open, no body, nobody told of anything; then a real one works."""
    link = Life()
    link.live()
    said = link.said[:]
    assert {datagram[0] & 15 for _, datagram in said} >= {1, 2, 3, 4, 6, 7}
    link.clock_ns += clock_step_ns
    for address in restarted:
        link.restart(address, keep=True)
    for order in orders(said):
        replay(link, order)
        for address in (A, B):
            core, upper = link.cores[address], link.uppers[address]
            assert not core.sessions and not core.stats()["half_open"]
            assert core.stats()["held_bytes"] == 0
            if address in restarted:
                assert not upper.up and not upper.bodies and not upper.settled
    again = link.connect()
    again.send(BodyKind.CHUNK, b"", bytes(50_000), "x")
    link.run(lambda: any(token == "x" for token, _, _ in link.uppers[A].settled))


@pytest.mark.parametrize("restarted", [(A,), (B,), (A, B)])
def test_without_a_file_a_recorded_life_opens_no_session(restarted: tuple[Any, ...]) -> None:
    """A recorded HELLO may be answered; nobody can go on from there."""
    link = Life()
    link.live()
    said = link.said[:]
    for address in restarted:
        link.restart(address, keep=False)
    for order in orders(said):
        replay(link, order)
        for address in (A, B):
            core, upper = link.cores[address], link.uppers[address]
            assert not core.sessions
            if address in restarted:
                assert not upper.up and not upper.bodies and not upper.settled


def test_a_live_session_survives_the_life_before_it() -> None:
    """What was said before a restart does not disturb the session of today."""
    link = Life()
    link.live()
    said = link.said[:]
    for address in (A, B):
        link.restart(address, keep=True)
    session = link.connect()
    bodies = len(link.uppers[B].bodies)
    for order in orders(said):
        replay(link, order)
    assert session.is_up and len(link.cores[A].sessions) == len(link.cores[B].sessions) == 1
    assert len(link.uppers[B].bodies) == bodies


@pytest.mark.parametrize("keep", [False, True])
def test_a_clock_that_steps_back_locks_nobody_out(keep: bool) -> None:
    """With its own stamps kept it goes on from there; without it is told the newest."""
    link = Life()
    link.live()
    link.clock_ns -= DAY_NS
    link.restart(A, keep=keep)
    began = link.now
    assert link.connect().is_up
    assert link.now - began < 0.1


def test_a_lie_about_stamps_moves_them_a_hundred_years_at_most() -> None:
    """Else whoever is on the path once could bring them to their end."""
    link = Life()
    core = link.cores[A]
    core.connect(B, link.cores[B].identity.guid, lambda _: None, link.now)
    ((_, (hello,), _),) = core.datagrams_to_send(link.now)
    mac = bytes(hello)[wire.HELLO_CORE_BYTES : wire.HELLO_CORE_BYTES + wire.MAC_BYTES]
    session = int.from_bytes(bytes(hello)[4:12], "big")
    for ahead, is_followed in ((MAX_JUMP + 1, False), (MAX_JUMP - 10**9, True)):
        lie = wire.Retry(session, link.cores[B].identity.guid, bytes(16), NOW_NS + ahead)
        link.receive(A, B, [lie.answering(mac).to_bytes()])
        ((_, (again,), _),) = core.datagrams_to_send(link.now)
        assert (wire.Hello.from_bytes(bytes(again)).stamp > NOW_NS + 10**9) is is_followed


def test_two_handshakes_at_once_leave_the_newer_one() -> None:
    """A CONFIRM whose stamp was overtaken opens nothing."""
    link = Life()
    stamps = link.cores[B].stamps
    held: list[bytes] = []

    def hold(source: Any, datagram: bytes) -> bool:
        if datagram[0] & 15 == wire.DatagramType.CONFIRM and not held:
            held.append(datagram)
        return not (held and datagram == held[0])

    link.on_datagram = hold
    link.cores[A].connect(B, None, lambda _: None, link.now)
    link.run(lambda: bool(held))
    guid = link.cores[A].identity.guid
    stamps.note(guid, 0, NOW_NS + DAY_NS)
    link.receive(B, A, held)
    assert link.cores[B].dropped["old_stamp"] == 1 and not link.cores[B].sessions


def test_stamps_grow_whatever_the_clock_does() -> None:
    """Forward with it, by one where it stands still or steps back, also over a restart."""
    clock = [NOW_NS]
    stamps = Stamps(lambda: clock[0])
    taken = [stamps.take(), stamps.take()]
    clock[0] += 5 * 10**9
    taken.append(stamps.take())
    clock[0] -= DAY_NS
    taken.append(stamps.take())
    taken.append(Stamps(lambda: clock[0], stamps.to_bytes()).take())
    assert taken == sorted(set(taken)) and taken[2] == NOW_NS + 5 * 10**9


def test_stamps_are_the_same_after_a_restart() -> None:
    """Also the most that are kept; what is no such file is refused."""
    stamps = Stamps()
    for number in range(PEERS_COUNT + 10):
        stamps.note(GUID(number.to_bytes(20, "big")), number % 3, number + 1)
    again = Stamps(saved=stamps.to_bytes())
    assert again.to_bytes() == stamps.to_bytes()
    assert again.newest(GUID((PEERS_COUNT + 9).to_bytes(20, "big")), (PEERS_COUNT + 9) % 3)
    assert not again.newest(GUID(bytes(20)), 0)
    for damaged in (b"", b"{}", b"[]", b'{"format": "other"}', stamps.to_bytes()[:-5], b"\xff"):
        with pytest.raises(ValueError, match="not a file of stamps"):
            Stamps(saved=damaged)
