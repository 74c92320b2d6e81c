"""Two hop cores joined in memory: what they promise each other on good and on bad links."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from packetcloud.chunk.errors import LocalMisuseError
from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.api import (
    MAX_PREFIX_BYTES,
    HopConfig,
    Neighbour,
    Refusal,
    Role,
    Settlement,
)
from packetcloud.chunk.hop.core import HopCore
from packetcloud.chunk.hop.envelope import Envelope
from packetcloud.chunk.hop.replies import MAX_REPLIES_COUNT
from packetcloud.chunk.hop.resets import RESET_DOMAIN, RESETS_PER_S, signed_bytes
from packetcloud.chunk.hop.session import Session
from packetcloud.chunk.identity import Identity
from packetcloud.chunk.messages import BodyKind
from packetcloud.chunk.reasons import Reason

A = ("192.0.2.1", 4000)
B = ("192.0.2.2", 4000)
OPEN = HopConfig(private_links=("192.0.2.0/24",))


class Upper:
    """The layer above: keeps what it is told; `answer` decides on each body."""

    def __init__(self) -> None:
        self.up: list[Neighbour] = []
        self.down: list[str] = []
        self.bodies: list[bytes] = []
        self.settled: list[tuple[object, Settlement, int]] = []
        self.keep: list[Any] = []
        self.answer: Callable[[bytes], Refusal | None] = lambda data: None
        self.keeps = False

    def neighbour_up(self, neighbour: Neighbour) -> None:
        self.up.append(neighbour)

    def neighbour_down(self, neighbour: Neighbour, reason: str) -> None:
        self.down.append(reason)

    def body_received(self, neighbour: Neighbour, kind: BodyKind, body: Any) -> Refusal | None:
        data = body.head(100) if self.keeps else bytes(body.contiguous())
        refusal = self.answer(data)
        if refusal is None:
            self.bodies.append(data)
            if self.keeps:
                self.keep.append(body)
            else:
                body.release()
        return refusal

    def body_settled(
        self, neighbour: Neighbour, token: object, settlement: Settlement, reason: int
    ) -> None:
        self.settled.append((token, settlement, reason))


class Link:
    """Two cores, a clock and a network that loses, repeats, alters, reorders and delays by one
    seed."""

    def __init__(
        self,
        seed: int = 1,
        *,
        loss: float = 0.0,
        duplication: float = 0.0,
        corruption: float = 0.0,
        jitter_s: float = 0.0,
        delay_s: float = 0.005,
        config: HopConfig | None = None,
        datagram_bytes: int = 1472,
        has_fast_aes: bool = True,
    ) -> None:
        self.random = random.Random(seed)
        self.now = 1000.0
        self.loss, self.duplication, self.corruption = loss, duplication, corruption
        self.jitter_s, self.delay_s = jitter_s, delay_s
        self.in_flight: list[tuple[float, int, Any, Any, bytes, int]] = []
        self.count = 0
        self.has_fast_aes = has_fast_aes
        self.uppers = {A: Upper(), B: Upper()}
        self.cores: dict[Any, HopCore] = {}
        for address, role in ((A, Role.HOST), (B, Role.ROUTER)):
            self.cores[address] = self.core(address, role, config, datagram_bytes)
        self.on_datagram: Callable[[Any, bytes], bool] = lambda address, datagram: True

    def core(
        self,
        address: Any,
        role: Role,
        config: HopConfig | None,
        datagram_bytes: int,
        identity: Identity | None = None,
    ) -> HopCore:
        return HopCore(
            identity or Identity(self.random.randbytes(32)),
            role,
            config or HopConfig(),
            self.uppers[address],
            self.random.randbytes,
            lambda _: datagram_bytes,
            1 << 20,
            None,
            lambda: None,
            has_fast_aes=self.has_fast_aes,
        )

    def connect(self) -> Session:
        result: list[Session | str] = []
        self.cores[A].connect(B, None, result.append, self.now)
        self.run(lambda: bool(result) and bool(self.uppers[B].up))
        assert isinstance(result[0], Session), result
        return result[0]

    def pump(self) -> None:
        """Let every core send once and put what it sends on the wire, datagram by datagram."""
        for source, core in self.cores.items():
            for address, buffers, row_bytes in core.datagrams_to_send(self.now):
                train = b"".join(bytes(b) for b in buffers)
                for start in range(0, len(train), row_bytes):
                    self.put(source, address, train[start : start + row_bytes])

    def put(self, source: Any, address: Any, datagram: bytes) -> None:
        if not self.on_datagram(source, datagram) or self.random.random() < self.loss:
            return
        copies = 2 if self.random.random() < self.duplication else 1
        for _ in range(copies):
            self.count += 1
            if self.corruption and self.random.random() < self.corruption:
                altered = bytearray(datagram)
                for _ in range(self.random.choice((1, 1, 8))):
                    bit = self.random.randrange(8 * len(altered))
                    altered[bit // 8] ^= 1 << bit % 8
                datagram = bytes(altered)
            at = self.now + self.delay_s + self.random.random() * self.jitter_s
            self.in_flight.append((at, self.count, source, address, datagram, len(datagram)))

    def deliver(self) -> None:
        """Hand over what is due; datagrams of one size and source in a row come as a train."""
        due = sorted(entry for entry in self.in_flight if entry[0] <= self.now)
        self.in_flight = [entry for entry in self.in_flight if entry[0] > self.now]
        at = 0
        while at < len(due):
            _, _, source, address, first, size = due[at]
            train = [first]
            while (
                at + len(train) < len(due)
                and (len(train) + 1) * size <= 65_535
                and due[at + len(train)][2:4] == (source, address)
                and len(train[-1]) == size
                and due[at + len(train)][5] <= size
            ):
                train.append(due[at + len(train)][4])
            at += len(train)
            self.receive(address, source, train)

    def receive(self, address: Any, source: Any, train: list[bytes]) -> None:
        core, data = self.cores[address], b"".join(train)
        left = memoryview(data)
        for buffer in core.landing():
            taken = min(len(buffer), len(left))
            buffer[:taken] = left[:taken]
            left = left[taken:]
        core.receive_train(len(data), len(train[0]), source, self.now)

    def run(self, until: Callable[[], bool], limit_s: float = 60.0) -> None:
        """Advance the clock from event to event until a condition holds."""
        end = self.now + limit_s
        for _ in range(400_000):
            self.pump()
            if until():
                return
            times = [entry[0] for entry in self.in_flight]
            times += [t for c in self.cores.values() if (t := c.next_timeout()) is not None]
            if any(core.has_more for core in self.cores.values()):
                times.append(self.now)
            assert times, "nothing left to wait for"
            self.now = max(self.now, min(times))
            assert self.now < end, f"no end after {limit_s} s"
            self.deliver()
            for core in self.cores.values():
                core.handle_timeout(self.now)
        raise AssertionError("too many steps")


def bodies_of(link: Link, sizes: list[int]) -> list[bytes]:
    return [link.random.randbytes(size) for size in sizes]


SIZES = [
    1, 20, 1400, 1418, 1424, 1425, 1433, 1434, 1440, 1441, 2864, 2865, 2880, 2881, 10_000, 64_000,
    300_000, 1_048_576,
]  # fmt: skip
"""Also those that just fill a bundle, one segment and two, of datagrams of 1472 bytes."""


@pytest.mark.parametrize("suite", wire.Suite)
@pytest.mark.parametrize("datagram_bytes", [1200, 1472, 9000, 65_507])
def test_bodies_of_every_size_arrive_once_and_intact(
    datagram_bytes: int, suite: wire.Suite
) -> None:
    """On a clean link every body arrives once, unchanged, and is settled as accepted."""
    link = Link(
        datagram_bytes=datagram_bytes,
        config=OPEN if suite is wire.Suite.OPEN else None,
        has_fast_aes=suite is wire.Suite.AES_256_GCM,
    )
    neighbour = link.connect()
    assert neighbour.suite is suite
    bodies = bodies_of(link, SIZES * 2)
    for number, body in enumerate(bodies):
        cut = min(number % 90, len(body))
        neighbour.send(BodyKind.CHUNK, body[:cut], body[cut:], number)
    link.run(lambda: len(link.uppers[A].settled) == len(bodies))
    assert sorted(link.uppers[B].bodies) == sorted(bodies)
    assert {s for _, s, _ in link.uppers[A].settled} == {Settlement.ACCEPTED}
    assert neighbour.sender.retransmitted_segments == 0
    assert neighbour.queued_bytes == 0 and neighbour.sender.in_flight_bytes == 0
    assert link.cores[B].stats()["held_bytes"] == 0
    assert not link.cores[A].dropped and not link.cores[B].dropped


@pytest.mark.parametrize("seed", range(16))
def test_bodies_survive_loss_repetition_and_reordering(seed: int) -> None:
    """Up to 30 % loss, 10 % repeats and reordering: every body once, intact, none missing."""
    chooser = random.Random(seed)
    link = Link(
        seed,
        loss=chooser.choice([0.0, 0.02, 0.1, 0.3]),
        duplication=chooser.choice([0.0, 0.1]),
        jitter_s=chooser.choice([0.0, 0.004, 0.02]),
        datagram_bytes=chooser.choice([1200, 1472, 1472, 20_000, 65_507]),
        config=OPEN if chooser.random() < 0.3 else None,
    )
    neighbour = link.connect()
    bodies = bodies_of(link, [chooser.choice(SIZES[:-1]) for _ in range(60)])
    for number, body in enumerate(bodies):
        neighbour.send(BodyKind.CHUNK, b"", body, number)
    link.run(lambda: len(link.uppers[A].settled) == len(bodies), 300)
    assert sorted(link.uppers[B].bodies) == sorted(bodies)
    assert sorted(t for t, _, _ in link.uppers[A].settled) == list(range(len(bodies)))
    assert {s for _, s, _ in link.uppers[A].settled} == {Settlement.ACCEPTED}


def test_a_received_body_goes_on_in_place() -> None:
    """A body that came in rows and is sent on without a prefix is not copied and stays intact."""
    link = Link(loss=0.05, seed=5, config=OPEN)
    neighbour = link.connect()
    link.uppers[B].keeps = True
    body = link.random.randbytes(500_000)
    neighbour.send(BodyKind.CHUNK, b"", body, "out")
    link.run(lambda: bool(link.uppers[B].keep))
    held = link.uppers[B].keep[0]
    assert held.rows is not None
    held.patch(3, b"xyz")
    link.uppers[B].up[0].send_body(BodyKind.CHUNK, held, "back")
    assert held.rows is not None
    link.run(lambda: bool(link.uppers[B].settled), 120)
    assert link.uppers[A].bodies == [body[:3] + b"xyz" + body[6:]]
    held.release()


def test_a_refusal_reaches_the_sender_with_its_reason_even_when_answers_get_lost() -> None:
    """A refused body is settled REFUSED with the receiver's reason; the rest is not held up."""
    link = Link(7, loss=0.3)
    neighbour = link.connect()
    link.uppers[B].answer = lambda data: (
        Refusal(Reason.UNKNOWN_SID) if data.startswith(b"no") else None
    )
    for number in range(40):
        word = b"no" if number % 3 == 0 else b"ok"
        neighbour.send(BodyKind.CHUNK, b"", word + bytes(number * 300), number)
    link.run(lambda: len(link.uppers[A].settled) == 40, 120)
    for token, settlement, reason in link.uppers[A].settled:
        refused = token % 3 == 0  # type: ignore[operator]
        assert settlement is (Settlement.REFUSED if refused else Settlement.ACCEPTED)
        assert reason == (Reason.UNKNOWN_SID if refused else 0)
    assert len(link.uppers[B].bodies) == 26


