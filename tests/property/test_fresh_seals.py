"""Law of fresh seals: whatever is done with copies of a sealed chunk, its receiver takes one.

The opener is the real check, the receiver the real window of a host. Between them and around them
everything is an adversary's: when copies come, what lifetime they say, how long they wait.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from packetcloud.host.duplicates import RETENTION_SLACK_S, DuplicateWindow, Seen
from packetcloud.services.catalogue import find_service
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
TOLERANCE_S = 5
LINKS_S = 60
MAX_WAIT_S = (RETENTION_SLACK_S - 2 * TOLERANCE_S) / 2
"""What the page says a chunk may wait for its sealer, and as long for its opener."""
START_MS = 1_000_000_000


@dataclass(frozen=True)
class Copy:
    """One copy: its host sends it, it is sealed, and then whoever is between has it."""

    comes: float
    """At the opener's router: so many seconds after it was sealed."""
    lifetime: float | None
    """What it says then."""
    waits: float = 0.0
    """For the opener, a share of what the page allows."""
    held: float = 0.0
    """By custodians behind it, a share of what its lifetime allows."""
    sent: float = 0.0
    """By its host: a share of the lifetime has passed."""
    waited: float = 0.0
    """For its sealer, a share of what the page allows."""

    def sealed_at(self, first_s: float | None) -> float:
        """Return when it was sealed; `first_s`: the lifetime that its host gave it at first."""
        return self.sent * (first_s or 0.0) + self.waited * MAX_WAIT_S

    def trailer(self, first_s: float | None) -> Trailer:
        left_ms = None if first_s is None else round((1 - self.sent) * first_s * 1000)
        return Trailer(0, START_MS + round(self.sealed_at(first_s) * 1000), left_ms)

    def arrival(self, first_s: float | None) -> tuple[float, float | None]:
        """Return when it reaches its receiver, and what is left of its lifetime."""
        life = HOLD_LIMIT_S if self.lifetime is None else self.lifetime
        waited = min(self.waits * MAX_WAIT_S, life)
        spent = waited + self.held * (life - waited)
        left = None if self.lifetime is None else life - spent
        return self.sealed_at(first_s) + self.comes + spent, left


def taken_count(
    copies: Iterable[Copy],
    first_s: float | None,
    skew_s: float,
    links_s: int = 0,
    is_checked: bool = True,
) -> int:
    """Return how often an application has the chunk."""
    window, taken = DuplicateWindow(), 0
    passed = [one for one in copies if not is_checked or is_opened(one, first_s, skew_s, links_s)]
    for now, left in sorted(one.arrival(first_s) for one in passed):
        window.expire(now)
        if window.arrived(SOURCE, 7, left, now) is Seen.NEW:
            window.taken(SOURCE, 7)
            taken += 1
    return taken


def is_opened(one: Copy, first_s: float | None, skew_s: float, links_s: int = 0) -> bool:
    waited = one.waits * MAX_WAIT_S
    if one.lifetime is not None and waited >= one.lifetime:
        return False  # its router gave it up
    at_s = one.sealed_at(first_s) + one.comes + waited + skew_s
    lifetime_ms = None if one.lifetime is None else round(one.lifetime * 1000)
    wall_ms = START_MS + round(at_s * 1000)
    try:
        check_fresh(one.trailer(first_s), lifetime_ms, wall_ms, TOLERANCE_S * 1000, links_s * 1000)
    except StaleSealError:
        return False
    return True


SHARES = st.floats(0, 0.999)
LIFETIMES = st.one_of(st.none(), st.floats(0.001, 600))
COPIES = st.lists(
    st.builds(Copy, st.floats(0, 900), LIFETIMES, SHARES, SHARES, SHARES, SHARES),
    min_size=1,
    max_size=8,
)
EARLY = [Copy(1, 0.05), Copy(40, 20)]
"""Cut short, so that the receiver forgets it after half a minute; then as it was."""
LATE = [Copy(1, 59), Copy(200, 60)]
"""Sent again with a new lifetime, when the receiver has forgotten it."""
HELD = [Copy(1, 19), Copy(2, 600, held=0.9)]
"""Prolonged, and held behind the opener."""
EDGE = [Copy(4, 41.05, waits=0.999, held=0.999), Copy(50, 14.99, held=0.999, waited=0.999)]
"""As much as is allowed of everything: cut short, and waiting for the opener; sealed after a wait,
and prolonged."""


@given(COPIES, LIFETIMES, st.floats(-TOLERANCE_S, TOLERANCE_S))
@example(EARLY, 60.0, 0.0)
@example(LATE, 60.0, 0.0)
@example(HELD, 20.0, 0.0)
@example(EDGE, 60.0, 0.0)
def test_a_sealed_chunk_is_taken_once(
    copies: list[Copy], first_s: float | None, skew_s: float
) -> None:
    """However many copies come, whenever, saying what they like."""
    assert taken_count(copies, first_s, skew_s) <= 1


@given(COPIES, LIFETIMES, st.floats(-TOLERANCE_S, TOLERANCE_S))
@example(EARLY, 60.0, 0.0)
@example(LATE, 60.0, 0.0)
def test_slow_links_change_nothing_while_the_receiver_is_there(
    copies: list[Copy], first_s: float | None, skew_s: float
) -> None:
    """A lifetime may be prolonged by what links take; unless chunks are held behind the opener for
    that, it is of no use."""
    at_once = [replace(one, held=0.0) for one in copies]
    assert taken_count(at_once, first_s, skew_s, LINKS_S) <= 1


@given(st.floats(1, 600), SHARES, st.floats(-4.99, 4.99 + LINKS_S))
def test_honest_copies_pass(first_s: float, share: float, slack_s: float) -> None:
    """Any number of them while the chunk lives: custodians take off what they hold it. Clocks that
    differ, and waiting, are within the tolerance together; links take longer, not as long as for
    the lifetime to end meanwhile."""
    came = share * first_s
    is_late = came + slack_s > first_s + TOLERANCE_S
    assert is_opened(Copy(came, first_s - came), first_s, slack_s, LINKS_S) is not is_late


@pytest.mark.parametrize(
    ("copies", "first_s"), [(EARLY, 60.0), (LATE, 60.0), (HELD, 20.0)], ids=str
)
def test_without_the_check_it_is_taken_twice(copies: list[Copy], first_s: float) -> None:
    """The control: each of the three ways leads around the receiver's window."""
    assert taken_count(copies, first_s, 0.0, is_checked=False) == 2


def test_what_is_allowed_is_used_up() -> None:
    """Both of the last example are opened, at the edge of what the page allows; a chunk that waits
    for its sealer a little longer than that would be taken twice."""
    assert all(is_opened(one, 60.0, 0.0) for one in EDGE)
    longer = [EDGE[0], replace(EDGE[1], waited=1.05)]
    assert taken_count(longer, 60.0, 0.0) == 2


def test_receivers_remember_for_longer_than_seals_are_good() -> None:
    """Numbers of two rooms that belong together."""
    declared = find_service("secure-communication").manifest.parameters["tolerance_s"]
    assert (declared.default, declared.maximum) == (TOLERANCE_S, MAX_TOLERANCE_S)
    links = find_service("secure-communication").manifest.parameters["links_s"]
    assert links.default == LINKS_S
    assert MAX_WAIT_S >= 10, "what routers wait by default for a VI"
    assert 2 * MAX_TOLERANCE_S < RETENTION_SLACK_S
    assert NO_LIFETIME_MS / 1000 + MAX_TOLERANCE_S + 4 * HOLD_LIMIT_S < 2 * 600 + RETENTION_SLACK_S
