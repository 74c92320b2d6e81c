"""Any bytes on the port: counted by reason, dropped, no state but what the sender may have."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.api import HopConfig
from packetcloud.chunk.messages import BodyKind
from packetcloud.chunk.names import GUID
from tests.unit.chunk.hop.hop_link import A, B, Link

SHARE = bytes(31) + b"\x09"
GUID_B = GUID(bytes(range(20)))
COOKIE = bytes(range(16))


def recorded(seed: int = 3) -> tuple[Link, list[bytes]]:
    """Return a link with a session, and one datagram of each shape that A sent to B on it."""
    link = Link(seed, loss=0.1)
    seen: dict[tuple[int, int], bytes] = {}

    def record(source: object, datagram: bytes) -> bool:
        if source == A:
            seen.setdefault((datagram[0], len(datagram)), datagram)
        return True

    link.on_datagram = record
    neighbour = link.connect()
    for number, size in enumerate([10, 700, 1444, 5000, 70_000]):
        neighbour.send(BodyKind.CHUNK, b"", bytes([number]) * size, number)
    back = link.uppers[B].up[0]
    back.send(BodyKind.VERDICT, b"", bytes(40_000), "back")
    link.run(lambda: len(link.uppers[A].settled) == 5 and bool(link.uppers[B].settled), 120)
    link.on_datagram = lambda source, datagram: False
    return link, list(seen.values())


def is_sane(link: Link) -> bool:
    """Nothing is held beyond what the recorded session may hold, and no session was lost."""
    core = link.cores[B]
    held = core.stats()["held_bytes"]
    return len(core.sessions) == 1 and held <= HopConfig().credit_bytes + (1 << 20)


def goes_on(link: Link) -> bool:
    """Time passes, what is due is sent, and a new session of the same neighbour carries a body.

    The old session may be beyond help: until datagrams are authenticated, whoever knows its id can
    spoil its transfers.
    """
    for _ in range(50):
        link.now += 0.1
        link.cores[B].handle_timeout(link.now)
        for _ in link.cores[B].datagrams_to_send(link.now):
            pass
    link.on_datagram = lambda source, datagram: True
    link.uppers[B].up.clear()
    session = link.connect()
    known = len(link.uppers[B].bodies)
    session.send(BodyKind.CHUNK, b"", b"y" * 70_000, object())
    link.run(lambda: len(link.uppers[B].bodies) > known)
    return not any(core.dropped["internal_error"] for core in link.cores.values())


def test_every_truncation_is_dropped_or_harmless() -> None:
    """Cut every recorded datagram at every length: no exception, no session lost."""
    link, datagrams = recorded()
    for datagram in datagrams:
        for size in range(len(datagram)):
            link.receive(B, A, [datagram[:size]])
    assert is_sane(link)
    assert goes_on(link)
    assert link.cores[B].dropped["short_datagram"] >= 12


def test_every_bit_flip_is_dropped_or_harmless() -> None:
    """Flip every bit of every header and the first bytes behind it: no exception."""
    link, datagrams = recorded()
    (session,) = link.cores[B].sessions.values()
    for datagram in datagrams:
        for bit in range(min(len(datagram), 200) * 8):
            flipped = bytearray(datagram)
            flipped[bit // 8] ^= 1 << (bit % 8)
            link.receive(B, A, [bytes(flipped)])
            # A flip may make a CLOSE of another frame; the session must live on for the next flip.
            session.is_up = True
            for half in (session.handle_timeout, session.control_to_send, session.bursts_to_send):
                for _ in half(link.now):
                    pass
    assert is_sane(link)
    assert goes_on(link)
    assert sum(link.cores[B].dropped.values()) > 1000


def test_trains_of_anything_mixed_with_anything_are_harmless() -> None:
    """Datagrams of all types, cut, flipped and joined to trains at random: no exception."""
    link, datagrams = recorded()
    chooser = random.Random(11)
    for _ in range(4000):
        size = chooser.choice([60, 600, 1200, 1472])
        train = []
        for _ in range(chooser.randrange(1, 6)):
            row = bytearray(chooser.choice(datagrams)[:size].ljust(size, b"\0"))
            if chooser.random() < 0.5:
                row[chooser.randrange(min(40, size))] ^= 1 << chooser.randrange(8)
            train.append(bytes(row))
        link.receive(B, A, train)
    assert is_sane(link)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=2000), st.booleans())
def test_random_bytes_are_dropped_and_counted(data: bytes, from_neighbour: bool) -> None:
    """Whatever a stranger or a neighbour sends, the core raises nothing and counts the drop."""
    link = _LINK
    before = sum(link.cores[B].dropped.values())
    if not data:
        return
    link.receive(B, A if from_neighbour else ("198.51.100.7", 9), [data])
    assert sum(link.cores[B].dropped.values()) == before + 1
    assert is_sane(link)


_LINK, _DATAGRAMS = recorded()


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=1200))
def test_control_decoder_gives_frames_or_one_named_error(data: bytes) -> None:
    """The h11 law: a value, or exactly ProtocolError."""
    try:
        frames = list(wire.decode_frames(data))
    except ProtocolError:
        return
    assert b"".join(frame.to_bytes() for frame in frames) == data


@pytest.mark.parametrize(
    "decode",
    [wire.Hello, wire.Retry, wire.Welcome, wire.Confirm, wire.Reject],
)
def test_handshake_decoders_give_a_value_or_one_named_error(decode: Any) -> None:
    """Every truncation and bit flip of a valid message, and noise, raise ProtocolError at most."""
    parameters = wire.Parameters(2, 1472, 1 << 20, 1 << 20, 1 << 24, 5)
    valid = {
        wire.Hello: wire.Hello(9, bytes(range(32)), bytes(32), 3, parameters).towards(
            GUID_B, COOKIE
        ),
        wire.Retry: wire.Retry(9, GUID_B, COOKIE, 2).answering(bytes(16)),
        wire.Welcome: wire.Welcome(9, 8, bytes(32), bytes(32), parameters, 2, bytes(64)),
        wire.Confirm: wire.Confirm(9, bytes(64), bytes(16)),
        wire.Reject: wire.Reject(9, bytes(64)),
    }[decode].to_bytes()
    assert decode.from_bytes(valid).to_bytes() == valid
    mutations = [valid[:size] for size in range(len(valid))]
    for bit in range(len(valid) * 8):
        flipped = bytearray(valid)
        flipped[bit // 8] ^= 1 << (bit % 8)
        mutations.append(bytes(flipped))
    for data in mutations:
        try:
            value = decode.from_bytes(data)
        except ProtocolError:
            continue
        # The first byte was looked at before, so it does not come back.
        assert value.to_bytes()[1:] == data[1:]


def test_a_stranger_is_never_sent_more_than_he_sent() -> None:
    """No datagram from an unproven address draws a longer answer (no amplification)."""
    link, datagrams = recorded()
    stranger = ("198.51.100.9", 5)
    core = link.cores[B]
    chooser = random.Random(2)
    stranger_hello = wire.Hello(
        77, bytes(32), SHARE, 1, wire.Parameters(1, 1472, 1 << 20, 1 << 20, 1 << 24)
    )
    hello = stranger_hello.towards(core.identity.guid).to_bytes()
    nameless = stranger_hello.to_bytes()
    for datagram in [*datagrams, hello, nameless, hello[:1199], chooser.randbytes(1200)]:
        link.receive(B, stranger, [datagram])
        answers = [d for d in core.datagrams_to_send(link.now) if d[0] == stranger]
        assert sum(len(b) for _, buffers, _ in answers for b in buffers) <= len(datagram)


def test_many_half_open_handshakes_need_a_cookie_and_stay_bounded() -> None:
    """A flood of HELLOs from many addresses fills a bounded table, then costs a cookie each."""
    link = Link()
    core = link.cores[B]
    parameters = wire.Parameters(1, 1472, 1 << 20, 1 << 20, 1 << 24)
    for number in range(1000):
        hello = wire.Hello(number + 1, bytes(32), SHARE, 1, parameters)
        stranger = (f"198.51.{100 + number // 250}.{number % 250}", 9)
        link.receive(B, stranger, [hello.towards(core.identity.guid).to_bytes()])
    answers = [buffers[0][0] & 15 for _, buffers, _ in core.datagrams_to_send(link.now)]
    assert core.stats()["half_open"] == 64
    assert answers.count(wire.DatagramType.RETRY) == 936
    assert link.connect().is_up, "an honest client gets in with its cookie"