def test_a_body_over_the_limit_is_refused_before_it_is_sent() -> None:
    """A body larger than the neighbour takes costs nothing on the wire."""
    link = Link(config=HopConfig(max_body_bytes=1000))
    neighbour = link.connect()
    neighbour.send(BodyKind.CHUNK, b"", bytes(1001), "big")
    neighbour.send(BodyKind.CHUNK, b"", bytes(1000), "fits")
    link.run(lambda: len(link.uppers[A].settled) == 2)
    assert link.uppers[A].settled[0] == ("big", Settlement.REFUSED, Reason.PAYLOAD_TOO_LARGE)
    assert link.uppers[A].settled[1] == ("fits", Settlement.ACCEPTED, 0)


def test_credit_stops_the_sender_and_a_release_lets_it_go_on() -> None:
    """A neighbour that holds its bodies is sent no more than its credit, and more once it lets
    go."""
    link = Link(config=HopConfig(credit_bytes=300_000 + 3 * wire.TAG_BYTES))
    neighbour = link.connect()
    upper = link.uppers[B]
    upper.keeps = True
    for number in range(10):
        neighbour.send(BodyKind.CHUNK, b"", bytes(100_000), number)
    link.run(lambda: len(upper.bodies) == 3)
    end = link.now + 2
    link.run(lambda: link.now > end)
    assert len(upper.bodies) == 3
    upper.keep.pop(0).release()
    link.run(lambda: len(upper.bodies) == 4)
    while len(upper.bodies) < 10:
        upper.keep.pop(0).release()
        link.run(lambda: bool(upper.keep))
    for body in upper.keep:
        body.release()
    link.run(lambda: len(link.uppers[A].settled) == 10)
    assert not link.cores[B].dropped


