"""When a node looks at its socket again and again instead of going to sleep.

A processor that halts, and is woken for a datagram, runs the program that the datagram is for 0.05
to 0.2 ms later, from cold caches. Where the next datagram is a matter of tens of microseconds, or a
service on this machine is about to answer, staying awake costs less than that. How much of a
processor it may cost is bounded: a share of the time that passes.

Source: docs/decisions/0021.
"""

from __future__ import annotations

import math
from typing import Generic, TypeVar

SHARE = 0.05
"""Of one processor, in the long run."""
SAVED_S = 0.005
"""So much of it may be used at once after a rest: two visits to a service."""
ANSWER_S = 0.0025
"""An answer of a service that encrypts 1 MiB takes 2 ms; who takes longer is slept for."""
LULL_S = 0.0003
"""Between two bursts of one body, from a neighbour that is near."""
COMING_S = 0.0015
"""Between a forewarning and its body: what a router takes for the rest of 1 MiB."""
NEAR_S = 0.001
"""A neighbour with a shorter round trip is near: on this machine, or in its rack."""
UNANSWERED_S = 1.0
"""A question that is older counts no more: it was refused, or given up, or who had it ended."""
MAX_OPEN_COUNT = 64
"""Questions that are remembered, the newest; it matters only whether there is more than one."""

AskedT = TypeVar("AskedT")


class Vigil(Generic[AskedT]):
    """Whether what comes next is worth staying awake for.

    Only one answer at a time is: with more than one question open there is work meanwhile, and when
    the answers come matters less than what it costs to wait for them.
    """

    def __init__(self) -> None:
        self._saved_s = SAVED_S
        self._saved_at = -math.inf
        self._until = -math.inf
        self._open: dict[tuple[AskedT, bytes], float] = {}
        """When each open question was asked, the oldest first; infinity until somebody wanted to
        know `until` when."""
        self._is_in_reach = False
        """Who was asked last may answer in time."""
        self.asked_last: AskedT | None = None
        """Who was asked last, since somebody set it to None."""
        self._only: AskedT | None = None

    def asked(self, whom: AskedT, question: bytes, round_trip_s: float) -> None:
        """A body left, or is about to, on which a neighbour answers with one of its own.

        Args:
            question: what tells it from others to the same neighbour.
            round_trip_s: to that neighbour; if the way alone takes longer than an answer may,
                nobody stays awake for it.
        """
        self._open.pop((whom, question), None)
        self._open[whom, question] = math.inf
        if len(self._open) > MAX_OPEN_COUNT:
            del self._open[next(iter(self._open))]
        self._is_in_reach = round_trip_s < ANSWER_S
        self.asked_last = whom
        self._only = whom if self._is_in_reach and len(self._open) == 1 else None

    def take_only(self) -> AskedT | None:
        """Return who was just asked, if nobody else is at work for us; once."""
        only, self._only = self._only, None
        return only

    def answered(self, whom: AskedT, question: bytes) -> None:
        if self._open.pop((whom, question), None) is not None:
            self._until = -math.inf

    @property
    def has_question(self) -> bool:
        """Somebody is at work for us, so he is awake."""
        return bool(self._open)

    def warned(self, now: float) -> None:
        """A neighbour that is near says that a body will follow."""
        self._until = max(self._until, now + COMING_S)

    def met(self) -> None:
        """The body that was waited for is here."""
        self._until = -math.inf

    def midway(self, now: float) -> None:
        """Something of a body has come, and the rest is on its way from near by."""
        self._until = max(self._until, now + LULL_S)

    def until(self, now: float) -> float:
        """Return until when to stay awake; `now` or earlier: not at all."""
        if self._open and self._look_at_questions(now):
            self._until = max(self._until, now + ANSWER_S)
        if self._until <= now:
            return -math.inf
        self._save(now)
        return min(self._until, now + self._saved_s)

    def spent(self, seconds: float, now: float) -> None:
        """So long was spent looking, until `now`."""
        self._save(now)
        self._saved_s -= seconds

    def _look_at_questions(self, now: float) -> bool:
        """Note when new ones were asked, and forget old ones; tell whether the only one is new and
        may be answered in time."""
        is_new = False
        for one in reversed(self._open):
            if self._open[one] < math.inf:
                break
            self._open[one] = now
            is_new = True
        while self._open and now - next(iter(self._open.values())) > UNANSWERED_S:
            del self._open[next(iter(self._open))]
        return is_new and self._is_in_reach and len(self._open) == 1

    def _save(self, now: float) -> None:
        self._saved_s = min(SAVED_S, self._saved_s + SHARE * (now - self._saved_at))
        self._saved_at = now
