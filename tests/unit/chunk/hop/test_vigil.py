"""Staying awake for what is about to arrive: for what, for how long, and at what cost at most."""

from __future__ import annotations

from typing import Any

import pytest

from packetcloud.chunk.hop.session import Session
from packetcloud.chunk.hop.vigil import (
    ANSWER_S,
    LULL_S,
    MAX_OPEN_COUNT,
    SAVED_S,
    SHARE,
    UNANSWERED_S,
    Vigil,
)
from packetcloud.chunk.messages import BodyKind, VerdictCode, VerdictHeader
from tests.unit.chunk.hop.hop_link import OPEN, A, B, Link

BODY = bytes(100_000)
NEAR_RTT_S = 0.0002


class Asker:
    """A vigil whose questions go to one VI, and have numbers."""

    def __init__(self) -> None:
        self.vigil: Vigil[str] = Vigil()

    def ask(self, number: int, rtt_s: float = NEAR_RTT_S) -> None:
        self.vigil.asked("vi", number.to_bytes(8, "big"), rtt_s)

    def answer(self, number: int) -> None:
        self.vigil.answered("vi", number.to_bytes(8, "big"))

    def is_awake(self, now: float) -> bool:
        return self.vigil.until(now) > now


def test_one_open_question_is_waited_for_until_it_is_answered() -> None:
    """A service that rested answers within two milliseconds; longer nobody stays awake for it."""
    one = Asker()
    assert not one.is_awake(100.0), "nothing is expected"
    one.ask(1)
    assert one.vigil.until(100.0) == pytest.approx(100.0 + ANSWER_S)
    assert not one.is_awake(100.0 + ANSWER_S), "it takes too long"
    one.answer(1)
    one.ask(2)
    assert one.is_awake(101.0)
    one.answer(1)
    assert one.is_awake(101.0), "that was another one's, and late"
    one.answer(2)
    assert not one.is_awake(101.0)


def test_with_two_open_questions_there_is_work_meanwhile() -> None:
    """A service at full load always has some: staying awake would take from who works."""
    one = Asker()
    one.ask(0)
    assert one.is_awake(100.0) and not one.is_awake(100.01)
    for number in range(1, 300):
        one.ask(number)
        assert not one.is_awake(100.01 + number / 100)
        one.answer(number - 1)


def test_who_cannot_answer_in_time_is_not_waited_for() -> None:
    """Where the way alone takes longer nobody looks, and no ACK waits for the task to leave."""
    one = Asker()
    one.ask(1, 0.02)
    assert not one.is_awake(100.0) and one.vigil.take_only() is None
    one.answer(1)
    one.ask(2, NEAR_RTT_S)
    assert one.vigil.take_only() == "vi" and one.is_awake(100.5)
    assert not one.is_awake(100.51)
    one.ask(3, NEAR_RTT_S)
    one.answer(2)
    assert one.vigil.has_question


@pytest.mark.parametrize("pause_s", [0.05, 0.2, 1.0])
def test_a_question_that_nobody_answers_is_forgotten(pause_s: float) -> None:
    """A task that was refused or given up, or whose VI died, is open for a second at most,
    however often others are asked and answered meanwhile."""
    one = Asker()
    one.ask(0)
    now = 100.0
    assert one.is_awake(now)
    for number in range(1, 100):
        now += pause_s
        one.ask(number)
        is_awake = one.is_awake(now)
        one.answer(number)
        if now < 100.0 + 0.99 * UNANSWERED_S:
            assert not is_awake, "somebody may be at work for us"
        if now > 100.0 + 1.01 * UNANSWERED_S:
            assert is_awake
    assert not one.vigil.has_question


def test_the_newest_questions_are_remembered() -> None:
    """So many, and not one more."""
    one = Asker()
    for number in range(MAX_OPEN_COUNT + 1):
        one.ask(number)
    for number in range(2, MAX_OPEN_COUNT + 1):
        one.answer(number)
    assert one.vigil.has_question
    one.answer(1)
    assert not one.vigil.has_question