def test_a_silent_neighbour_is_down_and_its_bodies_are_settled_lost() -> None:
    """After the idle time-out the layer above learns of every unsettled body, then of the end."""
    link = Link(config=HopConfig(idle_timeout_s=4, keepalive_s=1))
    neighbour = link.connect()
    link.on_datagram = lambda source, datagram: False
    neighbour.send(BodyKind.CHUNK, b"", bytes(5000), "x")
    link.run(lambda: bool(link.uppers[A].down), 30)
    assert link.uppers[A].settled == [("x", Settlement.LOST, 0)]
    assert link.uppers[A].down == ["no answer"]


def test_an_idle_session_stays_up_by_keepalives() -> None:
    """Nobody sends anything for a minute: the session is still there, on both sides."""
    link = Link(config=HopConfig(idle_timeout_s=4, keepalive_s=1))
    neighbour = link.connect()
    end = link.now + 55
    link.run(lambda: link.now >= end)
    assert neighbour.is_up and not link.uppers[A].down and not link.uppers[B].down


def test_close_tells_the_other_side() -> None:
    """A closed session ends on both sides at once, with the reason."""
    link = Link()
    neighbour = link.connect()
    neighbour.close("moving house")
    link.run(lambda: bool(link.uppers[B].down))
    assert link.uppers[B].down == ["moving house"]
    assert link.uppers[A].down == ["moving house"]


