"""What a stranger can make a node say: never more than he sent, and never without end.

The cases hold for any datagram: of every type, made up, recorded from others, cut, and lengthened.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any

import pytest

from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.api import Refusal, Role
from packetcloud.chunk.hop.core import HopCore
from packetcloud.chunk.hop.envelope import Envelope
from packetcloud.chunk.hop.resets import RESETS_PER_ADDRESS, RESETS_PER_NETWORK
from packetcloud.chunk.messages import BodyKind
from packetcloud.chunk.reasons import Reason
from tests.unit.chunk.hop.hop_link import A, B, Link

SPOOFED = ("203.0.113.7", 999)
TYPES = range(16)
SIZES = (12, 13, 20, 28, 32, 44, 76, 100, 172, 512, 1199, 1200, 1201, 1472, 9000)


def answers(link: Link, address: Any, datagram: bytes) -> list[bytes]:
    """Return what B says to `address` about one datagram from there, at once and in a minute."""
    core = link.cores[B]
    found: list[bytes] = []

    def collect() -> None:
        for to, buffers, row_bytes in core.datagrams_to_send(link.now):
            train = b"".join(bytes(buffer) for buffer in buffers)
            if to == address:
                found.extend(train[at : at + row_bytes] for at in range(0, len(train), row_bytes))

    collect()
    found.clear()
    link.receive(B, address, [datagram])
    for _ in range(3):
        collect()
        core.handle_timeout(link.now)
    return found


def recorded() -> tuple[Link, list[bytes]]:
    """Return a link with a live session, and every datagram that both sides said on it."""
    link = Link()
    seen: list[bytes] = []

    def record(source: Any, datagram: bytes) -> bool:
        seen.append(datagram)
        return True

    link.on_datagram = record
    session = link.connect()
    link.uppers[B].answer = lambda data: Refusal(Reason.STORE_FULL) if data[0] == 7 else None
    tokens = [object() for _ in range(4)]
    for token, body in zip(tokens, (b"x", bytes(5000), b"\7" * 3000, bytes(90_000)), strict=True):
        session.send(BodyKind.CHUNK, b"", body, token)
    link.run_until_settled(4)
    link.on_datagram = lambda source, datagram: False
    return link, seen


def made_up(link: Link) -> Iterator[bytes]:
    """Every type in every version, of known and unknown sessions, of many sizes."""
    chooser = random.Random(4)
    (session,) = link.cores[B].sessions.values()
    ids = (0, 1, session.local_id, session.remote_id)
    for version, kind, number, size in itertools.product((1, 2, 3), TYPES, ids, SIZES):
        head = bytes([version << 4 | kind, 0, 0, 0]) + number.to_bytes(8, "big")
        yield head + bytes(size - 12)
        yield head + chooser.randbytes(size - 12)


def test_no_answer_to_a_stranger_is_longer_than_what_he_sent() -> None:
    """T-09: for each datagram, whatever it is, the bytes of all answers are at most its own."""
    link, seen = recorded()
    assert {datagram[0] & 15 for datagram in seen} >= {1, 2, 3, 4, 6, 7}
    cases = [*seen, *made_up(link)]
    cases += [datagram[:size] for datagram in seen for size in SIZES if size < len(datagram)]
    cases += [datagram.ljust(size, b"\0") for datagram in seen for size in SIZES]
    answered = 0
    for number, datagram in enumerate(cases):
        link.now += 1.0
        address = (f"203.0.{number >> 8 & 255}.{number & 255}", 999)
        said = answers(link, address, datagram)
        assert sum(map(len, said)) <= len(datagram), (datagram[:32].hex(), len(datagram), said)
        answered += bool(said)
    assert answered > 100, "some of it is answered, else this proves nothing"


def test_what_others_said_changes_nothing_when_a_stranger_repeats_it() -> None:
    """T-07: a live session's datagrams from another address: no state changes, no answer."""
    link, seen = recorded()
    core = link.cores[B]
    (session,) = core.sessions.values()
    before = (session.receiver.custody.received_bodies, session.sender.sent_bytes, session.is_up)
    for datagram in seen:
        if int.from_bytes(datagram[4:12], "big") == session.local_id:
            assert not answers(link, SPOOFED, datagram)
    assert (
        session.receiver.custody.received_bodies,
        session.sender.sent_bytes,
        session.is_up,
    ) == before
    assert list(core.sessions.values()) == [session]


def test_guesses_at_a_live_session_change_nothing() -> None:
    """T-07: blind guesses with the neighbour's address and random session ids are counted."""
    link, seen = recorded()
    core = link.cores[B]
    (session,) = core.sessions.values()
    chooser = random.Random(9)
    before = (
        session.receiver.custody.received_bodies,
        session.receiver.acks.received_bytes,
        core.counters(),
    )
    for _ in range(500):
        for datagram in seen:
            if 1 <= datagram[0] & 15 <= 3:
                guess = datagram[:4] + chooser.randbytes(8) + datagram[12:]
                link.receive(B, A, [guess])
        link.now += 0.001
    after = (
        session.receiver.custody.received_bodies,
        session.receiver.acks.received_bytes,
        core.counters(),
    )
    assert after == before
    assert core.dropped["unknown_session"] > 5000
    said = sum(to == A for to, _, _ in core.datagrams_to_send(link.now))
    assert said <= 2 * RESETS_PER_ADDRESS


