"""How many of the strangers' datagrams are looked at when there are too many of them.

Each costs this process some 15 microseconds, whatever it is; dropped by the kernel, one. What
belongs to a session or a handshake under way is no stranger's and is never shed. Which of the
others pass is drawn by lot: who is honest tries again, several times a second.

Source: docs/protocol/hop.md, "Floods"; reference T-07, T-08.
"""

from __future__ import annotations

STRANGERS_PER_S = 8000
"""Looked at: an eighth of a core. Of 50 000 HELLOs a second one in eight passes, so that an honest
one, tried again every 0.2 s, takes a second or two."""
LOOK_S = 0.25
"""How often the flood is measured."""
MAX_SHIFT = 10
"""At least one in 1024 passes."""


FEW_PER_S = 1000
"""With fewer strangers than this what the socket drops is not their doing."""


class FloodGauge:
    """Decides on the share that passes: one in `1 << shift`.

    Call `look` every `LOOK_S` or later, with the count of strangers' datagrams that passed so far,
    and of all that the kernel dropped at the socket, shed or for want of room.
    """

    def __init__(self, now: float) -> None:
        self.shift = 0
        self.shed_count = 0
        """What the kernel dropped while strangers were shed."""
        self._seen = 0
        self._dropped = 0
        self._looked_at = now

    def is_due(self, now: float) -> bool:
        """Tell whether it is time for the next look."""
        return now - self._looked_at >= LOOK_S

    def look(self, passed_count: int, dropped_count: int, now: float) -> bool:
        """Measure what has come since the last look; tell whether `shift` changed."""
        if not self.is_due(now):
            return False
        elapsed = now - self._looked_at
        passed, dropped = passed_count - self._seen, dropped_count - self._dropped
        self._seen, self._dropped, self._looked_at = passed_count, dropped_count, now
        came = passed
        if self.shift:
            self.shed_count += dropped
            came += dropped
        elif passed > FEW_PER_S * elapsed:
            came += dropped  # more than this process could take
        wanted = 0
        while wanted < MAX_SHIFT and came > STRANGERS_PER_S * elapsed * (1 << wanted):
            wanted += 1
        before = self.shift
        # Up at once, down by steps: a flood that pauses must not find the door wide open.
        self.shift = wanted if wanted > before else max(wanted, before - 1)
        return self.shift != before