def test_cancel_settles_at_once_and_the_rest_goes_on() -> None:
    """A cancelled body is settled CANCELLED, and bodies after it still arrive."""
    link = Link()
    neighbour = link.connect()
    for number in range(6):
        neighbour.send(BodyKind.CHUNK, b"", bytes([number]) * 200_000, number)
    link.pump()
    neighbour.cancel(0)
    neighbour.cancel(3)
    link.run(lambda: len(link.uppers[A].settled) == 6)
    cancelled = {t for t, s, _ in link.uppers[A].settled if s is Settlement.CANCELLED}
    assert cancelled == {0, 3}
    assert {body[0] for body in link.uppers[B].bodies} == {1, 2, 4, 5}


@pytest.mark.parametrize("size", [100, 2_500])
def test_cancel_of_what_was_sent_whole_is_no_certain_no(size: int) -> None:
    """The neighbour may have it all in its socket: CANCELLED, "it has it not", would be a lie."""
    link = Link()
    neighbour = link.connect()
    neighbour.send(BodyKind.CHUNK, b"", bytes(size), 7)
    list(link.cores[A].datagrams_to_send(link.now))
    neighbour.cancel(7)
    assert link.uppers[A].settled == [(7, Settlement.LOST, 0)]


def test_handshakes_get_through_thirty_percent_loss() -> None:
    """50 of 50 handshakes succeed at 30 % loss each way (the QUIC interop runner's case)."""
    for seed in range(50):
        link = Link(seed, loss=0.3)
        assert link.connect().is_up


def test_a_new_session_of_the_same_instance_replaces_the_old_one() -> None:
    """A restarted neighbour takes its predecessor's place at once."""
    link = Link()
    link.connect()
    link.run(lambda: not link.in_flight)  # the new process would know nothing of it
    identity = link.cores[A].identity
    link.cores[A] = HopCore(
        identity, Role.HOST, HopConfig(), link.uppers[A], link.random.randbytes,
        lambda _: 1472, 1 << 20, None, lambda: None,
    )  # fmt: skip
    link.connect()
    link.run(lambda: bool(link.uppers[B].down))
    assert link.uppers[B].down == ["replaced by a new session"]
    assert len(link.cores[B].sessions) == 1


