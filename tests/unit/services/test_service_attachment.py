"""Attaching to a router, and again when it was gone."""

from __future__ import annotations

from packetcloud.services.attachment import (
    FIRST_DELAY_S,
    LONGEST_DELAY_S,
    STABLE_S,
    Attachment,
    AttachmentState,
    Connect,
    RetryAt,
)
from packetcloud.services.backoff import Backoff

MIDDLE = 0.5
"""Jitter's random number that changes nothing."""


def test_delays_double_up_to_the_longest_and_begin_again_after_a_reset() -> None:
    """0.1, 0.2, 0.4 ... 5, for ever 5; no overflow after a thousand failures."""
    backoff = Backoff(0.1, 5.0)
    delays = [round(backoff.next_delay_s(MIDDLE), 3) for _ in range(8)]
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    for _ in range(1000):
        backoff.next_delay_s(MIDDLE)
    assert backoff.next_delay_s(MIDDLE) == 5.0
    backoff.reset()
    assert backoff.next_delay_s(MIDDLE) == 0.1


def test_jitter_stays_within_a_fifth() -> None:
    """Many services that lost one router do not come back in step."""
    assert round(Backoff(1.0, 5.0).next_delay_s(0.0), 9) == 0.8
    assert round(Backoff(1.0, 5.0).next_delay_s(1.0), 9) == 1.2


def test_a_failed_attempt_is_tried_again_later_and_later() -> None:
    """Until it works."""
    attachment = Attachment()
    assert attachment.start() == [Connect()]
    now, delays = 0.0, []
    for _ in range(8):
        (command,) = attachment.failed(now, MIDDLE)
        assert isinstance(command, RetryAt)
        delays.append(command.time_s - now)
        now = command.time_s
        assert attachment.retry_due() == [Connect()]
    assert round(delays[0], 6) == FIRST_DELAY_S
    assert round(delays[-1], 6) == LONGEST_DELAY_S
    attachment.connected(now)
    assert attachment.state is AttachmentState.ATTACHED


def test_a_loss_after_a_stable_time_is_mended_at_once() -> None:
    """A router that was restarted has its services back without waiting."""
    attachment = Attachment()
    attachment.start()
    attachment.failed(0.0, MIDDLE)
    attachment.retry_due()
    attachment.connected(0.0)
    assert attachment.lost(STABLE_S, MIDDLE) == [RetryAt(STABLE_S)]


def test_a_router_that_drops_us_at_once_is_not_hammered() -> None:
    """A session that did not last counts as a failure."""
    attachment = Attachment()
    attachment.start()
    attachment.connected(0.0)
    (first,) = attachment.lost(0.0, MIDDLE)
    attachment.retry_due()
    attachment.connected(1.0)
    (second,) = attachment.lost(1.0, MIDDLE)
    assert isinstance(first, RetryAt)
    assert isinstance(second, RetryAt)
    assert second.time_s - 1.0 > first.time_s > 0


def test_events_that_do_not_fit_change_nothing() -> None:
    """A shell may learn of one loss from two sides."""
    attachment = Attachment()
    assert attachment.lost(0.0, MIDDLE) == attachment.failed(0.0, MIDDLE) == []
    assert attachment.retry_due() == []
    assert attachment.start() == [Connect()]
    assert attachment.start() == []
    attachment.connected(0.0)
    attachment.connected(1.0)
    assert attachment.attached_count == 1
    assert attachment.failed(2.0, MIDDLE) == []
    attachment.close()
    assert attachment.lost(9.0, MIDDLE) == attachment.start() == attachment.retry_due() == []
