"""Core: which neighbour routers to call, and when to try again. `now` is passed in."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass

from packetcloud.chunk.names import GUID
from packetcloud.router.settings import RouterNeighbour

FIRST_DELAY_S = 0.25
LONGEST_DELAY_S = 8.0
"""A neighbour that comes back is found again within so long."""
YIELD_S = 1.0
"""Where both sides have an address, the one with the larger GUID waits so long for the other's
call, so that two sessions do not replace each other in turn."""


@dataclass(slots=True)
class _Target:
    guid: GUID
    address: tuple[str, int]
    next_try_at: float
    delay_s: float = FIRST_DELAY_S
    is_calling: bool = False


class Redial:
    """Keeps a session with every neighbour that has an address."""

    def __init__(self, own: GUID, neighbours: Iterable[RouterNeighbour], now: float) -> None:
        self._own = own
        self._targets: dict[GUID, _Target] = {}
        self.configure(neighbours, now)

    def configure(self, neighbours: Iterable[RouterNeighbour], now: float) -> None:
        """Take another list of neighbours; known ones keep their state."""
        known, self._targets = self._targets, {}
        for neighbour in neighbours:
            if neighbour.address is None:
                continue
            target = known.get(neighbour.guid)
            if target is None or target.address != neighbour.address:
                target = _Target(neighbour.guid, neighbour.address, self._first_try(neighbour, now))
            self._targets[neighbour.guid] = target

    def due(self, up: Container[GUID], now: float) -> list[_Target]:
        """Return whom to call now; each is being called until `failed` or `succeeded`."""
        called = []
        for target in self._targets.values():
            if target.guid in up:
                target.delay_s = FIRST_DELAY_S
                target.next_try_at = max(target.next_try_at, now + self._patience(target.guid))
            elif not target.is_calling and now >= target.next_try_at:
                target.is_calling = True
                called.append(target)
        return called

    def failed(self, guid: GUID, now: float) -> bool:
        """Wait longer before the next call; tell whether this was the first failure in a row."""
        target = self._targets.get(guid)
        if target is None:
            return False
        is_first = target.delay_s == FIRST_DELAY_S
        target.is_calling = False
        target.next_try_at = now + target.delay_s
        target.delay_s = min(2 * target.delay_s, LONGEST_DELAY_S)
        return is_first

    def succeeded(self, guid: GUID, now: float) -> None:
        """The session is up; whether it stays up is seen by `due`.

        It does not when the neighbour called at the same moment: then both sessions replaced each
        other. The side that yields waits longer each time, so that one call comes through alone.
        """
        target = self._targets.get(guid)
        if target is None:
            return
        target.is_calling = False
        patience_s = self._patience(guid)
        if patience_s:
            target.next_try_at = now + patience_s + target.delay_s
            target.delay_s = min(2 * target.delay_s, LONGEST_DELAY_S)

    def _first_try(self, neighbour: RouterNeighbour, now: float) -> float:
        return now + self._patience(neighbour.guid)

    def _patience(self, guid: GUID) -> float:
        return YIELD_S if guid < self._own else 0.0
