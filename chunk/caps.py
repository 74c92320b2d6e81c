"""What a remote byte can make grow, and where that stops.

Each room has a module `caps` that lists its caps (`Room`) beside the code they bound. Tests fill
every one of them, and walk the room's code for containers that none of them bounds. Imports run one
way: this module knows no room. Source: design, "Every quantity that a peer can grow"; reference Q1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Cap:
    """One quantity that a remote byte can grow."""

    name: str
    """For people, unique in its room: "open transfers of one session"."""
    limit: int
    """The number, with default settings."""
    unit: str
    reason: str
    """Why this number."""
    beyond: str
    """What becomes of what is over."""
    counter: str
    """The metric that rises then, or where the count stands that is no metric of a router."""
    bounds: tuple[str, ...] = ()
    """The containers that it bounds, each `module:Class.attribute`, the module within the room."""
    setting: str = ""
    """The key of the config that changes it; empty: it is a constant."""


@dataclass(frozen=True, slots=True, eq=False)
class Room:
    """The caps of one room of the code."""

    name: str
    package: str
    """The package whose modules the containers are named by."""
    caps: tuple[Cap, ...]
    ours: Mapping[str, str] = field(default_factory=dict)
    """Containers that no remote byte grows without end, and why: `module:Class.attribute`."""

    def cap(self, name: str) -> Cap:
        """Return the cap of this name. Raises: KeyError."""
        return {cap.name: cap for cap in self.caps}[name]


def bytes_text(count: int) -> str:
    """Return a number of bytes as people write it: `24 MiB`; as it is where that is not exact."""
    for size, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= size and not count % size:
            return f"{count // size} {unit}"
    return f"{count} bytes"


def limit_text(cap: Cap) -> str:
    """Return the limit with its unit, as the tables of docs/ have it."""
    return bytes_text(cap.limit) if cap.unit == "bytes" else f"{cap.limit} {cap.unit}"
