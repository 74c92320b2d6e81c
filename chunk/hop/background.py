"""A window for what can wait: migration, prefetch. It yields to whatever else wants the path.

It grows while the round trip shows next to no queue and shrinks before a sender that listens to
loss would notice anything. Loss without a queue says nothing, as for everything else.

Source: LEDBAT (RFC 6817) with the halving and the short target of LEDBAT++
(draft-irtf-iccrg-ledbat-plus-plus).
"""

from __future__ import annotations

from packetcloud.chunk.hop.path_model import PathModel

TARGET_S = 0.010
"""Delay by queues that is tolerated. RFC 6817 allows up to 100 ms; that is more than a buffer of
one product at 30 ms ever holds, so it would never yield."""
MIN_DATAGRAMS = 2.0
MAX_SHRINK = 0.5
"""Of the window, in one round trip, at twice the target or more."""


class BackgroundWindow:
    """How much of what can wait may be in flight."""

    def __init__(self, datagram_bytes: int) -> None:
        self._datagram_bytes = datagram_bytes
        self._datagrams = MIN_DATAGRAMS
        self._is_starting = True
        self.is_full = False
        """More could have been sent; else there is no reason to widen the window."""

    @property
    def window_bytes(self) -> float:
        return self._datagrams * self._datagram_bytes

    def on_round(self, path: PathModel, rtt_s: float, has_lost: bool) -> None:
        """Take in a round trip.

        Args:
            rtt_s: the shortest of the round.
            has_lost: something sent in it was lost.
        """
        was_full, self.is_full = self.is_full, False
        queue_s = rtt_s - path.min_rtt_s
        target_s = max(TARGET_S, path.min_rtt_s / 8)
        if has_lost and not path.is_queue_empty(rtt_s):
            self._shrink(MAX_SHRINK)
        elif queue_s > target_s:
            self._shrink(MAX_SHRINK * min(queue_s / target_s - 1, 1.0))
        elif was_full:
            if self._is_starting and queue_s <= target_s / 2:
                self._datagrams *= 2
            else:
                self._is_starting = False
                self._datagrams += 1 - queue_s / target_s

    def _shrink(self, share: float) -> None:
        self._is_starting = False
        self._datagrams = max(self._datagrams * (1 - share), MIN_DATAGRAMS)
