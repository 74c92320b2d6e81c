"""Which numbered datagrams were seen before: a sliding window over 64-bit counters.

Source: docs/protocol/hop.md, "Counters"; RFC 6479 for the idea.
"""

from __future__ import annotations

from packetcloud.chunk.errors import ProtocolError

WINDOW_COUNT = 1024
"""How far behind the newest a counter may be: a burst of bundles is 355 datagrams at most, and a
path may let two of them change places."""
_MASK = (1 << WINDOW_COUNT) - 1


class ReplayWindow:
    """Remembers which counters were taken; asks first, as only what proves itself is noted."""

    __slots__ = ("_seen", "newest")

    def __init__(self) -> None:
        self.newest = 0
        """The largest counter taken; counters begin at 1."""
        self._seen = 1

    def check(self, counter: int) -> None:
        """Raise unless `counter` may be new. Raises: ProtocolError."""
        behind = self.newest - counter
        if behind >= WINDOW_COUNT:
            raise ProtocolError("old_counter", f"{counter}, {behind} behind")
        if behind >= 0 and self._seen >> behind & 1:
            raise ProtocolError("replayed", str(counter))

    def note(self, counter: int) -> bool:
        """Take `counter`, which `check` let pass; tell whether it is the newest."""
        ahead = counter - self.newest
        if ahead <= 0:
            self._seen |= 1 << -ahead
            return False
        self._seen = (self._seen << min(ahead, WINDOW_COUNT) | 1) & _MASK
        self.newest = counter
        return True
