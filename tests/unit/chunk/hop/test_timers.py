"""Timers: each number has one deadline, and what is due comes in order."""

from __future__ import annotations

from packetcloud.chunk.hop.timers import TIMER_SLACK_COUNT, Timers


def test_what_is_due_comes_in_order_and_once() -> None:
    """The earliest first; what is not due stays."""
    timers = Timers()
    for number, deadline in ((1, 3.0), (2, 1.0), (3, 2.0)):
        timers.arm(number, deadline)
    assert timers.next_deadline() == 1.0
    assert list(timers.take_due(2.0)) == [2, 3]
    assert timers.next_deadline() == 3.0
    assert list(timers.take_due(3.0)) == [1]
    assert timers.next_deadline() is None


def test_a_deadline_is_never_put_off() -> None:
    """Whoever asks for a later look gets the earlier one that was asked for."""
    timers = Timers()
    timers.arm(1, 2.0)
    timers.arm(1, 5.0)
    timers.arm(1, 1.0)
    assert list(timers.take_due(1.0)) == [1]
    assert list(timers.take_due(9.0)) == [], "what was replaced is dead"


def test_what_was_cancelled_is_not_due() -> None:
    """Also when the number is armed anew."""
    timers = Timers()
    timers.arm(1, 1.0)
    timers.cancel(1)
    timers.cancel(2)
    assert timers.next_deadline() is None
    timers.arm(1, 3.0)
    assert list(timers.take_due(2.0)) == [] and timers.next_deadline() == 3.0


def test_who_arms_for_the_past_does_not_keep_the_caller_for_ever() -> None:
    """The rest is due in the next call."""
    timers = Timers()
    timers.arm(1, 1.0)
    met = 0
    for number in timers.take_due(2.0):
        timers.arm(number, 1.0)
        met += 1
    assert met == 1 and timers.next_deadline() == 1.0


def test_replaced_timers_are_taken_out_beyond_the_cap() -> None:
    """At the cap they lie in the heap; one more clears it, and the live ones stay."""
    timers = Timers()
    timers.arm(1, 1e9)
    for count in range(1, TIMER_SLACK_COUNT + 1):
        timers.arm(1, 1e9 - count)
    assert timers.replaced_count == TIMER_SLACK_COUNT and not timers.dead_count
    timers.arm(1, 5.0)
    assert timers.replaced_count == 0 and timers.dead_count == TIMER_SLACK_COUNT + 1
    assert list(timers.take_due(5.0)) == [1]