def test_a_second_process_with_the_same_key_takes_the_place_and_the_first_is_told() -> None:
    """It would else believe that its neighbour was restarted, and come back at once."""
    link = Link()
    link.connect()
    elsewhere = ("192.0.2.3", 4000)
    link.uppers[elsewhere] = Upper()
    link.cores[elsewhere] = HopCore(
        link.cores[A].identity, Role.HOST, HopConfig(), link.uppers[elsewhere],
        link.random.randbytes, lambda _: 1472, 1 << 20, None, lambda: None,
    )  # fmt: skip
    link.cores[elsewhere].connect(B, None, lambda _: None, link.now)
    link.run(lambda: bool(link.uppers[A].down))
    assert link.uppers[A].down == ["another process attached with the same key"]
    assert len(link.cores[B].sessions) == 1


def test_a_control_datagram_joined_to_a_train_of_data_counts() -> None:
    """The kernel may hand over segments and a short PROBE behind them as one train."""
    link = Link()
    neighbour = link.connect()
    neighbour.send(BodyKind.CHUNK, b"", bytes(1440 * 6 - 16), "x")
    seen: list[bytes] = []
    link.on_datagram = lambda source, datagram: bool(seen.append(datagram)) if source == A else True
    link.pump()
    data = [datagram for datagram in seen if len(datagram) == 1472][:2]
    probe = neighbour._envelope.control([neighbour.sender.flight.probe(link.now)])
    link.receive(B, A, [*data, probe])
    assert not link.cores[B].dropped
    answers = list(link.cores[B].datagrams_to_send(link.now))
    assert any(bytes(buffers[0])[0] == wire.CONTROL_BYTE for _, buffers, _ in answers)


def test_a_single_small_body_needs_no_probe() -> None:
    """The very first burst is acknowledged as such: a round-trip sample, and nothing in flight."""
    link = Link()
    neighbour = link.connect()
    neighbour.send(BodyKind.CHUNK, b"", b"hello", "x")
    link.run(lambda: bool(link.uppers[A].settled))
    end = link.now + 1
    link.run(lambda: link.now > end)
    assert neighbour.sender.probes == 0 and neighbour.sender.in_flight_bytes == 0
    assert neighbour.rtt.smoothed_s == pytest.approx(2 * link.delay_s, abs=0.006)


def test_a_restarted_neighbour_ends_the_old_session_at_the_first_datagram() -> None:
    """Who lost its sessions says so, and the other side need not wait for the idle time-out."""
    link = Link()
    neighbour = link.connect()
    identity = link.cores[B].identity
    link.cores[B] = HopCore(
        identity, Role.ROUTER, HopConfig(), link.uppers[B], link.random.randbytes,
        lambda _: 1472, 1 << 20, None, lambda: None,
    )  # fmt: skip
    neighbour.send(BodyKind.CHUNK, b"", bytes(100), "x")
    began = link.now
    link.run(lambda: bool(link.uppers[A].down))
    assert link.uppers[A].down == ["the neighbour was restarted"]
    assert link.uppers[A].settled == [("x", Settlement.LOST, 0)]
    assert link.now - began < 0.1


def test_a_forged_reset_ends_nothing() -> None:
    """A REJECT with a guessed id, from another address or without the signature is dropped."""
    link = Link()
    neighbour = link.connect()
    signer = link.cores[B].identity
    signature = signer.sign(RESET_DOMAIN, signed_bytes(neighbour.remote_id, 0))
    right = wire.Reject(neighbour.remote_id, signature).to_bytes()
    wrong = wire.Reject(neighbour.remote_id ^ 2, signature).to_bytes()
    forged = wire.Reject(neighbour.remote_id, bytes(64)).to_bytes()
    link.receive(A, ("198.51.100.1", 4000), [right])
    link.receive(A, B, [wrong])
    link.receive(A, B, [forged])
    assert neighbour.is_up and not link.uppers[A].down
    assert link.cores[A].dropped == {"unknown_session": 2, "bad_signature": 1}
    link.receive(A, B, [right])
    assert link.uppers[A].down == ["the neighbour was restarted"]


