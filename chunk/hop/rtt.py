"""Round-trip time: smoothed, its variation, the minimum, and the timers that follow from them.

Source: RFC 9002, sections 5 and 6; MobilityFirst's fixed 2 s timer is what this replaces.
"""

from __future__ import annotations

GRANULARITY_S = 0.001
"""Timer granularity, RFC 9002 section 6.1.2."""
INITIAL_RTT_S = 0.1
"""Before the first sample; the handshake gives one at once."""
MAX_ACK_DELAY_S = 0.005
"""A receiver holds an ACK back no longer than this, unless its process was not running."""
MAX_BACKOFF_COUNT = 6
LONGEST_PROBE_TIMEOUT_S = 0.5
"""Unless one answer takes longer. Where 30 % vanish each way half of all questions are answered,
and 10 s after a link or a neighbour is back everything must be delivered: with one a second a
neighbour that had restarted was found after 10 s in one of 4 000 simulated networks."""
LONGEST_IN_RTTS = 1.5
"""Where one answer takes longer, wait no more than so many of the smoothed round trips. After a
first one of 1.2 s, three times that, as RFC 9002 has it, would be 3.6 s; the path may be a short
one that was slow for a moment."""
MIN_RTT_WINDOW_S = 10.0
"""The minimum is forgotten after this long, so that a longer path is noticed."""


class RttEstimator:
    """Keeps the estimate of one session."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything: the path is another one now."""
        self.latest_s = INITIAL_RTT_S
        self.smoothed_s = INITIAL_RTT_S
        self.variation_s = INITIAL_RTT_S / 2
        self.minimum_s = INITIAL_RTT_S
        self._minimum_at = float("-inf")
        self._has_sample = False
        self._set_timeout()

    def add_sample(self, rtt_s: float, ack_delay_s: float, now: float) -> None:
        """Take in one measured round trip; `ack_delay_s` is the receiver's part of it."""
        rtt_s = max(rtt_s, 1e-6)
        if rtt_s <= self.minimum_s or now - self._minimum_at > MIN_RTT_WINDOW_S:
            self.minimum_s = rtt_s
            self._minimum_at = now
        if rtt_s - ack_delay_s >= self.minimum_s:
            rtt_s -= ack_delay_s
        self.latest_s = rtt_s
        if not self._has_sample:
            self._has_sample = True
            self.smoothed_s, self.variation_s = rtt_s, rtt_s / 2
        else:
            self.variation_s += (abs(self.smoothed_s - rtt_s) - self.variation_s) / 4
            self.smoothed_s += (rtt_s - self.smoothed_s) / 8
        self._set_timeout()

    def _set_timeout(self) -> None:
        patience_s = max(4 * self.variation_s, GRANULARITY_S)
        longest_s = max(LONGEST_PROBE_TIMEOUT_S, LONGEST_IN_RTTS * self.smoothed_s)
        self._timeout_s = min(self.smoothed_s + patience_s, longest_s) + MAX_ACK_DELAY_S

    @property
    def loss_delay_s(self) -> float:
        """A datagram sent longer ago than this before a later one arrived is lost: 9/8 RTT."""
        return max(1.125 * max(self.latest_s, self.smoothed_s), GRANULARITY_S)

    def probe_timeout_s(self, backoff_count: int) -> float:
        """How long to wait for any answer before asking, doubled for each time in vain.

        Not for the first: where a third of all datagrams is lost each way, half of all questions
        get no answer, and one of them says nothing.
        """
        base = self._timeout_s
        if backoff_count < 2:
            return base
        doubled = base * float(1 << min(backoff_count - 1, MAX_BACKOFF_COUNT))
        return max(base, min(doubled, LONGEST_PROBE_TIMEOUT_S))
