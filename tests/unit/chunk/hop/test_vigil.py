"""Staying awake for what is about to arrive: for what, for how long, and at what cost at most."""

from __future__ import annotations

from typing import Any

import pytest

from packetcloud.chunk.hop.session import Session
from packetcloud.chunk.hop.vigil import (
    ANSWER_S,
    LULL_S,
    SAVED_S,
    SHARE,
    UNANSWERED_S,
    Vigil,
)
from packetcloud.chunk.messages import BodyKind
from tests.unit.chunk.hop.hop_link import OPEN, A, B, Link

BODY = bytes(100_000)


def test_one_open_question_is_waited_for_until_it_is_answered() -> None:
    """A service that rested answers within two milliseconds; longer nobody stays awake for it."""
    vigil: Vigil[str] = Vigil()
    assert vigil.until(100.0) <= 100.0, "nothing is expected"
    vigil.asked("vi")
    assert vigil.until(100.0) == pytest.approx(100.0 + ANSWER_S)
    assert vigil.until(100.0 + ANSWER_S) <= 100.0 + ANSWER_S, "it takes too long"
    vigil.answered()
    vigil.asked("vi")
    assert vigil.until(101.0) > 101.0
    vigil.answered()
    assert vigil.until(101.0) <= 101.0


def test_with_two_open_questions_there_is_work_meanwhile() -> None:
    """A service at full load always has some: staying awake would take from who works."""
    vigil: Vigil[str] = Vigil()
    vigil.asked("vi")
    vigil.asked("vi")
    assert vigil.until(100.0) <= 100.0
    vigil.answered()
    vigil.asked("vi")
    assert vigil.until(100.1) <= 100.1


def test_questions_that_nobody_answered_are_forgotten() -> None:
    """A VI that died, or gave no verdict in time, leaves a question open for ever."""
    vigil: Vigil[str] = Vigil()
    vigil.asked("vi")
    vigil.asked("vi")
    vigil.until(100.0)
    vigil.asked("vi")
    assert vigil.until(100.0 + UNANSWERED_S) <= 100.0 + UNANSWERED_S
    vigil.asked("vi")
    now = 100.0 + 2.1 * UNANSWERED_S
    assert vigil.until(now) > now


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
    link.uppers[B].answer = lambda data: vigil.asked(service)
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
        link.cores[B].vigil.asked(router)
    router.forewarn()
    end = link.now + 0.1
    link.run(lambda: vigil.until(link.now) > link.now or link.now > end)
    assert (vigil.until(link.now) > link.now) is is_told
    router.send(BodyKind.TASK, b"", BODY, object())
    link.run(lambda: bool(link.uppers[A].bodies))
    assert vigil.until(link.now) <= link.now
