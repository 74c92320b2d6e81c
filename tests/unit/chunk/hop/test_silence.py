"""A path that loses everything: a session asks once per time-out, whatever it was about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest

from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.api import HopConfig, Refusal, Settlement
from packetcloud.chunk.hop.rtt import LONGEST_PROBE_TIMEOUT_S, RttEstimator
from packetcloud.chunk.hop.session import Session
from packetcloud.chunk.hop.silence import HEARD_TIMEOUT_S, Silence
from packetcloud.chunk.messages import BodyKind
from packetcloud.chunk.reasons import Reason
from tests.unit.chunk.hop.hop_link import A, B
from tests.unit.chunk.hop.test_path_mtu import NarrowLink

SETTLE_S = 0.6
"""What was sent before anybody could know: more than ten times as long as an answer may take."""
DARK_S = 8.0


@dataclass
class Scene:
    """A link that will go dark, and the session of A and of B on it."""

    link: NarrowLink
    ours: Session
    theirs: Session
    left: dict[Any, list[float]] = field(default_factory=lambda: {A: [], B: []})
    """When each datagram left, by the node that sent it."""

    def send(self, count: int, size: int, flow: int = 1) -> None:
        for number in range(count):
            self.ours.send(BodyKind.CHUNK, b"", bytes(size), (flow, number), flow=flow)

    def darken(self) -> None:
        """Lose what is on its way, and everything from now on."""
        self.link.loss, self.link.corruption = 1.0, 0.0
        self.link.in_flight.clear()
        began = self.link.now

        def watch(source: Any, _: bytes) -> bool:
            if self.link.now > began + SETTLE_S:
                self.left[source].append(self.link.now)
            return True

        self.link.on_datagram = watch
        self.link.pass_time(DARK_S)

    def crowded(self) -> list[tuple[Any, int]]:
        """Return which datagrams left sooner after the one before than an answer may take."""
        found = []
        for session, address in ((self.ours, A), (self.theirs, B)):
            times = self.left[address]
            assert session.is_up and len(times) >= 4, "it does not ask whether there is light"
            for number, (last, this) in enumerate(pairwise(times), 1):
                if this - last < session.rtt.probe_timeout_s(number) - 1e-6:
                    found.append((address, number))
        return found


def starting(scene: Scene) -> None:
    scene.send(40, 100_000)


def steady(scene: Scene) -> None:
    scene.send(400, 100_000)
    scene.link.pass_time(0.3)
    assert scene.ours.sender.in_flight_bytes and scene.link.uppers[A].settled


def idle(scene: Scene) -> None:
    scene.link.pass_time(2.0)


def begun_in_the_dark(scene: Scene) -> None:
    scene.link.pass_time(2.0)
    scene.link.loss = 1.0
    scene.send(1, 100_000)


def without_credit(scene: Scene) -> None:
    scene.link.uppers[B].keeps = True
    for flow in range(100):
        scene.send(1, 100_000, flow)
    scene.link.run(lambda: scene.ours.sender.transfers.blocked_at is not None)


def parked(scene: Scene) -> None:
    scene.link.uppers[B].keeps = True
    scene.send(100, 100_000)
    scene.link.run(lambda: bool(scene.ours.sender.flows.parked))


def refused(scene: Scene) -> None:
    scene.link.uppers[B].answer = lambda _: Refusal(Reason.STORE_FULL)
    scene.send(20, 1000)
    scene.link.run(lambda: bool(scene.theirs.receiver.outcomes.refused))


def cancelled(scene: Scene) -> None:
    scene.send(4000, 3000)
    tokens = [one.token for one in scene.ours.sender.flows]
    scene.link.run(lambda: len(scene.ours.sender.transfers.outstanding) > 100)
    for token in tokens:
        scene.ours.cancel(token)
    assert len(scene.ours.sender.transfers.forgotten) > wire.MAX_ENTRIES_COUNT


def rekeying(scene: Scene) -> None:
    scene.link.pass_time(1.0)
    scene.send(1, 100_000)


def asking_for_digests(scene: Scene) -> None:
    scene.link.corruption = 0.05
    scene.send(60, 30_000)
    scene.link.run(lambda: len(scene.theirs.receiver.repairs.transfers) > 2)


def probing_the_path(scene: Scene) -> None:
    scene.link.limit_bytes = 1300
    scene.link.pass_time(0.5)


def changing_the_size(scene: Scene) -> None:
    scene.link.limit_bytes = 1300
    scene.send(20, 100_000)
    scene.link.run(lambda: scene.ours.sender.departures.is_held)


STATES: list[Callable[[Scene], None]] = [
    starting, steady, idle, begun_in_the_dark, without_credit, parked,
    refused, cancelled, rekeying, asking_for_digests, probing_the_path, changing_the_size,
]  # fmt: skip
CREDIT_BYTES = 4 << 20


def scene_of(state: Callable[[Scene], None]) -> Scene:
    """Return the two nodes after 8 s in the dark, which began in a state."""
    config = HopConfig(credit_bytes=CREDIT_BYTES, rekey_after_s=1.5)
    link = NarrowLink(config=config)
    ours = link.connect()
    (theirs,) = link.cores[B].sessions.values()
    scene = Scene(link, ours, theirs)
    state(scene)
    scene.darken()
    return scene


@pytest.mark.parametrize("state", STATES)
def test_in_the_dark_each_side_sends_one_datagram_per_timeout(
    state: Callable[[Scene], None],
) -> None:
    """No two of its datagrams are nearer than an answer may take, doubled for each in vain."""
    assert scene_of(state).crowded() == []


@pytest.mark.parametrize("state", STATES)
def test_without_the_rule_every_timer_asks_by_itself(
    state: Callable[[Scene], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above sees a session that lets each of its timers send."""
    monkeypatch.setattr(Silence, "until", float("-inf"))
    assert scene_of(state).crowded()


