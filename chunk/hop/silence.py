"""One question at a time while a neighbour says nothing.

A session asks for many reasons: a burst without an answer, credit, new keys, the size of datagrams,
a body found altered. Each has a timer of its own, and on a path that loses everything each would
send on its own. Whatever comes back lets all of them go on, so one question is as good as ten.

Source: docs/protocol/hop.md, "Silence"; RFC 9002, section 6.2.
"""

from __future__ import annotations

from packetcloud.chunk.hop.rtt import RttEstimator

HEARD_BACKOFF_COUNT = 2
"""Questions in vain that count although the neighbour was heard since."""
HEARD_TIMEOUT_S = 0.3
"""Who is heard is asked at least so often: it was bad luck, or answers are lost. Waiting a second
each time for a full window to be known about took 10 s, at 30 % loss each way, in one of 3 000
simulated networks. More often, one that withholds every ACK would make us remember more."""


class Silence:
    """Since when a neighbour leaves questions unanswered, and when the next one may leave.

    Args:
        rtt: the session's round trips: how long an answer may take.
    """

    def __init__(self, rtt: RttEstimator) -> None:
        self._rtt = rtt
        self._rounds = 0
        """Rounds of questions since the neighbour was heard."""
        self._asked_at = float("-inf")
        self.timeouts = 0
        """Rounds so far that began because nothing had come for as long as an answer may take."""

    @property
    def until(self) -> float:
        """When the next question may leave; minus infinity while none is unanswered."""
        if not self._rounds:
            return float("-inf")
        return self._asked_at + self._rtt.probe_timeout_s(self._rounds)

    @property
    def is_lasting(self) -> bool:
        """A question is unanswered."""
        return self._rounds > 0

    def patience_s(self, in_vain_count: int) -> float:
        """Return how long to wait for an answer after so many questions about it in vain."""
        heard_s = self._rtt.probe_timeout_s(self._rounds + HEARD_BACKOFF_COUNT)
        return min(self._rtt.probe_timeout_s(in_vain_count), max(heard_s, HEARD_TIMEOUT_S))

    def heard(self) -> None:
        """The neighbour said something."""
        self._rounds = 0

    def may_ask(self, now: float) -> bool:
        """Tell whether a question may leave now; whoever asks then says so with `asked`.

        All that is due in the moment of the first one may: nobody can know yet what is lost.
        """
        return now >= self.until or (self._rounds == 1 and now == self._asked_at)

    def asked(self, now: float) -> None:
        """A question leaves."""
        if now != self._asked_at or not self._rounds:
            self.timeouts += self._rounds > 0
            self._rounds += 1
            self._asked_at = now
