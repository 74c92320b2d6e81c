"""Law of fresh seals: whatever is done with copies of a sealed chunk, its receiver takes one.

The opener is the real check, the receiver the real window of a host. Between them and around them
everything is an adversary's: when copies come, what lifetime they say, how long they wait.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from packetcloud.host.duplicates import RETENTION_SLACK_S, DuplicateWindow, Seen
from packetcloud.services.secure_communication.freshness import (
    MAX_TOLERANCE_S,
    NO_LIFETIME_MS,
    StaleSealError,
    Trailer,
    check_fresh,
)

SOURCE = b"\xa1" * 20
HOLD_LIMIT_S = 120
"""Of a chunk without a lifetime, by each router that follows the opener; of the default config."""
MAX_WAIT_S = RETENTION_SLACK_S - 2 * MAX_TOLERANCE_S
"""What the page says a chunk may wait for its opener."""
SEALED_AT_MS = 1_000_000_000


@dataclass(frozen=True)
class Copy:
    """One copy on its way, as whoever is between wants it; times in seconds."""

    comes_at: float
    """At the opener's router, after it was sealed."""
    lifetime: float | None
    waits: float
    """For the opener, a share of what the page allows."""
    held: float
    """By custodians behind it, a share of what its lifetime allows."""

    def arrives_at(self) -> float:
        life = HOLD_LIMIT_S if self.lifetime is None else self.lifetime
        waited = min(self.waits * MAX_WAIT_S, life)
        return self.comes_at + waited + self.held * (life - waited)


def taken_count(
    copies: Iterable[Copy], sealed_s: float | None, skew_s: float, is_checked: bool = True
) -> int:
    """Return how often an application has the chunk."""
    trailer = Trailer(0, SEALED_AT_MS, None if sealed_s is None else round(sealed_s * 1000))
    window, taken = DuplicateWindow(), 0
    passed = [one for one in copies if not is_checked or is_opened(one, trailer, skew_s)]
    for one in sorted(passed, key=Copy.arrives_at):
        now = one.arrives_at()
        left = None if one.lifetime is None else one.lifetime - (now - one.comes_at)
        window.expire(now)
        if window.arrived(SOURCE, 7, left, now) is Seen.NEW:
            window.taken(SOURCE, 7)
            taken += 1
    return taken


def is_opened(one: Copy, trailer: Trailer, skew_s: float) -> bool:
    waited = one.waits * MAX_WAIT_S
    if one.lifetime is not None and waited >= one.lifetime:
        return False  # its router gave it up
    wall_ms = SEALED_AT_MS + round((one.comes_at + waited + skew_s) * 1000)
    lifetime_ms = None if one.lifetime is None else round(one.lifetime * 1000)
    try:
        check_fresh(trailer, lifetime_ms, wall_ms, MAX_TOLERANCE_S * 1000)
    except StaleSealError:
        return False
    return True


SHARES = st.floats(0, 0.999)
LIFETIMES = st.one_of(st.none(), st.floats(0.001, 600))
COPIES = st.lists(
    st.builds(Copy, st.floats(0, 900), LIFETIMES, SHARES, SHARES), min_size=1, max_size=8
)
EARLY = [Copy(1, 0.05, 0, 0), Copy(40, 20, 0, 0)]
"""Cut short, so that the receiver forgets it after half a minute; then as it was."""
LATE = [Copy(1, 59, 0, 0), Copy(200, 60, 0, 0)]
"""Sent again with a new lifetime, when the receiver has forgotten it."""
HELD = [Copy(1, 19, 0, 0), Copy(2, 600, 0, 0.9)]
"""Prolonged, and held behind the opener."""


@given(COPIES, LIFETIMES, st.floats(-MAX_TOLERANCE_S, MAX_TOLERANCE_S))
@example(EARLY, 60.0, 0.0)
@example(LATE, 60.0, 0.0)
@example(HELD, 20.0, 0.0)
def test_a_sealed_chunk_is_taken_once(
    copies: list[Copy], sealed_s: float | None, skew_s: float
) -> None:
    """However many copies come, whenever, saying what they like."""
    assert taken_count(copies, sealed_s, skew_s) <= 1


@given(
    st.floats(1, 600),
    st.floats(0, 0.99),
    st.floats(-MAX_TOLERANCE_S, MAX_TOLERANCE_S).filter(lambda slack: abs(slack) < 9.99),
)
def test_honest_copies_pass(sealed_s: float, share: float, slack_s: float) -> None:
    """Any number of them while the chunk lives: custodians take off what they hold it. Clocks that
    differ, links and waiting are within the tolerance, together."""
    trailer = Trailer(0, SEALED_AT_MS, round(sealed_s * 1000))
    came = share * sealed_s
    assert is_opened(Copy(came, sealed_s - came, 0, 0), trailer, slack_s)


@pytest.mark.parametrize(
    ("copies", "sealed_s"), [(EARLY, 60.0), (LATE, 60.0), (HELD, 20.0)], ids=str
)
def test_without_the_check_it_is_taken_twice(copies: list[Copy], sealed_s: float) -> None:
    """The control: each of the three ways leads around the receiver's window."""
    assert taken_count(copies, sealed_s, 0.0, is_checked=False) == 2


def test_receivers_remember_for_longer_than_seals_are_good() -> None:
    """Numbers of two rooms that belong together."""
    assert MAX_WAIT_S >= MAX_TOLERANCE_S
    assert NO_LIFETIME_MS / 1000 + MAX_TOLERANCE_S + 4 * HOLD_LIMIT_S < 2 * 600 + RETENTION_SLACK_S