@pytest.mark.parametrize("state", [starting, steady, begun_in_the_dark, rekeying])
def test_what_waited_in_the_dark_goes_on_with_the_first_word(
    state: Callable[[Scene], None],
) -> None:
    """One question finds the light, at most a second after it came back; all the rest follows."""
    scene = scene_of(state)
    link, ours = scene.link, scene.ours
    link.loss, link.on_datagram = 0.0, lambda address, datagram: True
    back_at, epochs = link.now, ours.counters()["rekeyings"]
    link.run(lambda: not ours.queued_bytes)
    assert link.now - back_at < LONGEST_PROBE_TIMEOUT_S + 0.5
    assert all(how is Settlement.ACCEPTED for _, how, _ in link.uppers[A].settled)
    link.run(lambda: ours.counters()["rekeyings"] > epochs, 2.0)


def test_all_that_is_due_with_the_first_question_may_go_with_it_and_then_one_at_a_time() -> None:
    """Nobody knows of a silence before the first answer is overdue; it doubles from the third."""
    rtt = RttEstimator()
    rtt.add_sample(0.01, 0.0, 0.0)
    silence, now, wait_s = Silence(rtt), 50.0, rtt.probe_timeout_s(0)
    for _ in range(3):
        assert silence.may_ask(now)
        silence.asked(now)
    assert silence.is_lasting and not silence.may_ask(now + wait_s - 0.001)
    for factor in (2, 4, 8):
        silence.asked(now := silence.until)
        assert not silence.may_ask(now)
        assert silence.until - now == pytest.approx(factor * wait_s)
    assert silence.timeouts == 3
    silence.heard()
    assert not silence.is_lasting and silence.may_ask(now)


MIDWAY_S = (HEARD_TIMEOUT_S + LONGEST_PROBE_TIMEOUT_S) / 2


def heard_but_not_answered() -> tuple[Scene, list[float]]:
    """Return a link whose one direction is dark, and when A asked about what it sent into it.

    B sends something every 0.4 s, which says nothing of what A waits for.
    """
    link = NarrowLink(config=HopConfig())
    ours = link.connect()
    (theirs,) = link.cores[B].sessions.values()
    scene = Scene(link, ours, theirs)
    scene.send(64, 1000)
    link.pass_time(0.1)
    link.in_flight.clear()
    asked: list[float] = []
    flight = ours.sender.flight
    known = flight.probes

    def one_way(source: Any, _: bytes) -> bool:
        nonlocal known
        if flight.probes > known:
            known = flight.probes
            asked.append(link.now)
        return source != A

    link.on_datagram = one_way
    scene.send(64, 60_000)
    for number in range(10):
        theirs.send(BodyKind.CHUNK, b"", bytes(100), (1, number), flow=1)
        link.pass_time(0.4)
    return scene, [at for at in asked if at > asked[0] + 1.0]


def test_who_is_heard_is_asked_again_soon_although_nothing_was_answered() -> None:
    """Back-off is for the dark: half a second is long for one who is there."""
    scene, asked = heard_but_not_answered()
    assert scene.ours.is_up and scene.ours.queued_bytes
    assert max(later - sooner for sooner, later in pairwise(asked)) < MIDWAY_S


def test_without_counting_who_is_heard_the_questions_become_rare(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The test above sees a session that backs off by what was asked in vain alone."""

    def patience_s(self: Silence, in_vain_count: int) -> float:
        return self._rtt.probe_timeout_s(in_vain_count)

    monkeypatch.setattr(Silence, "patience_s", patience_s)
    _, asked = heard_but_not_answered()
    assert max(later - sooner for sooner, later in pairwise(asked)) > MIDWAY_S
