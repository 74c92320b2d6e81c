"""Bursts on their way to the neighbour, and when one counts as answered, late or lost.

Bursts carry ascending numbers, and an ACK names the largest that arrived. What was sent three
bursts or 9/8 round trips before that and is not in the ACK is lost; nothing is lost for having
waited alone.

Source: docs/protocol/hop.md, "Sending"; RFC 9002 sections 6.1 and 6.2 for the rules.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.congestion import Congestion
from packetcloud.chunk.hop.rtt import RttEstimator

REORDER_BURSTS = 3
"""Bursts that may overtake one before it counts as lost: RFC 9002's packet threshold."""
REORDER_SHARE = 0.25
MIN_REORDER_S = 0.0005
REORDER_MEMORY_S = 10.0
"""A quarter of a round trip more, each time that something called lost has come all the same (RFC
8985, section 6.2); half of it is forgotten when that did not happen for so long."""
TIMER_SLACK_S = 1e-6
"""A timer set for t + d and read as t <= now - d may miss by a rounding error and fire for ever."""

MAX_SKIPPED_COUNT = 64
"""Left out lately: an ACK of an older one is overtaken anyway."""


@dataclass(slots=True)
class _Burst:
    """A burst on its way: number, when it left, its bytes."""

    number: int
    sent_at: float
    size: int
    background: bool = False


