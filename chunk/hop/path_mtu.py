"""How large a datagram the path takes: padded probes there, a short answer back.

The first datagrams have the size that both routes promise. What lies between may take less and
say nothing (a black hole: ICMP is lost, or filtered, or forged, and never believed). So a session
probes at its start, and again when large datagrams seem to vanish; when no probe arrives although
small datagrams do, it falls back to what every path carries.

Source: docs/protocol/hop.md, "Size of datagrams"; RFC 8899 for the idea.
"""

from __future__ import annotations

from packetcloud.chunk.hop.datagrams import MIN_DATAGRAM_BYTES

TRIES_COUNT = 5
"""At 10 % loss each way one healthy path in 4000 is thought too narrow, for ten minutes."""
LEAST_PAUSE_S = 0.2
MOST_PAUSE_S = 0.6
"""Between two probes; five of them and the wait before the first end within 5 s."""
SUSPICION_S = 1.0
"""So long nothing of large datagrams has arrived that were sent."""
RETRY_AFTER_S = 600.0
"""After falling back: paths change, and probing costs six datagrams."""


class PathMtu:
    """Decides on the size of full datagrams in one direction of a session.

    Args:
        largest_bytes: what both sides and their routes take.
    """

    def __init__(self, largest_bytes: int, now: float) -> None:
        self._largest_bytes = largest_bytes
        self.stride_bytes = largest_bytes
        """What full datagrams have, or shall have."""
        self._tries = 0
        self._has_heard = False
        """Something small was answered since the last probe."""
        self._next_at = now if largest_bytes > MIN_DATAGRAM_BYTES else float("inf")
        """When to probe, or to judge the last probe."""
        self.fallbacks = 0

    @property
    def is_probing(self) -> bool:
        return self._tries > 0

    def next_timeout(self) -> float:
        """Return when `probe_bytes` has something to say."""
        return self._next_at

    def note_heard(self) -> None:
        """The neighbour acknowledged something small."""
        self._has_heard = True

    def suspect_at(self, waiting_since: float | None, patience_s: float) -> float | None:
        """Return when large datagrams must be thought to vanish; None: there is no sign of it.

        Args:
            waiting_since: when something large left after which nothing large arrived.
        """
        if waiting_since is None or self.is_probing or self.stride_bytes <= MIN_DATAGRAM_BYTES:
            return None
        return waiting_since + max(SUSPICION_S, 2 * patience_s)

    def suspect(self, waiting_since: float | None, patience_s: float, now: float) -> None:
        """Begin to probe if large datagrams seem to vanish."""
        at = self.suspect_at(waiting_since, patience_s)
        if at is not None and now >= at:
            self._next_at = now

    def must_ask(self, patience_s: float, now: float) -> bool:
        """Tell whether a probe and everything since went unanswered: that is no word about sizes.

        Whoever is told so asks for an answer to something small, and probes no more until it came.
        """
        if now < self._next_at or not self._tries or self._has_heard:
            return False
        self._pause(patience_s, now)
        return True

    def probe_bytes(self, patience_s: float, now: float) -> int | None:
        """Return the size of a probe that is due, or None; may change `stride_bytes`."""
        if now < self._next_at:
            return None
        if self._tries == TRIES_COUNT:
            self._fall_back(now)
            return None
        self._tries += 1
        self._has_heard = False
        self._pause(patience_s, now)
        return self._largest_bytes

    def _pause(self, patience_s: float, now: float) -> None:
        self._next_at = now + min(max(patience_s, LEAST_PAUSE_S), MOST_PAUSE_S)

    def restart(self, now: float) -> None:
        """The path is another one now."""
        if self._largest_bytes > MIN_DATAGRAM_BYTES:
            self._tries, self._next_at = 0, now

    def _fall_back(self, now: float) -> None:
        if self.stride_bytes > MIN_DATAGRAM_BYTES:
            self.fallbacks += 1
        self.stride_bytes = MIN_DATAGRAM_BYTES
        self._tries = 0
        self._next_at = now + RETRY_AFTER_S

    def note_arrived(self, size: int) -> None:
        """A probe of `size` bytes arrived."""
        if size == self._largest_bytes:
            self.stride_bytes = size
            self._tries = 0
            self._next_at = float("inf")
