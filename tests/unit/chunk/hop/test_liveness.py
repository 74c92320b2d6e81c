"""Signs of life: a silent neighbour is asked, then gone; a suspected one sooner."""

from __future__ import annotations

import pytest

from packetcloud.chunk.hop.liveness import SUSPECT_TIMEOUT_S, Liveness

IDLE_S, KEEPALIVE_S = 15.0, 3.0


@pytest.fixture
def liveness() -> Liveness:
    return Liveness(IDLE_S, KEEPALIVE_S, 100.0)


def test_a_silent_neighbour_is_asked_each_keepalive_time_and_gone_after_the_idle_one(
    liveness: Liveness,
) -> None:
    """Its timer names each of these times."""
    asked = []
    while not liveness.is_gone(now := liveness.next_timeout(None)):
        assert liveness.must_ask(now) and not liveness.must_ask(now)
        asked.append(now)
    assert asked == [103.0, 106.0, 109.0, 112.0] and now == 115.0


def test_who_was_heard_is_not_asked(liveness: Liveness) -> None:
    """Any sign of life counts from then on."""
    liveness.heard(102.0)
    assert not liveness.must_ask(104.9) and liveness.must_ask(105.0)


def test_a_suspect_is_asked_at_once_and_has_little_time(liveness: Liveness) -> None:
    """A second word of its host does not shorten it, and its own word ends it."""
    liveness.suspect(0.01, 101.0)
    assert liveness.is_suspect and liveness.must_ask(101.0)
    liveness.suspect(0.01, 101.1)
    assert not liveness.is_gone(101.0 + SUSPECT_TIMEOUT_S - 0.01)
    assert liveness.is_gone(101.0 + SUSPECT_TIMEOUT_S + 0.01)
    liveness.heard(101.2)
    assert not liveness.is_suspect and not liveness.is_gone(116.0)


def test_a_suspect_on_a_slow_path_has_twice_the_time_of_an_answer(liveness: Liveness) -> None:
    """Else a hint would end what a proof must."""
    liveness.suspect(1.0, 101.0)
    assert not liveness.is_gone(102.9) and liveness.is_gone(103.1)


def test_who_answers_nothing_is_withholding_although_he_is_heard(liveness: Liveness) -> None:
    """From the idle time after what has waited for longest."""
    liveness.heard(120.0)
    assert not liveness.is_withholding(None, 1e9)
    assert not liveness.is_withholding(104.0, 118.9) and liveness.is_withholding(104.0, 119.0)
    assert liveness.next_timeout(104.0) == 119.0