class Flight:
    """The bursts of one session that are on their way, or that left lately.

    Args:
        rtt: the session's round trips; ACKs add to them.
        congestion: told of what leaves and of what ACKs say.
        skip_after: returns after how many bursts one number is left out; None: none ever is.
    """

    def __init__(
        self, rtt: RttEstimator, congestion: Congestion, skip_after: Callable[[], int] | None
    ) -> None:
        self._rtt = rtt
        self._congestion = congestion
        self.next_burst = 1
        self._skip_after = skip_after
        self._until_skip = skip_after() if skip_after is not None else 0
        self.skipped: deque[int] = deque(maxlen=MAX_SKIPPED_COUNT)
        """Numbers that no burst has: whoever acknowledges one guesses."""
        self._bursts: deque[_Burst] = deque()
        self._history: deque[_Burst] = deque()
        """Bursts that an ACK has passed but that are too recent to call lost by time."""
        self._loss_floor = 0
        self._reorder_s = 0.0
        """How long something may be overtaken by bursts before it is called lost."""
        self._overtaken_at = float("-inf")
        self._largest_sent_at = 0.0
        self.largest_acked = 0
        """The newest burst that the neighbour has acknowledged."""
        self.in_flight_bytes = 0
        self.background_bytes = 0
        """Those of the bytes in flight that belong to the background class."""
        self.backoff = 0
        """How often something was asked for in vain since an ACK named a new burst."""
        self._waiting_since: float | None = None
        self._loss_at: float | None = None
        self.sent_bytes = 0
        self.probes = 0

    @property
    def unanswered_since(self) -> float | None:
        """When the oldest burst left that no ACK has passed; None when each was answered."""
        return self._bursts[0].sent_at if self._bursts else None

    @property
    def newest_sent_at(self) -> float | None:
        """When the newest burst left that no ACK has passed; None when each was answered."""
        return self._bursts[-1].sent_at if self._bursts else None

    # --- what leaves ----------------------------------------------------------------------------

    def take_number(self) -> int:
        """Return the number of the next burst; now and then leave one out behind it."""
        burst = self.next_burst
        self.next_burst += 1
        if self._skip_after is not None:
            self._until_skip -= 1
            if self._until_skip <= 0:
                self.skipped.append(self.next_burst)
                self.next_burst += 1
                self._until_skip = self._skip_after()
        return burst

    def add(self, burst: int, size: int, now: float, background: bool) -> None:
        """A burst of `size` bytes leaves."""
        if not self.in_flight_bytes:
            self._congestion.on_restart(burst + 1, now)
        self._congestion.on_sent(size, now)
        self._bursts.append(_Burst(burst, now, size, background))
        self.in_flight_bytes += size
        if background:
            self.background_bytes += size
        self.sent_bytes += size
        if self._waiting_since is None:
            self._waiting_since = now

    def probe(self, now: float) -> bytes:
        """Return a frame that asks for an ACK at once and counts as a burst of no bytes."""
        burst = self.take_number()
        self.probes += 1
        self._bursts.append(_Burst(burst, now, 0))
        if self._waiting_since is None:
            self._waiting_since = now
        return wire.ProbeFrame(burst & 0xFFFF_FFFF).to_bytes()

    # --- what is answered -----------------------------------------------------------------------

    def take_ack(self, ack: wire.AckFrame, largest: int, limited: bool, now: float) -> None:
        """Take in which bursts the neighbour knows of.

        Args:
            largest: the last of them, its whole number.
            limited: there was nothing more to send.
        """
        rtt_s: float | None = None
        if largest > self.largest_acked:
            rtt_s = self._pass_bursts(largest, ack.delay_us / 1e6, now)
            self.backoff = 0
            self._waiting_since = now if self._bursts else None
        # A network may double datagrams, but not for ever.
        received_bytes = min(ack.received_bytes, 2 * self.sent_bytes)
        self._congestion.on_ack(
            received_bytes, rtt_s, largest, self.next_burst, self.in_flight_bytes, limited, now
        )

    def _pass_bursts(self, largest: int, delay_s: float, now: float) -> float | None:
        """Take bursts out of flight; return the round trip of the largest, less `delay_s`."""
        rtt_s: float | None = None
        bursts = self._bursts
        while bursts and bursts[0].number <= largest:
            burst = bursts.popleft()
            self.in_flight_bytes -= burst.size
            if burst.background:
                self.background_bytes -= burst.size
            self._history.append(burst)
            if burst.number == largest:
                self._rtt.add_sample(now - burst.sent_at, delay_s, now)
                rtt_s = max(now - burst.sent_at - delay_s, 1e-6)
            self._largest_sent_at = burst.sent_at
        self.largest_acked = largest
        return rtt_s

    # --- what is lost ---------------------------------------------------------------------------

    def loss_floor(self, now: float) -> int:
        """Return the last burst of which all that is missing counts as lost.

        Whoever looks for it then says with `watch` whether something newer is missing.
        """
        history = self._history
        largest = self.largest_acked
        if self._reorder_s and now - self._overtaken_at > REORDER_MEMORY_S:
            self._reorder_s, self._overtaken_at = self._reorder_s / 2, now
        floor = self._loss_floor
        passed_at = self._largest_sent_at - self._reorder_s + TIMER_SLACK_S
        while history and (
            (history[0].number <= largest - REORDER_BURSTS and history[0].sent_at <= passed_at)
            or self._loss_time(history[0]) <= now + TIMER_SLACK_S
        ):
            floor = max(floor, history.popleft().number)
        self._loss_floor = floor
        self._loss_at = None
        return floor

    def forget_passed(self) -> None:
        """Nothing is outstanding: none of what an ACK has passed can turn out lost."""
        if self._history:
            self._loss_floor = self._history[-1].number
            self._history.clear()
            self._loss_at = None

    def watch(self) -> None:
        """Something newer is missing of what an ACK has passed: it may turn out lost by time."""
        if self._history:
            self._loss_at = self._loss_time(self._history[0])

    def _loss_time(self, burst: _Burst) -> float:
        """Return when what is missing of a burst that an ACK has passed counts as lost.

        The neighbour may have acknowledged the last burst it knows of while the rest of it still
        lay in its socket: such a burst has as long as an answer may take.
        """
        if burst.number < self.largest_acked:
            return burst.sent_at + self._rtt.loss_delay_s + self._reorder_s
        return burst.sent_at + self._rtt.probe_timeout_s(0)

    def note_overtaken(self, now: float) -> None:
        """What was called lost has come: wait longer for what was overtaken, up to a round trip."""
        rtt = self._rtt
        if now - self._overtaken_at >= rtt.smoothed_s:
            self._overtaken_at = now
            more_s = max(REORDER_SHARE * rtt.smoothed_s, MIN_REORDER_S)
            self._reorder_s = min(self._reorder_s + more_s, rtt.smoothed_s)

    # --- timers ---------------------------------------------------------------------------------

    def next_timeout(self, patience_s: float, silent_until: float) -> float | None:
        """Return when something counts as lost by time or an answer is overdue, or None.

        Args:
            patience_s: how long an answer may take.
            silent_until: no question may leave before.
        """
        deadline = self._loss_at
        if self._waiting_since is not None and self._bursts:
            probe_at = self._waiting_since + patience_s
            probe_at = max(probe_at, silent_until)
            deadline = probe_at if deadline is None else min(deadline, probe_at)
        return deadline

    def has_lost(self, now: float) -> bool:
        """Something counts as lost by time: look for it."""
        return self._loss_at is not None and now >= self._loss_at

    def overdue_probe(self, patience_s: float, now: float) -> bytes | None:
        """Return a probe when no answer came for `patience_s`, else None."""
        if (
            self._waiting_since is None
            or not self._bursts
            or now < self._waiting_since + patience_s
        ):
            return None
        self.backoff += 1
        self._waiting_since = now
        return self.probe(now)

    def restart_path(self) -> None:
        """The neighbour, or this node, is somewhere else now: ask at once what is missing."""
        self._congestion.reset()
        self.backoff = 0
        if self._waiting_since is not None:
            self._waiting_since = float("-inf")