@pytest.mark.parametrize("delay_s", [0.0002, 0.01])
def test_a_task_is_waited_for_until_its_verdict_is_there(delay_s: float) -> None:
    """From a VI that is near, by the id of the task; that of a refused one is in nobody's way."""
    link = Link(delay_s=delay_s)
    vi = link.connect()
    router = link.uppers[B].up[0]
    vigil = link.cores[A].vigil
    is_near = delay_s < ANSWER_S
    now = link.now
    for number in range(1, 60):
        vi.send(BodyKind.TASK, number.to_bytes(8, "big") + bytes(8), b"task", number)
        assert (vigil.until(link.now) > link.now) is (
            is_near and (number == 1 or link.now > now + UNANSWERED_S)
        )
        link.run_until_settled(number)
        if number > 1:
            verdict = VerdictHeader(number, VerdictCode.FORWARD, 1000).to_bytes()
            router.send(BodyKind.VERDICT, verdict, b"", number)
            link.run(lambda due=number - 1: len(link.uppers[A].bodies) == due)
            assert vigil.until(link.now) <= link.now
        link.pass_time(0.05)
    assert not vigil.has_question


def test_in_the_middle_of_a_body_a_lull_is_waited_out() -> None:
    """Each piece that comes begins it anew."""
    vigil: Vigil[str] = Vigil()
    vigil.midway(100.0)
    assert vigil.until(100.0) == pytest.approx(100.0 + LULL_S)
    vigil.midway(100.0002)
    assert vigil.until(100.0003) == pytest.approx(100.0002 + LULL_S)
    assert vigil.until(100.001) <= 100.001


def test_staying_awake_costs_a_share_of_a_processor_at_most() -> None:
    """Whatever neighbours do: one that never finishes a body, sends a piece of it now and then."""
    vigil: Vigil[str] = Vigil()
    now, awake_s = 100.0, 0.0
    while now < 110.0:
        vigil.midway(now)
        until = vigil.until(now)
        if until > now:
            awake_s += until - now
            vigil.spent(until - now, until)
        now = max(until, now + 0.0001)
    assert SHARE * 10 * 0.9 <= awake_s <= SHARE * 10 * 1.1 + SAVED_S


class Service:
    """What is needed here of a session with a VI."""

    is_up = False

    def __init__(self) -> None:
        self.forewarned = 0

    def forewarn(self) -> None:
        self.forewarned += 1


def test_who_had_the_last_body_is_told_when_the_next_one_begins() -> None:
    """Once for each body, before it is whole; who had none of them is told nothing."""
    link = Link()
    host = link.connect()
    vigil: Any = link.cores[B].vigil
    service = Service()
    link.uppers[B].answer = lambda data: vigil.asked(service, b"", NEAR_RTT_S)
    for number in range(3):
        host.send(BodyKind.CHUNK, b"", BODY, number)
        if number == 1:
            link.run(lambda: bool(service.forewarned))
            assert len(link.uppers[B].bodies) == 1, "before it is whole"
        link.run_until_settled(number + 1)
        link.pass_time(1.0)
    assert service.forewarned == 2
    link.uppers[B].answer = lambda data: None
    for number in (3, 4):
        host.send(BodyKind.CHUNK, b"", BODY, number)
        link.run_until_settled(number + 1)
    assert service.forewarned == 3, "the last one went nowhere"


@pytest.mark.parametrize(
    ("delay_s", "has_question", "is_told"),
    [(0.0002, False, True), (0.005, False, False), (0.0002, True, False)],
)
def test_who_is_forewarned_stays_awake_until_the_body_is_there(
    delay_s: float, has_question: bool, is_told: bool
) -> None:
    """By a neighbour that is near and waits for no answer; other words keep nobody awake."""
    link = Link(delay_s=delay_s, config=OPEN)
    link.connect()
    router = link.uppers[B].up[0]
    assert isinstance(router, Session)
    vigil = link.cores[A].vigil
    router.receiver.acks.due_now = True
    router._wake(router)
    link.pass_time(0.1)
    assert vigil.until(link.now) <= link.now
    if has_question:
        link.cores[B].vigil.asked(router, b"", NEAR_RTT_S)
    router.forewarn()
    end = link.now + 0.1
    link.run(lambda: vigil.until(link.now) > link.now or link.now > end)
    assert (vigil.until(link.now) > link.now) is is_told
    router.send(BodyKind.TASK, b"", BODY, object())
    link.run(lambda: bool(link.uppers[A].bodies))
    assert vigil.until(link.now) <= link.now