def test_a_body_released_after_its_session_is_over_leaves_nothing_to_do() -> None:
    """The layer above may keep a body for long; the node does not turn for one that is gone."""
    link = Link(config=HopConfig(credit_bytes=100_000))
    kept: list[Any] = []
    upper = link.uppers[B]
    upper.body_received = lambda neighbour, kind, body: kept.append(body)  # type: ignore[method-assign]
    neighbour = link.connect()
    neighbour.send(BodyKind.CHUNK, b"", bytes(90_000), "x")
    link.run(lambda: bool(kept))
    neighbour.close("over")
    link.run(lambda: bool(upper.down))
    core = link.cores[B]
    list(core.datagrams_to_send(link.now))
    assert not core.has_more
    for body in kept:
        body.release()
    assert not core.has_more
    for _ in range(3):
        list(core.datagrams_to_send(link.now))
    assert not core.has_more and core.pool.held_bytes == 0


def test_what_a_replica_does_not_know_ends_no_session_of_another() -> None:
    """Two bearers of one key: a reset asked of one, with the session id of the other, is dropped
    by whoever has that session; one of the bearer that it is with ends it."""
    link = Link()
    neighbour = link.connect()

    def bearer(instance: int) -> HopCore:
        return HopCore(
            link.cores[B].identity, Role.ROUTER, HopConfig(instance=instance), Upper(),
            link.random.randbytes, lambda _: 1472, 1 << 20, None, lambda: None,
        )  # fmt: skip

    def reset_of(core: HopCore) -> bytes:
        asked = Envelope(neighbour.remote_id, None).control([wire.PaddingFrame(60).to_bytes()])
        core.landing()[0][: len(asked)] = asked
        core.receive_train(len(asked), len(asked), ("203.0.113.9", 9), link.now)
        [(_, [reset], _)] = core.datagrams_to_send(link.now)
        return bytes(reset)

    link.receive(A, B, [reset_of(bearer(7))])
    assert neighbour.is_up and not link.uppers[A].down
    assert link.cores[A].dropped["bad_signature"] == 1
    link.receive(A, B, [reset_of(bearer(0))])
    assert link.uppers[A].down == ["the neighbour was restarted"]


def test_resets_are_few_and_never_answer_resets() -> None:
    """A flood of datagrams for unknown sessions draws at most 1000 short answers at once."""
    link = Link()
    core = link.cores[B]
    for number in range(2 * RESETS_PER_S):
        control = Envelope(number + 1, None).control([wire.ProbeFrame(1).to_bytes()])
        address = (f"198.{number % 250}.100.{number % 200}", 9)
        link.receive(B, address, [control])
        link.receive(B, address, [wire.Reject(number + 1, bytes(64)).to_bytes()])
    answers = list(core.datagrams_to_send(link.now))
    assert len(answers) == RESETS_PER_S
    assert all(len(buffers[0]) == wire.REJECT_BYTES <= len(control) for _, buffers, _ in answers)


def test_a_session_that_idles_for_hours_still_carries_a_body() -> None:
    """Only keep-alives for three hours, then a chunk in each direction."""
    link = Link(config=HopConfig())
    there = link.connect()
    (back,) = link.uppers[B].up
    end = link.now + 3 * 3600
    link.run(lambda: link.now >= end, 4 * 3600)
    there.send(BodyKind.CHUNK, b"", bytes(100_000), 1)
    back.send(BodyKind.CHUNK, b"", bytes(100_000), 2)
    link.run(lambda: bool(link.uppers[A].bodies and link.uppers[B].bodies))
    assert not any(core.dropped["internal_error"] for core in link.cores.values())


@pytest.mark.parametrize("body_bytes", [300, 30_000, 1 << 20])
def test_a_lost_word_about_a_cancelled_body_is_said_again(body_bytes: int) -> None:
    """Else its place in the window is taken for ever, and after 4096 more bodies nothing moves."""
    link = Link()
    neighbour = link.connect()
    neighbour.send(BodyKind.CHUNK, b"", bytes(body_bytes), "given up")
    lost: list[bytes] = []

    def is_lost(source: Any, datagram: bytes) -> bool:
        if source == A:
            lost.append(datagram)
        return source != A

    link.on_datagram = is_lost
    link.pump()
    neighbour.cancel("given up")
    link.pump()
    assert lost
    link.on_datagram = lambda source, datagram: True
    for number in range(5000):
        neighbour.send(BodyKind.CHUNK, b"", b"x" * 50, number)
    link.run(lambda: len(link.uppers[B].bodies) == 5000)
    link.run(lambda: not neighbour.sender.transfers.forgotten)
    receiver = next(iter(link.cores[B].sessions.values())).receiver
    assert receiver.credit.held_bytes == 0


