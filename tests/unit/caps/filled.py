"""What a filler of a cap reports, and the table of all fillers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Filled:
    """How a cap behaved when it was filled, and when more was pressed on it."""

    cap: int
    """The number in force; smaller than the default where a config made it so."""
    at_cap: int
    """What was there when it was filled as far as it goes."""
    counted_at_cap: int
    """What the counter said then."""
    beyond: int
    """What was there after more of the same."""
    counted_beyond: int
    others_go_on: bool
    """Others were served meanwhile."""
    left: int
    """What was there after the filler stopped and everything ran out; what is kept on purpose, for
    instance the memory of duplicates, does not count."""
    granularity: int = 1
    """The smallest thing that can be added."""


Filler = Callable[[], Filled]
FILLERS: dict[tuple[str, str], Filler] = {}
"""By room and name of the cap."""


def fills(room: str, cap: str) -> Callable[[Filler], Filler]:
    """Mark the filler of a cap."""

    def note(filler: Filler) -> Filler:
        assert (room, cap) not in FILLERS, f"two fillers for {room}, {cap}"
        FILLERS[room, cap] = filler
        return filler

    return note
