"""Who calls the control port how often, so that VIs cannot keep each other out.

Filters hold each VI to its own address. What one address may have of connections that have not said
who they are is therefore what one VI may have, and so is how often its calls are listened to: each
that proves itself costs the controller as much as a hundred reports.
Source: docs/protocol/control-link.md, "Caps".
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_STRANGERS_OF_ONE_COUNT = 4
"""A VI calls once at a time; its last calls may not have ended for us yet."""
MAX_CALLS_PER_S_COUNT = 10
"""An orderly VI waits between its calls, 0.05 s at first and up to 2 s."""
MANY_ADDRESSES_COUNT = 1024
"""More than VIs of one cloudlet call within a second; from here on the old ones are swept out."""
_WINDOW_S = 1.0


@dataclass(slots=True)
class _Address:
    """What calls from one address."""

    strangers_count: int = 0
    calls_count: int = 0
    """Within the present window."""
    window_ends_at: float = 0.0


class Callers:
    """All addresses that call.

    Args:
        strangers_count: connections of one address that may not have said yet who they are.
        calls_per_s_count: calls of one address that are listened to within a second.
    """

    def __init__(
        self,
        strangers_count: int = MAX_STRANGERS_OF_ONE_COUNT,
        calls_per_s_count: int = MAX_CALLS_PER_S_COUNT,
    ) -> None:
        self.held_up_count = 0
        """Calls that had to wait."""
        self._max_strangers_count = strangers_count
        self._max_calls_count = calls_per_s_count
        self._addresses: dict[str, _Address] = {}

    def strangers_of(self, address: str) -> int:
        """Return how many connections of an address have not said who they are."""
        found = self._addresses.get(address)
        return found.strangers_count if found is not None else 0

    def calls_of(self, address: str) -> int:
        """Return how many calls of an address were listened to within this second."""
        found = self._addresses.get(address)
        return found.calls_count if found is not None else 0

    def come(self, address: str, now: float) -> bool:
        """Take note of a connection; False: its address has as many as it may."""
        if address not in self._addresses and len(self._addresses) >= MANY_ADDRESSES_COUNT:
            self._sweep(now)
        one = self._addresses.setdefault(address, _Address())
        if one.strangers_count >= self._max_strangers_count:
            return False
        one.strangers_count += 1
        return True

    def known(self, address: str) -> None:
        """Take note that a connection ended, or has said who it is."""
        self._addresses[address].strangers_count -= 1

    def pause_s(self, address: str, now: float) -> float:
        """Return how long a call is to wait; 0: it may be listened to, and counts."""
        one = self._addresses[address]
        if now >= one.window_ends_at:
            one.window_ends_at, one.calls_count = now + _WINDOW_S, 0
        if one.calls_count >= self._max_calls_count:
            self.held_up_count += 1
            return one.window_ends_at - now
        one.calls_count += 1
        return 0.0

    def _sweep(self, now: float) -> None:
        self._addresses = {
            address: one
            for address, one in self._addresses.items()
            if one.strangers_count or now < one.window_ends_at
        }