@pytest.mark.parametrize("are_neighbours", [False, True])
def test_two_nodes_with_stray_datagrams_between_them_fall_silent(are_neighbours: bool) -> None:
    """T-10: every type, each as if the other had sent it: no packet after a second, and few before;
    a session of theirs goes on."""
    link, seen = recorded()
    if not are_neighbours:
        for address in (A, B):
            link.cores[address] = link.core(address, Role.ROUTER, None, 1472)
    sent: list[tuple[float, Any]] = []

    def count(source: Any, datagram: bytes) -> bool:
        sent.append((link.now, source))
        return True

    link.on_datagram = count
    stray = [*seen, *made_up(recorded()[0])]
    for datagram in stray:
        for source, target in ((A, B), (B, A)):
            link.in_flight.append((link.now, 0, source, target, datagram, len(datagram)))
    began = link.now
    _run(link, began + 1.0)
    during = len(sent)
    assert during <= 2 * len(stray)
    sent.clear()
    _run(link, began + 2.9)
    if are_neighbours:
        assert len(sent) <= 4, "keep-alives"
    else:
        assert not sent


def _run(link: Link, end: float) -> None:
    """Let time pass until `end`."""
    while link.now < end:
        link.pump()
        times = [entry[0] for entry in link.in_flight]
        times += [t for c in link.cores.values() if (t := c.next_timeout()) is not None]
        if any(core.has_more for core in link.cores.values()):
            times.append(link.now)
        link.now = min(max(link.now, min(times, default=end)), end)
        link.deliver()
        for core in link.cores.values():
            core.handle_timeout(link.now)


def test_one_flooder_leaves_resets_for_others() -> None:
    """A thousand stray datagrams of one address get few answers, one of another gets its own."""
    link = Link()
    core: HopCore = link.cores[B]
    for number in range(1000):
        stray = Envelope(number + 1, None).control([])
        link.receive(B, SPOOFED, [stray])
    stray = Envelope(4711, None).control([])
    link.receive(B, A, [stray])
    told = [to for to, _, _ in core.datagrams_to_send(link.now)]
    assert told.count(SPOOFED) == RESETS_PER_ADDRESS and told.count(A) == 1


@pytest.mark.parametrize("address", ["198.51.100.{}", "2001:db8:1:2::{}"])
def test_one_network_leaves_resets_for_others(address: str) -> None:
    """All addresses of one network together get few answers, one elsewhere gets its own."""
    link = Link()
    for number in range(1000):
        stray = Envelope(number + 1, None).control([])
        link.receive(B, (address.format(number % 200 + 1), number), [stray])
    link.receive(B, A, [Envelope(4711, None).control([])])
    told = [to for to, _, _ in link.cores[B].datagrams_to_send(link.now)]
    assert len(told) == RESETS_PER_NETWORK + 1 and told.count(A) == 1


def test_strangers_from_everywhere_do_not_suppress_resets() -> None:
    """Sixty as each second begins, every one from another network: a neighbour of an earlier life
    that asks in the same second is told."""
    link = Link()
    core: HopCore = link.cores[B]
    for second in range(2000, 2010):
        for number in range(60):
            link.now = second + number * 0.001
            stray = Envelope(second * 100 + number, None).control([])
            link.receive(B, (f"198.{second % 100}.{number}.7", 9), [stray])
        link.now = second + 0.5
        link.receive(B, A, [Envelope(4711, None).control([])])
        told = [to for to, _, _ in core.datagrams_to_send(link.now)]
        assert told.count(A) == 1
    assert not core.dropped["resets_full"]


def test_garbage_in_place_of_a_confirm_draws_nothing() -> None:
    """While a neighbour has not spoken on its session only the CONFIRM that began it is answered,
    with the ACK that may have been lost; 12 bytes of its type, or another tag, are dropped."""
    link = Link()
    confirms: list[bytes] = []

    def hold(source: Any, datagram: bytes) -> bool:
        if source == A and datagram[0] & 15 == wire.DatagramType.CONFIRM:
            confirms.append(datagram)
        return source == A

    link.on_datagram = lambda source, datagram: source == B or hold(source, datagram)
    link.cores[A].connect(B, None, lambda _: None, link.now)
    link.run(lambda: bool(link.uppers[B].up))
    (confirm, *_) = confirms
    wrong = confirm[:-1] + bytes([confirm[-1] ^ 1])
    for garbage in (confirm[:12], confirm[:-1], confirm + b"x", confirm[:12] + bytes(80), wrong):
        assert not answers(link, A, garbage)
    (answer,) = answers(link, A, confirm)
    assert len(answer) <= len(confirm)
