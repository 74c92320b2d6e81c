"""The controller's one timer, which does not ring at once when this process has stood still.

Who was not scheduled for seconds (a slow disk, a machine out of breath, SIGSTOP) finds every limit
of others passed, though their words lie unread in its sockets. So what is late by much is put off
once, for as long as it takes to read them.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

MUCH_TOO_LATE_S = 1.0
"""A loop that is well rings within milliseconds."""
CATCH_UP_S = 0.5
"""To read what came meanwhile; VIs say something every second, and at once when they could not."""


class Alarm:
    """Calls `ring` when it is time; at most one time is set."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self.put_off_count = 0
        """How often this process has been found to have stood still."""
        self._loop = loop
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None
        self._not_before = -math.inf

    def set(self, due: float) -> None:
        """Ring at `due`, of the loop's clock, instead of any time set before; infinite: never."""
        self.cancel()
        if due < math.inf:
            due = max(due, self._not_before)
            self._timer = self._loop.call_at(due, self._rings, due)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _rings(self, due: float) -> None:
        self._timer = None
        now = self._loop.time()
        if now - due > MUCH_TOO_LATE_S and due > self._not_before:
            self.put_off_count += 1
            self._not_before = now + CATCH_UP_S
            self.set(self._not_before)
        else:
            self._ring()