def test_a_fault_above_at_a_settlement_costs_no_other_settlement() -> None:
    """Each body is told of once, whatever the layer above makes of the first."""
    link = Link()
    neighbour = link.connect()
    told: list[object] = []

    def settled(_: Neighbour, token: object, __: Settlement, ___: int) -> None:
        told.append(token)
        if token == 0:
            raise RuntimeError("a fault of the layer above")

    link.uppers[A].body_settled = settled  # type: ignore[method-assign]
    for number in range(3):
        neighbour.send(BodyKind.CHUNK, b"", bytes(50_000), number)
    link.run(lambda: len(told) == 3)
    assert sorted(told) == [0, 1, 2]  # type: ignore[type-var]
    assert link.cores[A].dropped["internal_error"] == 1


def test_a_fault_of_ours_while_sending_ends_one_session_only() -> None:
    """The neighbour whose session is broken is told, the others go on."""
    link = Link()
    neighbour = link.connect()

    def fault(now: float) -> None:
        raise RuntimeError("a fault of ours")

    neighbour.sender.departures.next_burst = fault  # type: ignore[method-assign]
    neighbour.send(BodyKind.CHUNK, b"", bytes(50_000), 1)
    link.run(lambda: bool(link.uppers[B].down))
    assert link.uppers[A].settled == [(1, Settlement.LOST, 0)]
    assert link.uppers[A].down == link.uppers[B].down == ["internal error"]
    again = link.connect()
    again.send(BodyKind.CHUNK, b"", bytes(50_000), 2)
    link.run(lambda: len(link.uppers[B].bodies) == 1)


def test_beyond_what_all_neighbours_may_hold_a_body_is_refused_unread() -> None:
    """One over the cap is refused, and taken once something is released."""
    link = Link(config=HopConfig(max_held_bytes=250_000))
    neighbour = link.connect()
    upper = link.uppers[B]
    upper.keeps = True
    for number in range(3):
        neighbour.send(BodyKind.CHUNK, b"", bytes(100_000), number)
    link.run(lambda: len(link.uppers[A].settled) == 3)
    assert [how for _, how, _ in sorted(link.uppers[A].settled, key=lambda one: str(one[0]))] == [
        Settlement.ACCEPTED,
        Settlement.ACCEPTED,
        Settlement.REFUSED,
    ]
    assert link.uppers[A].settled[-1][2] == Reason.STORE_FULL or any(
        reason == Reason.STORE_FULL for _, _, reason in link.uppers[A].settled
    )
    upper.keep.pop().release()
    neighbour.send(BodyKind.CHUNK, b"", bytes(100_000), 3)
    link.run(lambda: len(link.uppers[A].settled) == 4)
    assert link.uppers[A].settled[-1][1] is Settlement.ACCEPTED


def test_replies_to_strangers_are_capped_while_the_socket_is_stuck() -> None:
    """Whoever asks again is answered later; memory stays what it is."""
    link = Link()
    core = link.cores[B]
    for number in range(MAX_REPLIES_COUNT + 1):
        core._replies.add((("198.51.100.7", number), [b"x"], 1))
    assert core.dropped["replies_full"] == 1
    assert len(list(core.datagrams_to_send(link.now))) == MAX_REPLIES_COUNT


def test_control_of_one_session_goes_before_the_bursts_of_another() -> None:
    """An ACK never waits behind chunks."""
    link = Link()
    busy = link.connect()
    core = link.cores[A]
    idle = next(iter(link.cores[B].sessions.values()))
    busy.send(BodyKind.CHUNK, b"", bytes(500_000), 1)
    other = Link(seed=2).connect()
    core.sessions[1] = other
    other.receiver.acks.due_now = True
    core._active[other] = None
    kinds = [buffers[0][0] & 15 for _, buffers, _ in core.datagrams_to_send(link.now)]
    assert kinds.index(wire.DatagramType.CONTROL) < kinds.index(wire.DatagramType.DATA)
    assert idle.is_up


def test_who_was_cut_short_by_a_full_socket_is_last_the_next_time() -> None:
    """Else the first session would have the socket for itself."""
    link = Link()
    first = link.connect()
    second = Link(seed=2).connect()
    core = link.cores[A]
    core.sessions[1] = second
    first.send(BodyKind.CHUNK, b"", bytes(500_000), 1)
    second.send(BodyKind.CHUNK, b"", bytes(500_000), 2)
    core._active[second] = None
    sent = core.datagrams_to_send(link.now)
    while next(sent)[1][0][0] & 15 != wire.DatagramType.DATA:
        pass
    sent.close()  # the socket is full
    assert list(core._active) == [second, first]


def test_what_was_counted_outlives_its_session() -> None:
    """A counter never falls: whoever takes its rate would see a jump at every new session."""
    link = Link()
    neighbour = link.connect()
    neighbour.send(BodyKind.CHUNK, b"", bytes(50_000), 1)
    link.run(lambda: bool(link.uppers[B].bodies))
    assert link.cores[B].stats()["received_bodies"] == 1
    neighbour.close("over")
    link.run(lambda: bool(link.uppers[B].down))
    assert link.cores[B].stats()["received_bodies"] == 1


def test_a_neighbour_that_sends_nothing_for_a_while_keeps_no_buffer_ready() -> None:
    """The buffer for its next body goes back to all; the body after that arrives all the same."""
    link = Link(config=HopConfig())
    neighbour = link.connect()
    core = link.cores[B]
    (session,) = core.sessions.values()
    for number in range(2):
        neighbour.send(BodyKind.CHUNK, b"", bytes(1 << 20), number)
        link.run(lambda: len(link.uppers[A].settled) > number)  # noqa: B023  # called before the next turn
        assert session.receiver.incoming.landing() is not None
        free_bytes = core.pool.free_bytes
        end = link.now + 10.0
        link.run(lambda: link.now >= end, 20)  # noqa: B023  # called before the next turn
        assert session.is_up and session.receiver.incoming.landing() is None
        assert core.pool.free_bytes > free_bytes + (1 << 20)


def test_a_slow_transfer_gives_way_to_a_body_of_the_largest_size() -> None:
    """What BLOCKED names is as it travels, so with its tag; one byte more makes nobody give way."""
    link = Link(config=HopConfig(max_body_bytes=100_000, credit_bytes=150_000))
    session = link.connect()
    (theirs,) = link.cores[B].sessions.values()

    def only_first_segments(source: Any, datagram: bytes) -> bool:
        return source != A or datagram[0] != wire.DATA_BYTE or not any(datagram[20:24])

    link.on_datagram = only_first_segments
    session.send(BodyKind.CHUNK, b"", bytes(100_000), "slow")
    end = link.now + 7
    link.run(lambda: link.now > end)
    theirs.receiver.custody.note_blocked(100_000 + wire.TAG_BYTES + 1, link.now)
    assert theirs.counters()["evicted_transfers"] == 0
    theirs.receiver.custody.note_blocked(100_000 + wire.TAG_BYTES, link.now)
    assert theirs.counters()["evicted_transfers"] == 1


@pytest.mark.parametrize("config", [None, OPEN])
@pytest.mark.parametrize("size", [50, 50_000])
@pytest.mark.parametrize(
    ("kind", "prefix_bytes", "flow"),
    [
        (BodyKind.CHUNK, 0, wire.MAX_FLOW + 1),
        (BodyKind.CHUNK, 0, -1),
        (BodyKind.CHUNK, MAX_PREFIX_BYTES + 1, 0),
        (0, 0, 0),
        (16, 0, 0),
    ],
)
def test_a_body_that_cannot_travel_costs_whoever_sends_it_and_no_other(
    config: HopConfig | None, size: int, kind: Any, prefix_bytes: int, flow: int
) -> None:
    """It is refused when it is handed over; the session and others at the caps go on."""
    link = Link(config=config)
    session = link.connect()
    session.send(BodyKind.CHUNK, b"", bytes(50_000), "innocent")
    with pytest.raises(LocalMisuseError):
        session.send(kind, bytes(prefix_bytes), bytes(size), "wrong", flow=flow)
    session.send(
        BodyKind.VERDICT, bytes(MAX_PREFIX_BYTES), bytes(size), "largest", flow=wire.MAX_FLOW
    )
    link.run(lambda: len(link.uppers[A].settled) == 2)
    assert {how for _, how, _ in link.uppers[A].settled} == {Settlement.ACCEPTED}
    assert session.is_up and not link.cores[A].dropped
